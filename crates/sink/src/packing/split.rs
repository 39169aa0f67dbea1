//! Where a compressed group is cut into parts. **Pure.**

use std::ops::Range;

use super::PackingVersion;

/// The parts of `length` bytes with room for `room` each: at least one, also of nothing.
pub(super) fn ranges(version: PackingVersion, length: usize, room: usize) -> Vec<Range<usize>> {
    let parts = length.div_ceil(room).max(1);
    match version {
        PackingVersion::V1 => (0..parts).map(|part| part * room..length.min((part + 1) * room)).collect(),
        // The first `length % parts` parts are one byte longer than the rest.
        PackingVersion::V2 => {
            let start = |part: usize| part * (length / parts) + part.min(length % parts);
            (0..parts).map(|part| start(part)..start(part + 1)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn full_parts_and_equal_parts() {
        assert_eq!(ranges(PackingVersion::V1, 10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(ranges(PackingVersion::V2, 10, 4), [0..4, 4..7, 7..10]);
        for version in [PackingVersion::V1, PackingVersion::V2] {
            assert_eq!(ranges(version, 0, 4).as_slice(), std::slice::from_ref(&(0..0)));
            assert_eq!(ranges(version, 8, 4), [0..4, 4..8]);
        }
    }

    proptest! {
        #[test]
        fn parts_tile_the_bytes_and_fit(length in 0usize..5_000, room in 1usize..700) {
            for version in [PackingVersion::V1, PackingVersion::V2] {
                let ranges = ranges(version, length, room);
                prop_assert_eq!(ranges[0].start, 0);
                prop_assert_eq!(ranges[ranges.len() - 1].end, length);
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
                prop_assert!(ranges.iter().all(|range| range.len() <= room));
                prop_assert_eq!(ranges.len(), length.div_ceil(room).max(1));
            }
        }
    }
}
