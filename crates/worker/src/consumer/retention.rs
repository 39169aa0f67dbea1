//! Whether retention has taken records before they could be read (pure).
//!
//! Kinesis gives no error for a position that retention has overtaken: reading goes on at the oldest record that is
//! left. On a quiet shard that is no loss. So loss is judged by the time up to which the shard was read:
//!
//! ```text
//!   read up to here          oldest that is kept for sure          now
//!   ------|=================================|------------------------|
//!         records of this stretch may be gone
//! ```
//! Two things tell that nothing is: the record at which reading resumes is still there, or a record found earlier
//! was so old that retention cannot have come as far since.

use std::time::Duration;

use sluicegate_checkpoint::{ArrivalMillis, SequenceNumber};
use thiserror::Error;

use crate::stream::RecordPage;

/// Records may have been lost: retention has passed the place up to which the shard was read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "records lost: the shard was read up to {} (milliseconds since 1970), and at {} the stream keeps only what \
     arrived at {} or later. Set accept_gap to go on from there, counted, or move the checkpoint",
    read_to.0,
    now.0,
    kept_from.0
)]
pub struct Overtaken {
    /// What arrived before this time was read.
    pub read_to: ArrivalMillis,
    /// What arrived at this time or later is still kept.
    pub kept_from: ArrivalMillis,
    /// The stream's time.
    pub now: ArrivalMillis,
}

/// What the judgement rests on.
#[derive(Debug)]
pub struct RetentionWatch {
    retention_ms: i64,
    /// What arrived before this was read; not known for a row that KCL made.
    read_to: Option<ArrivalMillis>,
    /// The record at which reading resumes, until the first record is found.
    resumes_at: Option<SequenceNumber>,
    /// A record that was there, by its arrival, and when it was.
    oldest_seen: Option<(ArrivalMillis, ArrivalMillis)>,
    /// The stream's time as of the last page.
    now: Option<ArrivalMillis>,
}

impl RetentionWatch {
    /// Begins where the row says that the shard was read to. Without a retention nothing is judged.
    pub fn new(
        retention: Option<Duration>,
        read_to: Option<ArrivalMillis>,
        resumes_at: Option<SequenceNumber>,
    ) -> Self {
        let retention_ms =
            retention.and_then(|length| i64::try_from(length.as_millis()).ok()).unwrap_or(i64::MAX);
        Self { retention_ms, read_to, resumes_at, oldest_seen: None, now: None }
    }

    /// Takes in a page, and says whether records between it and what was read before may be gone.
    pub fn see(&mut self, page: &RecordPage) -> Option<Overtaken> {
        self.now = Some(page.as_of);
        let (first, at_tip) = (page.records.first(), page.behind_latest.is_zero() || page.end.is_some());
        if first.is_none() && !at_tip {
            return None;
        }
        let resumed = self.resumes_at.take();
        let is_there = first.is_some_and(|first| resumed.as_ref() == Some(first.sequence_number()));
        let overtaken = self.overtaken(page.as_of).filter(|_| !is_there);
        if let Some(first) = first {
            self.oldest_seen = Some((first.arrival(), page.as_of));
        }
        // Not the later of this and what the row said: a row is born with a time, and holds records from before it.
        self.read_to = match page.records.last() {
            _ if page.behind_latest.is_zero() && page.end.is_none() => Some(page.as_of),
            Some(last) => Some(last.arrival()),
            None => self.read_to.max(overtaken.as_ref().map(|overtaken| overtaken.kept_from)),
        };
        overtaken
    }

    /// A time up to which retention had taken everything when the last page was read, if a record that was looked for
    /// was gone.
    pub fn passed(&self) -> Option<ArrivalMillis> {
        (self.retention_ms < i64::MAX).then_some(())?;
        Some(ArrivalMillis(self.kept_from(self.now?).0 - 1))
    }

    fn kept_from(&self, now: ArrivalMillis) -> ArrivalMillis {
        ArrivalMillis(now.0.saturating_sub(self.retention_ms))
    }

