//! Filter, projection and reduction, with real workers: what is read back is what a direct computation gives.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::Value;
use sluicegate_tests::harness::backend::STREAM;
use sluicegate_tests::harness::fleet::APPLICATION;
use sluicegate_tests::harness::{
    Backend, Fleet, LONG, Multiset, flights, sluicegate, sluicegate_with, wait_for,
};

/// 10,000 flights of 2013, as the demo has them.
const SAMPLE: &[u8] = include_bytes!("../../crates/cli/data/sample-flights.ndjson.zst");

/// Count, sum, least and greatest, with whole numbers, as the sample's delays are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Sums {
    events: u64,
    count: u64,
    sum: i64,
    range: Option<(i64, i64)>,
}

/// Delays by key and day, computed from the events.
fn directly(flights: &[Value]) -> anyhow::Result<BTreeMap<(String, String), Sums>> {
    let mut all: BTreeMap<(String, String), Sums> = BTreeMap::new();
    for flight in flights {
        let text = |name: &str| flight[name].as_str().context("a text is missing");
        let key = format!("{}-{}", text("carrier")?, flight["month"]);
        let day = text("time_hour")?.split('T').next().unwrap_or_default().to_owned();
        let sums = all.entry((key, day)).or_default();
        sums.events += 1;
        if let Some(delay) = flight["dep_delay"].as_i64() {
            sums.count += 1;
            sums.sum += delay;
            let (least, greatest) = sums.range.unwrap_or((delay, delay));
            sums.range = Some((least.min(delay), greatest.max(delay)));
        }
    }
    Ok(all)
}

/// What `sluicegate read` prints of a key.
async fn read(backend: &Backend, key: &str) -> anyhow::Result<String> {
    let arguments = ["read", "--embedded", "--application", APPLICATION, "--key", key];
    Ok(sluicegate(&backend.environment(), &arguments).await?.successful()?.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delays_by_carrier_month_and_day_are_those_of_a_direct_computation_though_a_worker_dies()
-> anyhow::Result<()> {
    let backend = Backend::with_stream(3).await?;
    let input = zstd::decode_all(SAMPLE)?;
    let produce = ["produce", "--embedded", "--stream", STREAM, "--key", "{/tailnum}", "--json"];
    sluicegate_with(&backend.environment(), &produce, &input).await?.successful()?;
    let lines: Vec<Value> =
        input.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let wanted = directly(&lines)?;

    let fleet = Fleet::new(&backend, "reduce")?.set("aggregate_key", "{/carrier}-{/month}");
    let mut fleet = fleet.set("reduce", "/dep_delay per 1d by /time_hour").set("max_batch_records", "400");
    fleet.start(&[])?;
    fleet.start(&[])?;
    let table = backend.table(APPLICATION);
    let begun = async || Ok((table.stored().await? > 0).then_some(()));
    wait_for("the first stored events", LONG, begun).await?;
    fleet.kill_announcing().await?;
    fleet.start(&[])?;
    fleet.drained(lines.len()).await?;
    fleet.stop().await?;
    ensure!(table.overlaps().await?.is_empty(), "an event went into two reductions");
    ensure!(table.stored().await? == lines.len() as u64);

    let mut found: BTreeMap<(String, String), Sums> = BTreeMap::new();
    let keys: std::collections::BTreeSet<&String> = wanted.keys().map(|(key, _)| key).collect();
    for key in keys {
        for line in read(&backend, key).await?.lines() {
            let line: Value = serde_json::from_str(line)?;
            let window = line["window"].as_str().context("no window")?;
            let day = window.strip_suffix("T00:00:00Z").context("no day")?.to_owned();
            ensure!(line["key"] == key.as_str() && line["unreadable"] == 0, "{line}");
            let field = &line["fields"]["/dep_delay"];
            let number = |name: &str| field[name].as_i64();
            let sums = Sums {
                events: line["events"].as_u64().context("no events")?,
                count: field["count"].as_u64().context("no count")?,
                sum: number("sum").context("no sum")?,
                range: number("min").zip(number("max")),
            };
            ensure!(found.insert((key.clone(), day), sums).is_none(), "a window is printed twice: {line}");
        }
    }
    ensure!(found == wanted, "{} windows are read, {} were expected", found.len(), wanted.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_events_and_fields_that_are_wanted_are_stored() -> anyhow::Result<()> {
    let backend = Backend::with_stream(2).await?;
    let lines = flights(21, 1_000);
    backend.publish(&lines, None).await?;
    let filter = r#"/minutes_00 > 100 and not (/customer == "c-03" or /place_01 < "Pl\u00e4ce 0050")"#;
    let mut fleet = Fleet::new(&backend, "filter")?.set("filter", filter).set("fields", "/number, /share_02");
    fleet.start(&[])?;
    let mut wanted = Multiset::default();
    for line in &lines {
        let event: Value = serde_json::from_str(line)?;
        let late = event["minutes_00"].as_i64().is_some_and(|minutes| minutes > 100);
        let near = event["place_01"].as_str().is_some_and(|place| place < "Pl\u{e4}ce 0050");
        if late && event["customer"] != "c-03" && !near {
            // The share in the digits in which it was published.
            let share = line.split("\"share_02\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
            wanted.add(format!(
                "{{\"number\":{},\"share_02\":{}}}",
                event["number"],
                share.context("no share")?
            ));
        }
    }
    ensure!((100..900).contains(&wanted.len()), "the filter keeps {}", wanted.len());
    fleet.drained(usize::try_from(wanted.len())?).await?;
    fleet.stop().await?;
    wanted.equals(&backend.table(APPLICATION).everything().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_makes_no_sense_is_refused_with_its_place() -> anyhow::Result<()> {
    let environment = [("SLUICEGATE_CFG_FILTER".to_owned(), "/carrier = \"AA\"".to_owned())];
    let run = ["run", "--stream", "flights", "--application", "billing"];
    let refused = sluicegate(&environment, &run).await?;
    ensure!(refused.code == Some(64), "{refused:?}");
    let says = "filter is `/carrier = \"AA\"`; at character 10: '=' has no meaning here: write == to compare";
    ensure!(refused.stderr.contains(says) && refused.stderr.lines().count() == 1, "{refused:?}");
    let environment = [("SLUICEGATE_CFG_REDUCE".to_owned(), "per 1h".to_owned())];
    let refused = sluicegate(&environment, &[&run[..], &["--sink", "stdout"]].concat()).await?;
    ensure!(
        refused.code == Some(64) && refused.stderr.contains("--sink stdout writes events"),
        "{refused:?}"
    );
    Ok(())
}
