//! Tests of what copies say to each other: golden bytes, there and back, and bytes of strangers.

use super::*;
use alloc::vec;
use proptest::prelude::*;

const HEAD: BatchHead = BatchHead { boot: BootId(0x0102_0304), now_ms: 9 };
const RANGE: RangeId = RangeId(5);
const EPOCH: Epoch = Epoch(3);

fn place() -> Place {
    Place {
        range: RANGE,
        epoch: EPOCH,
        entry_epoch: Epoch(2),
        prev_index: 7,
        prev_epoch: Epoch(1),
        commit: 6,
    }
}

fn slice() -> SliceHead {
    SliceHead { range: RANGE, epoch: EPOCH, session: 4, number: 2, last: true, end_index: 8 }
}

const PART: Part<'static> = Part { head_bytes: 2, total_bytes: 9, offset: 3, bytes: b"pq" };

/// One of each kind, with the bytes that it must be.
fn each() -> Vec<(Message<'static>, Vec<u8>)> {
    let long = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
    let head = |kind: u8| [&[kind, 5][..], &long(3)].concat();
    let place_bytes = |kind| {
        [head(kind), long(2).to_vec(), long(7).to_vec(), long(1).to_vec(), long(6).to_vec()]
            .concat()
    };
    let slice_bytes = |kind| [&head(kind)[..], &long(4), &[2, 0, 0, 0, 1], &long(8)].concat();
    let part_bytes = [&[2, 0, 0, 0][..], &long(9), &long(3), &[2, 0, 0, 0], b"pq"].concat();
    let entries = Entries::new(2, &[1, 0, 0, 0, b'a', 2, 0, 0, 0, b'b', b'c']);
    let records = Records::new(&[9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'r']);
    vec![
        (
            Message::Prepare { place: place(), entries: entries.clone() },
            [&place_bytes(1)[..], &[2, 0, 0, 0, 11, 0, 0, 0], entries.bytes()].concat(),
        ),
        (
            Message::PreparePart { place: place(), part: PART },
            [place_bytes(2), part_bytes.clone()].concat(),
        ),
        (
            Message::Ack {
                range: RANGE,
                epoch: EPOCH,
                generation: 1,
                matched: 8,
                applied: 7,
                part_bytes: 2,
                whole: true,
            },
            [&head(3)[..], &[1, 0, 0, 0], &long(8), &long(7), &long(2), &[1]].concat(),
        ),
        (
            Message::Nack { range: RANGE, epoch: EPOCH, generation: 1, matched: 8 },
            [&head(4)[..], &[1, 0, 0, 0], &long(8)].concat(),
        ),
        (Message::Fence { range: RANGE, epoch: EPOCH }, head(5)),
        (
            Message::Beacon {
                round: 1,
                sent_ns: 2,
                ranges: BeaconRanges(&[5, 3, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]),
            },
            [&[6][..], &long(1), &long(2), &[1, 0, 5], &long(3), &long(6)].concat(),
        ),
        (
            Message::Echo {
                round: 1,
                sent_ns: 2,
                ranges: EchoRanges(&[5, 3, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0]),
            },
            [&[7][..], &long(1), &long(2), &[1, 0, 5], &long(3), &[6, 0, 0, 0]].concat(),
        ),
        (Message::Probe { range: RANGE, epoch: EPOCH }, head(8)),
        (
            Message::Here {
                range: RANGE,
                epoch: EPOCH,
                generation: 1,
                formed: Epoch(1),
                state: CopyState::Whole,
                commit: 8,
            },
            [&head(9)[..], &[1, 0, 0, 0], &long(1), &[2], &long(8)].concat(),
        ),
        (
            Message::Start {
                range: RANGE,
                epoch: EPOCH,
                session: 4,
                base_index: 7,
                base_epoch: Epoch(2),
                formed: Epoch(1),
            },
            [&head(10)[..], &long(4), &long(7), &long(2), &long(1)].concat(),
        ),
        (
            Message::Slice { slice: slice(), records: records.clone() },
            [&slice_bytes(11)[..], &[13, 0, 0, 0], records.bytes].concat(),
        ),
        (
            Message::SlicePart { slice: slice(), version: 9, part: PART },
            [slice_bytes(12), long(9).to_vec(), part_bytes].concat(),
        ),
        (
            Message::Loaded { range: RANGE, epoch: EPOCH, generation: 1, session: 4, next: 2 },
            [&head(13)[..], &[1, 0, 0, 0], &long(4), &[2, 0, 0, 0]].concat(),
        ),
    ]
}