    fn overtaken(&self, now: ArrivalMillis) -> Option<Overtaken> {
        let read_to = self.read_to?;
        let kept_from = self.kept_from(now);
        // Retention moves on with time: what was there then bounds how far it can have come.
        let come_to = self.oldest_seen.map(|(arrival, then)| arrival.0.saturating_add(now.0 - then.0));
        let safe = read_to >= kept_from || come_to.is_some_and(|come_to| read_to.0 >= come_to);
        (!safe).then_some(Overtaken { read_to, kept_from, now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use sluicegate_checkpoint::Record;

    const DAY: i64 = 86_400_000;

    fn seq(n: i64) -> SequenceNumber {
        SequenceNumber::parse(n.to_string()).unwrap()
    }

    /// Records are numbered by their arrival.
    fn page(arrivals: &[i64], now: i64, at_tip: bool) -> RecordPage {
        let record = |arrival: &i64| Record::new(seq(*arrival), ArrivalMillis(*arrival), "k", Bytes::new());
        RecordPage {
            records: arrivals.iter().map(record).collect(),
            behind_latest: Duration::from_millis(u64::from(!at_tip)),
            as_of: ArrivalMillis(now),
            ..RecordPage::default()
        }
    }

    fn watch(read_to: Option<i64>, resumes_at: Option<i64>) -> RetentionWatch {
        RetentionWatch::new(
            Some(Duration::from_millis(DAY.unsigned_abs())),
            read_to.map(ArrivalMillis),
            resumes_at.map(seq),
        )
    }

    #[test]
    fn a_position_older_than_retention_is_overtaken_also_where_nothing_is_found() {
        let now = 10 * DAY;
        let expected = Overtaken {
            read_to: ArrivalMillis(5),
            kept_from: ArrivalMillis(9 * DAY),
            now: ArrivalMillis(now),
        };
        assert_eq!(watch(Some(5), None).see(&page(&[], now, true)), Some(expected.clone()));
        assert_eq!(watch(Some(5), Some(5)).see(&page(&[9 * DAY], now, false)), Some(expected));
        assert_eq!(watch(None, None).see(&page(&[], now, true)), None, "a KCL row says no time");
        assert_eq!(RetentionWatch::new(None, Some(ArrivalMillis(5)), None).see(&page(&[], now, true)), None);
    }

    #[test]
    fn a_quiet_shard_is_no_loss_while_its_time_is_kept_fresh() {
        let mut quiet = watch(Some(0), Some(0));
        for hour in 0..100 {
            assert_eq!(quiet.see(&page(&[], hour * DAY / 4, true)), None);
        }
        let mut asleep = watch(Some(0), Some(0));
        asleep.see(&page(&[], DAY / 2, true));
        assert!(asleep.see(&page(&[], 2 * DAY, true)).is_some(), "nobody looked for longer than retention");
    }

    #[test]
    fn finding_the_record_where_reading_resumes_proves_that_nothing_behind_it_is_gone() {
        assert_eq!(watch(Some(5), Some(5)).see(&page(&[5, 6], 10 * DAY, false)), None);
        let mut waits = watch(Some(5), Some(5));
        assert_eq!(waits.see(&page(&[], 10 * DAY, false)), None, "an empty page on the way tells nothing");
        assert_eq!(waits.see(&page(&[5], 10 * DAY, false)), None);
    }

    #[test]
    fn a_reader_at_the_edge_of_retention_is_overtaken_only_if_it_is_slower_than_time() {
        let (now, hour) = (10 * DAY, DAY / 24);
        let old = now - DAY - hour;
        let mut fast = watch(Some(old), Some(old));
        assert_eq!(fast.see(&page(&[old, old + 2_000], now, false)), None);
        assert_eq!(fast.see(&page(&[old + 2_001], now + 1_000, false)), None, "it read two seconds in one");
        let mut slow = watch(Some(old), Some(old));
        assert_eq!(slow.see(&page(&[old, old + 2_000], now, false)), None);
        assert!(
            slow.see(&page(&[old + 2_001], now + 3_000, false)).is_some(),
            "it read two seconds in three"
        );
    }

    #[test]
    fn a_gap_that_was_accepted_is_reported_once() {
        let now = 10 * DAY;
        let mut watch = watch(Some(5), None);
        assert!(watch.see(&page(&[9 * DAY + 10], now, false)).is_some());
        assert_eq!(watch.see(&page(&[9 * DAY + 5_000], now, false)), None);
    }

    proptest! {
        /// Against a stream that keeps a record for exactly 100 to 130 ms: whatever is published and whenever it is
        /// read, every record that is passed over lies in a stretch that was reported.
        #[test]
        fn no_record_is_passed_over_unnoticed(
            gaps in proptest::collection::vec(0i64..40, 1..40),
            reads in proptest::collection::vec((1i64..150, 1usize..6), 1..30),
            slack in 0i64..30,
        ) {
            let mut arrivals = vec![1_000];
            for gap in gaps { arrivals.push(arrivals.last().unwrap() + gap + 1); }
            let retention = Some(Duration::from_millis(100));
            let mut watch = RetentionWatch::new(retention, Some(ArrivalMillis(1_000)), None);
            let (mut now, mut next, mut reported) = (1_000, 0, 0);
            for (pause, limit) in reads {
                now += pause;
                let kept = arrivals.partition_point(|arrival| *arrival < now - 100 - slack);
                let from = next.max(kept);
                let there = arrivals.partition_point(|arrival| *arrival < now);
                let to = (from + limit).min(there).max(from);
                if let Some(overtaken) = watch.see(&page(&arrivals[from..to], now, to >= there)) {
                    reported = overtaken.kept_from.0;
                }
                let passed_over = arrivals[next..from].last();
                prop_assert!(passed_over.is_none_or(|last| *last < reported), "{next} to {from} at {now}");
                next = to;
            }
        }
    }
}
