//! Parts of an archive that is stored in segments.

use std::ops::Range;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::{Segment, Store, StoreError};

/// The bytes of parts of segments, one after the other.
pub(crate) fn segment_stream(
    store: &Store,
    location: &str,
    ranges: Vec<(&str, Range<u64>)>,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
    let streams: Vec<_> =
        ranges.into_iter().map(|(name, range)| store.read_part(&format!("{location}/{name}"), range)).collect();
    futures::stream::iter(streams).flatten()
}

/// Which bytes of which segments a part of the archive is.
pub(crate) fn segments_of<'a>(segments: &'a [Segment], part: &Range<u64>) -> Option<Vec<(&'a str, Range<u64>)>> {
    let mut ranges = Vec::new();
    let (mut start, mut covered) = (0_u64, part.start);
    for segment in segments {
        // The name comes from the store, and must not lead out of the dump's directory.
        if segment.name.contains('/') {
            return None;
        }
        let end = start.checked_add(segment.size_bytes)?;
        if covered < end && covered < part.end && covered >= start {
            let to = part.end.min(end);
            ranges.push((segment.name.as_str(), covered - start..to - start));
            covered = to;
        }
        start = end;
    }
    (covered == part.end).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_their_segments() {
        let segment = |name: &str, size_bytes| Segment {
            name: name.into(),
            size_bytes,
            sha256: String::new(),
            e_tag: None,
            store_checksum: None,
        };
        let all = [segment("a", 10), segment("b", 5), segment("c", 10)];
        assert_eq!(segments_of(&all, &(2..8)).unwrap(), [("a", 2..8)]);
        assert_eq!(segments_of(&all, &(8..17)).unwrap(), [("a", 8..10), ("b", 0..5), ("c", 0..2)]);
        assert_eq!(segments_of(&all, &(10..15)).unwrap(), [("b", 0..5)]);
        assert_eq!(segments_of(&all, &(20..26)), None);
        assert_eq!(segments_of(&[segment("../x", 10)], &(0..5)), None);
    }
}
