//! Records -> PutRecords requests within the service's limits. Pure.
//!
//! Laws (property tests below): no request breaks a limit; requests in order hold the records in order; nothing is
//! lost or repeated.

use crate::entry::Entry;

/// Most records of a request (Kinesis API reference, `PutRecords`).
pub const MAX_RECORDS: usize = 500;

/// Most bytes of a request, data and partition keys: 5 MiB. Today's limit is 10 MiB (Kinesis API reference,
/// `PutRecords`); the older one is kept because it halves the memory bound and every implementation accepts it.
pub const MAX_BYTES: usize = 5 * 1024 * 1024;

/// A larger record goes alone: 1 MiB, every stream's maximum record size until it is raised (Kinesis quotas
/// page). Its failure then delays no other, and a request above [`MAX_BYTES`] holds one record only.
pub const ALONE_ABOVE_BYTES: usize = 1024 * 1024;

/// The records of one PutRecords, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// 1 to [`MAX_RECORDS`] records.
    pub entries: Vec<Entry>,
}

/// Collects records until a request is full.
#[derive(Debug)]
pub struct RequestBuilder {
    max_records: usize,
    entries: Vec<Entry>,
    bytes: usize,
}

impl RequestBuilder {
    /// A builder of requests with at most `max_records` records; what lies outside 1 to [`MAX_RECORDS`] becomes
    /// the nearer end.
    pub fn new(max_records: usize) -> Self {
        Self { max_records: max_records.clamp(1, MAX_RECORDS), entries: Vec::new(), bytes: 0 }
    }

    /// Adds a record. Returns the request collected so far if this record has no room in it.
    pub fn add(&mut self, entry: Entry) -> Option<Request> {
        let complete = if self.has_room_for(&entry) { None } else { self.take() };
        self.bytes += entry.bytes();
        self.entries.push(entry);
        complete
    }

    /// Takes what has been collected, if anything.
    pub fn take(&mut self) -> Option<Request> {
        if self.entries.is_empty() {
            return None;
        }
        self.bytes = 0;
        // The next request is likely as large as this one.
        let next = Vec::with_capacity(self.entries.len());
        Some(Request { entries: std::mem::replace(&mut self.entries, next) })
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn has_room_for(&self, entry: &Entry) -> bool {
        let holds_a_large_one = self.bytes > ALONE_ABOVE_BYTES && self.entries.len() == 1;
        self.entries.len() < self.max_records
            && self.bytes + entry.bytes() <= MAX_BYTES
            && entry.bytes() <= ALONE_ABOVE_BYTES
            && !holds_a_large_one
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn entry(bytes: usize) -> Entry {
        // Static memory: a property over megabytes should not copy them.
        static ZEROS: [u8; 10 * 1024 * 1024] = [0; 10 * 1024 * 1024];
        Entry { key: "k".to_owned(), data: Bytes::from_static(&ZEROS[..bytes - 1]) }
    }

    fn sizes(request: &Request) -> Vec<usize> {
        request.entries.iter().map(Entry::bytes).collect()
    }

    fn requests_of(entry_bytes: &[usize], max_records: usize) -> Vec<Vec<usize>> {
        let mut builder = RequestBuilder::new(max_records);
        let mut requests: Vec<Request> =
            entry_bytes.iter().filter_map(|&bytes| builder.add(entry(bytes))).collect();
        requests.extend(builder.take());
        assert!(builder.is_empty() && builder.take().is_none());
        requests.iter().map(sizes).collect()
    }

    #[test]
    fn a_request_holds_500_small_records() {
        let counts: Vec<usize> = requests_of(&[300; 1_001], MAX_RECORDS).iter().map(Vec::len).collect();
        assert_eq!(counts, [500, 500, 1]);
    }

    #[test]
    fn a_request_holds_exactly_5_mib() {
        let mib = 1024 * 1024;
        assert_eq!(requests_of(&[mib; 5], MAX_RECORDS), [vec![mib; 5]]);
        assert_eq!(requests_of(&[mib, mib, mib, mib, mib, 2], MAX_RECORDS), [vec![mib; 5], vec![2]]);
    }

    #[test]
    fn a_record_above_1_mib_goes_alone() {
        let large = ALONE_ABOVE_BYTES + 1;
        assert_eq!(requests_of(&[2, large, 3, 4], MAX_RECORDS), [vec![2], vec![large], vec![3, 4]]);
        let largest = 10 * 1024 * 1024;
        assert_eq!(requests_of(&[largest, largest], MAX_RECORDS), [[largest], [largest]]);
    }

    proptest! {
        #[test]
        fn limits_hold_order_is_kept_and_nothing_is_lost(
            entry_bytes in prop::collection::vec(prop_oneof![4 => 2_usize..2_000, 1 => 2_usize..10_485_760], 0..900),
            max_records in 0_usize..600,
        ) {
            let requests = requests_of(&entry_bytes, max_records);
            for request in &requests {
                let bytes: usize = request.iter().sum();
                let most = max_records.clamp(1, MAX_RECORDS);
                prop_assert!((1..=most).contains(&request.len()));
                prop_assert!(request.len() == 1 || bytes <= MAX_BYTES);
                prop_assert!(request.len() == 1 || request.iter().all(|bytes| *bytes <= ALONE_ABOVE_BYTES));
            }
            prop_assert_eq!(requests.concat(), entry_bytes);
        }
    }
}
