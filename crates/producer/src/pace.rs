//! How fast requests may leave when somebody asked for a rate. Pure: the time comes in as an argument.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::requests::MAX_RECORDS;

/// Requests a second at a limited rate: enough that a demo looks smooth.
const REQUESTS_PER_SECOND: u32 = 10;

/// A limit in events a second, or none. A request is let go when the time that the ones before it stand for has
/// passed; time unused is not saved up, so there are no bursts after a pause.
#[derive(Debug)]
pub struct Pace {
    events_per_second: Option<NonZeroU32>,
    free_at: Option<Instant>,
}

impl Pace {
    /// A pace of this many events a second; without a number, no limit.
    pub fn new(events_per_second: Option<NonZeroU32>) -> Self {
        Self { events_per_second, free_at: None }
    }

    /// How many records a request should have: under a limit fewer, so that events flow instead of jerking.
    pub fn records_per_request(&self) -> usize {
        let Some(rate) = self.events_per_second else { return MAX_RECORDS };
        let share = rate.get().div_ceil(REQUESTS_PER_SECOND);
        usize::try_from(share).map_or(MAX_RECORDS, |share| share.min(MAX_RECORDS))
    }

    /// When the next request may leave, if that is not now.
    pub fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.free_at.filter(|free_at| *free_at > now)
    }

    /// Notes that a request of this many records leaves.
    pub fn charge(&mut self, records: usize, now: Instant) {
        let (Some(rate), Ok(records)) = (self.events_per_second, u32::try_from(records)) else { return };
        let begins = self.free_at.map_or(now, |free_at| free_at.max(now));
        self.free_at = Some(begins + Duration::from_secs(1) * records / rate.get());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_a_rate_nothing_waits() {
        let (mut pace, now) = (Pace::new(None), Instant::now());
        pace.charge(500, now);
        assert_eq!((pace.wait_until(now), pace.records_per_request()), (None, MAX_RECORDS));
    }

    #[test]
    fn a_pause_saves_nothing_up() {
        let (mut pace, start) = (Pace::new(NonZeroU32::new(100)), Instant::now());
        pace.charge(10, start);
        assert_eq!(pace.wait_until(start), Some(start + Duration::from_millis(100)));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.wait_until(later), None);
        pace.charge(10, later);
        assert_eq!(pace.wait_until(later), Some(later + Duration::from_millis(100)));
    }

    #[test]
    fn requests_shrink_with_the_rate() {
        let records = |rate| Pace::new(NonZeroU32::new(rate)).records_per_request();
        assert_eq!((records(1), records(1_000), records(1_000_000)), (1, 100, 500));
    }

    proptest! {
        #[test]
        fn over_any_time_the_rate_is_kept(rate in 1_u32..100_000, requests in prop::collection::vec(1_usize..500, 1..50)) {
            let start = Instant::now();
            let (mut pace, mut now, mut sent) = (Pace::new(NonZeroU32::new(rate)), start, 0);
            for records in requests {
                now = pace.wait_until(now).unwrap_or(now);
                prop_assert!(f64::from(sent) <= f64::from(rate) * (now - start).as_secs_f64() + 0.01);
                pace.charge(records, now);
                sent += u32::try_from(records).unwrap();
            }
        }
    }
}