#[test]
fn each_message_is_these_bytes_and_comes_back_from_them() {
    let mut batch = Vec::new();
    begin_batch(&mut batch, HEAD);
    assert_eq!(batch, [4, 3, 2, 1, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    for (message, bytes) in each() {
        let mut written = Vec::new();
        message.write(&mut written);
        assert_eq!(written, bytes, "{message:?}");
        batch.extend_from_slice(&written);
    }
    let (head, messages) = read_batch(&batch).unwrap();
    assert_eq!(head, HEAD);
    let read: Vec<_> = messages.map(Result::unwrap).collect();
    assert_eq!(read, each().into_iter().map(|(message, _)| message).collect::<Vec<_>>());
}

#[test]
fn entries_records_and_ranges_are_walked_in_order() {
    let mut entries = Entries::new(2, &[1, 0, 0, 0, b'a', 0, 0, 0, 0]);
    assert_eq!(
        (entries.next(), entries.next(), entries.next()),
        (Some(&b"a"[..]), Some(&b""[..]), None)
    );
    let mut bytes = Vec::new();
    write_record(&mut bytes, 4, b"xy");
    write_record(&mut bytes, 5, b"");
    assert_eq!(Records::new(&bytes).collect::<Vec<_>>(), [(4, &b"xy"[..]), (5, &b""[..])]);
    let of = BeaconOf { range: RANGE, epoch: EPOCH, commit: 1 };
    let mut batch = Vec::new();
    begin_batch(&mut batch, HEAD);
    write_beacon(&mut batch, 1, 2, [of, of]);
    write_echo(&mut batch, 1, 2, []);
    let read: Vec<_> = read_batch(&batch).unwrap().1.map(Result::unwrap).collect();
    let [Message::Beacon { ranges, .. }] = &read[..] else { panic!("{read:?}") };
    assert_eq!(ranges.clone().collect::<Vec<_>>(), [of, of]);
}

#[test]
fn what_is_cut_short_or_unknown_is_refused_and_ends_the_batch() {
    assert_eq!(read_batch(&[0; 15]).unwrap_err(), PeerError::Truncated);
    for (message, bytes) in each() {
        for cut in 1..bytes.len() {
            let mut messages = Messages { rest: &bytes[..cut] };
            assert_eq!(
                messages.next(),
                Some(Err(PeerError::Truncated)),
                "{message:?} cut at {cut}"
            );
            assert_eq!(messages.next(), None);
        }
    }
    for kind in [0, 14, 255] {
        assert_eq!(Messages { rest: &[kind] }.next(), Some(Err(PeerError::Unknown(kind))));
    }
    let refused = |message: &Message<'_>, expect: PeerError| {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        assert_eq!(Messages { rest: &bytes }.next(), Some(Err(expect)), "{message:?}");
    };
    for (count, bytes) in
        [(1, &[2, 0, 0, 0, b'a'][..]), (2, &[0; 4]), (1, &[0; 5]), (u32::MAX, &[])]
    {
        let entries = Entries { count, bytes };
        refused(&Message::Prepare { place: place(), entries }, PeerError::Entries);
    }
    refused(
        &Message::Slice { slice: slice(), records: Records { bytes: &[0; 11] } },
        PeerError::Entries,
    );
    for part in [
        Part { head_bytes: 10, ..PART },
        Part { offset: 8, ..PART },
        Part { offset: u64::MAX, ..PART },
        Part { total_bytes: LARGE_BYTES_MAX + 1, ..PART },
        Part { head_bytes: LARGE_HEAD_BYTES_MAX + 1, total_bytes: LARGE_BYTES_MAX, ..PART },
        Part { bytes: &[], ..PART },
    ] {
        refused(&Message::PreparePart { place: place(), part }, PeerError::Part);
    }
}

#[test]
fn a_position_that_no_log_can_reach_is_refused() {
    let at = |prev_index| Place { prev_index, ..place() };
    let one = || Entries::new(1, &[0, 0, 0, 0]);
    let (range, epoch, generation) = (RANGE, EPOCH, 1);
    let (base_epoch, formed, state) = (Epoch(2), Epoch(1), CopyState::Whole);
    for (fits, index) in [(true, INDEX_MAX - 1), (false, INDEX_MAX), (false, u64::MAX)] {
        let beyond = index.saturating_add(1);
        for message in [
            Message::Prepare { place: at(index), entries: one() },
            Message::PreparePart { place: at(index), part: PART },
            Message::Ack {
                range,
                epoch,
                generation,
                matched: beyond,
                applied: 0,
                part_bytes: 0,
                whole: true,
            },
            Message::Nack { range, epoch, generation, matched: beyond },
            Message::Here { range, epoch, generation, formed, state, commit: beyond },
            Message::Start { range, epoch, session: 4, base_index: beyond, base_epoch, formed },
            Message::SlicePart { slice: slice(), version: beyond, part: PART },
        ] {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            let read = Messages { rest: &bytes }.next();
            let expect = if fits { Ok(message) } else { Err(PeerError::Index) };
            assert_eq!(read, Some(expect));
        }
    }
}

proptest! {
    #[test]
    fn bytes_of_strangers_never_panic_and_are_read_to_their_end(
        kind in 0u8..16, bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let body = [&[0; HEAD_BYTES][..], &[kind], &bytes].concat();
        for message in read_batch(&body).unwrap().1.flatten() {
            match message {
                Message::Prepare { entries, .. } => {
                    prop_assert_eq!(entries.entry_count() as usize, entries.count());
                }
                Message::Slice { records, .. } => {
                    let sum: usize = records.map(|(_, record)| record.len() + RECORD_HEAD_BYTES).sum();
                    prop_assert!(sum <= bytes.len());
                }
                Message::Beacon { ranges, .. } => prop_assert!(ranges.count() <= 256 * 256),
                _ => {}
            }
        }
    }
}
