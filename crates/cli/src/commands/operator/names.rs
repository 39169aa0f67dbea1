//! What people type for a shard or a worker -> the one that is meant.

use anyhow::{anyhow, bail};
use sluicegate_checkpoint::ShardId;
use sluicegate_lease::{LeaseKey, WorkerId};

use super::fleet::Look;

/// The lease that is meant: its key, or the number of its shard.
pub(crate) fn shard(text: &str, look: &Look) -> anyhow::Result<LeaseKey> {
    let numbered = text.parse::<u64>().ok().map(|number| ShardId::new(format!("shardId-{number:012}")));
    let candidates = [Some(ShardId::new(text)), numbered];
    let found = candidates.into_iter().flatten().find(|key| look.leases.contains_key(key));
    found.ok_or_else(|| {
        let known: Vec<&str> = look.leases.keys().map(ShardId::as_str).collect();
        anyhow!("no lease row for shard `{text}`; there are {}", listed(&known))
    })
}

/// All leases that are meant.
pub(crate) fn shards(texts: &[String], look: &Look) -> anyhow::Result<Vec<LeaseKey>> {
    texts.iter().map(|text| shard(text, look)).collect()
}

/// The worker that is meant: its id or the beginning of it (such as the name of its pod), among workers with a row
/// and owners of leases.
pub(crate) fn worker(text: &str, look: &Look) -> anyhow::Result<WorkerId> {
    let rows = look.fleet.workers.iter().map(|row| &row.worker_id);
    let mut known: Vec<&WorkerId> =
        rows.chain(look.leases.values().filter_map(|row| row.owner.as_ref())).collect();
    known.sort();
    known.dedup();
    if let Some(exact) = known.iter().find(|id| id.as_str() == text) {
        return Ok((*exact).clone());
    }
    let matching: Vec<&str> =
        known.iter().map(|id| id.as_str()).filter(|id| !text.is_empty() && id.starts_with(text)).collect();
    match matching.as_slice() {
        [one] => Ok(WorkerId::new(*one)),
        [] => {
            let known: Vec<&str> = known.iter().map(|id| id.as_str()).collect();
            bail!("no worker `{text}`; there are {}", listed(&known))
        }
        several => bail!("`{text}` begins the names of several workers: {}", listed(several)),
    }
}

/// So many names in an error at most.
const NAMED: usize = 12;

fn listed(names: &[&str]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        count if count > NAMED => format!("{count}, such as {}", names[..NAMED].join(", ")),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_checkpoint::{LeaseState, Position};
    use sluicegate_lease::{Lease, WorkerRow};

    fn look() -> Look {
        let mut look = Look::default();
        for (key, owner) in
            [("shardId-000000000003", None), ("account:stream:1:shardId-000000000004", Some("kcl"))]
        {
            let row = Lease::unowned(ShardId::new(key), Position::TrimHorizon, LeaseState::starting(None));
            look.leases.insert(row.key.clone(), Lease { owner: owner.map(WorkerId::new), ..row });
        }
        for id in ["pod-a-77", "pod-b-78", "pod-b"] {
            look.fleet.workers.push(WorkerRow::new(WorkerId::new(id)));
        }
        look
    }

    #[test]
    fn a_shard_is_named_by_its_key_or_its_number() {
        assert_eq!(shard("3", &look()).unwrap().as_str(), "shardId-000000000003");
        assert_eq!(shard("shardId-000000000003", &look()).unwrap().as_str(), "shardId-000000000003");
        let error = shard("4", &look()).unwrap_err().to_string();
        assert!(error.contains("`4`") && error.contains("shardId-000000000003"), "{error}");
    }

    #[test]
    fn a_worker_is_named_by_its_id_or_what_it_alone_begins_with() {
        assert_eq!(worker("pod-a", &look()).unwrap().as_str(), "pod-a-77");
        assert_eq!(worker("pod-b", &look()).unwrap().as_str(), "pod-b");
        assert_eq!(worker("kcl", &look()).unwrap().as_str(), "kcl");
        assert!(worker("pod", &look()).unwrap_err().to_string().contains("several"));
        assert!(worker("x", &look()).unwrap_err().to_string().contains("kcl, pod-a-77"));
        assert!(worker("", &look()).is_err());
        assert!(worker("x", &Look::default()).unwrap_err().to_string().contains("none"));
    }
}
