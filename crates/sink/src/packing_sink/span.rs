//! Which events of a group an item holds: a guess, so that they are asked about first. **Pure.**
//!
//! Exact for events that are stored as they are. Of a compressed group the same share of the events as the item is of the
//! items; where that is wrong, the whole group is searched.

use std::ops::Range;

use crate::item::{Header, StoredCodec};

/// From where to where an item reaches in its framed group, as parts of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    from: f64,
    to: f64,
    framed_bytes: f64,
}

impl Span {
    /// The span of an item; none if it holds the whole group.
    pub(super) fn of(header: &Header) -> Option<Self> {
        if header.parts < 2 {
            return None;
        }
        let (part, parts) = (f64::from(header.sort.part), f64::from(header.parts));
        let (stored, framed) = (float(header.stored_bytes), float(header.raw_bytes).max(1.0));
        let last = header.sort.part == header.parts;
        let (from, to) = match header.codec {
            StoredCodec::None if last => (1.0 - stored / framed, 1.0),
            // Parts before the last are of one size, or of one that differs by a byte.
            StoredCodec::None => ((part - 1.0) * stored / framed, part * stored / framed),
            // How long the last part is, is not known.
            StoredCodec::Zstd => ((part - 1.0) / parts, part / (parts - 1.0)),
        };
        Some(Self { from: from.clamp(0.0, 1.0), to: to.clamp(0.0, 1.0), framed_bytes: framed })
    }

    /// Which of these events, given by the bytes of their payloads, it reaches into, and their neighbours.
    pub(super) fn events(self, payloads: &[usize]) -> Range<usize> {
        let payload: f64 = payloads.iter().map(|bytes| float(*bytes as u64)).sum();
        // What stands beside the payloads is in front of them all, or evenly between them: both are covered.
        let beside = (self.framed_bytes - payload).max(0.0);
        let (low, high) = (self.from * payload - (1.0 - self.from) * beside, self.to * payload);
        let (mut first, mut last, mut end) = (payloads.len(), 0, 0.0);
        for (event, bytes) in payloads.iter().enumerate() {
            let begin = end;
            end += float(*bytes as u64);
            if end >= low && begin <= high {
                first = first.min(event);
                last = event;
            }
        }
        first.saturating_sub(1).min(payloads.len())..(last + 2).min(payloads.len())
    }
}

fn float(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "groups are far below 2^53 bytes")]
    let float = bytes as f64;
    float
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicegate_checkpoint::{Codec, PackingParameters};

    use super::*;
    use crate::testing::{batch, event, items_of, with_parameters};

    proptest! {
        /// Stored as they are, the events of an item are among those that are named, by either framing, and few others.
        #[test]
        fn the_events_of_an_item_are_named(
            sizes in proptest::collection::vec(20usize..9_000, 2..60),
            at in any::<prop::sample::Index>(),
            packing_version in 1u32..=2,
        ) {
            let poison = at.index(sizes.len());
            let payload = |(n, bytes): (usize, &usize)| vec![if n == poison { 7u8 } else { 1 }; *bytes];
            let records = sizes.iter().enumerate().map(payload);
            let records = (1..).zip(records).map(|(n, payload)| event(n, "k", payload)).collect();
            let mut batch = with_parameters(batch(records), |parameters| {
                parameters.codec = Codec::None;
                parameters.max_item_bytes = PackingParameters::MIN_ITEM_BYTES;
            });
            batch.cut.packing_version = packing_version;
            let items = items_of(&batch);
            // A run of ten, as lengths and numbers hold a 7 as well.
            for item in items.iter().filter(|item| item.data.windows(10).any(|run| run == [7; 10])) {
                let Some(span) = Span::of(&item.header) else { continue };
                let named = span.events(&sizes);
                prop_assert!(named.contains(&poison), "{named:?} {poison}");
                let bytes: usize = sizes[named.clone()].iter().sum();
                let beside = usize::try_from(item.header.raw_bytes).unwrap() - sizes.iter().sum::<usize>();
                let most = usize::try_from(item.header.stored_bytes).unwrap() + beside + 4 * 9_000;
                prop_assert!(bytes <= most, "{bytes} of {most}");
            }
        }
    }

    #[test]
    fn of_a_compressed_group_it_is_the_same_share() {
        let mut header = items_of(&batch(vec![event(1, "k", "x")])).remove(0).header;
        assert_eq!(Span::of(&header), None);
        (header.codec, header.parts, header.sort.part, header.raw_bytes) = (StoredCodec::Zstd, 10, 5, 1_000);
        assert_eq!(Span::of(&header).unwrap().events(&[10; 100]), 38..57);
    }
}
