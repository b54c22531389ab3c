//! The copies of ranges that a simulated node holds: a small table that keeps what replication asks of a table.
//!
//! It is deliberately plain, so that a violation is one of the protocol's. Effects have the layout of the real journal:
//! a kind, the deadline at a fixed place, then the rest.

use bytes::Bytes;
use dkv_cluster::{Effect, Store};
use dkv_protocol::ids::RangeId;
use std::collections::BTreeMap;

const PUT: u8 = 1;
const EXPIRE: u8 = 2;
const APPEND: u8 = 3;
const DELETE: u8 = 4;
const DEADLINE: std::ops::Range<usize> = 2..10;
/// Values from here on go by handle, as large ones do in a node.
const LARGE_BYTES_MIN: usize = 1_000;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Box<[u8]>,
    /// The value.
    pub value: Bytes,
    /// The position of the effect that made it so.
    pub version: u64,
    /// When it expires, in boot time of this machine; 0: never.
    pub deadline_ms: u64,
}

/// One copy.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// The position of the last effect.
    pub index: u64,
    /// The position of the last removal.
    pub last_removal: u64,
    /// By the hash of the key, which is the order of a walk.
    records: BTreeMap<u64, Record>,
}

/// An effect that was applied here: range, position, and what stands for it.
pub type Applied = (RangeId, u64, u64);

/// All copies of a node.
#[derive(Debug, Default)]
pub struct Copies {
    by_range: BTreeMap<u8, Copy>,
    /// What was applied since somebody last looked.
    pub applied: Vec<Applied>,
    /// Ranges that were cleared since somebody last looked.
    pub cleared: Vec<RangeId>,
    /// A breach of what the table was promised.
    pub breach: Option<String>,
}

/// An effect in its encoding.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// All of it, or all but the value.
    pub head: Vec<u8>,
    /// A long value.
    pub body: Option<Bytes>,
}

impl Encoded {
    /// As the code under test takes it.
    pub fn effect(&self) -> Effect<'_> {
        Effect { head: &self.head, body: self.body.as_ref() }
    }

    /// A key gets a value.
    pub fn put(key: &[u8], value: &Bytes, deadline_ms: u64) -> Self {
        let mut head = vec![PUT, 0];
        head.extend_from_slice(&deadline_ms.to_le_bytes());
        head.extend_from_slice(&(key.len() as u32).to_le_bytes());
        head.extend_from_slice(key);
        if value.len() >= LARGE_BYTES_MIN {
            return Self { head, body: Some(value.clone()) };
        }
        head.extend_from_slice(value);
        Self { head, body: None }
    }

    /// A key gets a deadline, or none.
    pub fn expire(key: &[u8], deadline_ms: u64) -> Self {
        let mut head = vec![EXPIRE, 0];
        head.extend_from_slice(&deadline_ms.to_le_bytes());
        head.extend_from_slice(key);
        Self { head, body: None }
    }

    /// A value grows.
    pub fn append(key: &[u8], offset: u64, tail: &[u8]) -> Self {
        let mut head = vec![APPEND, 0];
        head.extend_from_slice(&offset.to_le_bytes());
        head.extend_from_slice(&(key.len() as u32).to_le_bytes());
        head.extend_from_slice(key);
        head.extend_from_slice(tail);
        Self { head, body: None }
    }

    /// A key goes.
    pub fn delete(key: &[u8]) -> Self {
        Self { head: [&[DELETE, 0], key].concat(), body: None }
    }
}

/// What stands for an effect, whatever its deadline was converted to on its way.
pub fn stamp(effect: Effect<'_>) -> u64 {
    let kind = effect.head[0];
    let dated = kind == PUT || kind == EXPIRE;
    let rest = if dated { &effect.head[DEADLINE.end..] } else { &effect.head[1..] };
    let body = effect.body.map_or(&[][..], |body| &body[..]);
    let whole = [&[kind][..], rest, body].concat();
    rapidhash::v3::rapidhash_v3(&whole)
}

fn place(key: &[u8]) -> u64 {
    // 0 is the start of a walk.
    rapidhash::v3::rapidhash_v3(key) | 1
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The key and what follows it, of an effect that says how long its key is.
fn key_and_rest(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_le_bytes(bytes.get(10..14)?.try_into().ok()?) as usize;
    bytes.get(14..)?.split_at_checked(len)
}

impl Copy {
    /// What a key holds, expired or not.
    pub fn get(&self, key: &[u8]) -> Option<&Record> {
        self.records.get(&place(key))
    }

    /// All records, in the order of a walk.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Removes what has expired, without an effect: what no copy may do.
    pub fn drop_expired(&mut self, now_ms: u64) {
        self.records.retain(|_, record| record.deadline_ms == 0 || record.deadline_ms > now_ms);
    }

    /// Changes a key; says whether the effect belongs to what is there.
    pub fn perform(&mut self, index: u64, effect: Effect<'_>) -> bool {
        let head = effect.head;
        let done = match head[0] {
            PUT => self.put(index, effect),
            EXPIRE => u64_at(head, DEADLINE.start).is_some_and(|deadline_ms| {
                self.records.get_mut(&place(&head[DEADLINE.end..])).is_some_and(|record| {
                    record.deadline_ms = deadline_ms;
                    record.version = index;
                    true
                })
            }),
            APPEND => self.append(index, head),
            DELETE => {
                self.last_removal = index;
                self.records.remove(&place(&head[2..])).is_some()
            }
            _ => false,
        };
        self.index = index;
        done
    }

    fn put(&mut self, version: u64, effect: Effect<'_>) -> bool {
        let (Some(deadline_ms), Some((key, value))) =
            (u64_at(effect.head, DEADLINE.start), key_and_rest(effect.head))
        else {
            return false;
        };
        let value = effect.body.cloned().unwrap_or_else(|| Bytes::copy_from_slice(value));
        let record = Record { key: key.into(), value, version, deadline_ms };
        self.records.insert(place(key), record);
        true
    }

    fn append(&mut self, version: u64, head: &[u8]) -> bool {
        let (Some(offset), Some((key, tail))) = (u64_at(head, 2), key_and_rest(head)) else {
            return false;
        };
        if offset > 0 && !self.records.contains_key(&place(key)) {
            // A walk that goes on will bring the key with this effect in it.
            return true;
        }
        let fresh = Record { key: key.into(), value: Bytes::new(), version, deadline_ms: 0 };
        let record = self.records.entry(place(key)).or_insert(fresh);
        if record.value.len() as u64 != offset {
            return false;
        }
        record.value = [&record.value, tail].concat().into();
        record.version = version;
        true
    }

    fn version_of(&self, effect: Effect<'_>) -> u64 {
        let key = match effect.head[0] {
            PUT | APPEND => key_and_rest(effect.head).map(|(key, _)| key),
            EXPIRE => effect.head.get(DEADLINE.end..),
            _ => effect.head.get(2..),
        };
        key.and_then(|key| self.get(key)).map_or(0, |record| record.version)
    }
}

impl Copies {
    /// The copy of a range; an empty one when there never was any.
    pub fn copy(&mut self, range: RangeId) -> &mut Copy {
        self.by_range.entry(range.0).or_default()
    }

    /// The copy of a range, if there ever was one.
    pub fn known(&self, range: RangeId) -> Option<&Copy> {
        self.by_range.get(&range.0)
    }
}

impl Store for Copies {
    fn index(&self, range: RangeId) -> u64 {
        self.by_range.get(&range.0).map_or(0, |copy| copy.index)
    }

    fn set_index(&mut self, range: RangeId, index: u64) {
        let copy = self.copy(range);
        copy.index = index;
        copy.last_removal = index;
    }

    fn journal(&mut self, _range: RangeId, _on: bool) {}

    fn apply(
        &mut self,
        _now_ms: u64,
        range: RangeId,
        index: u64,
        effect: Effect<'_>,
        filling: bool,
    ) -> bool {
        self.applied.push((range, index, stamp(effect)));
        let copy = self.copy(range);
        if index <= copy.version_of(effect) {
            // A record that came by a walk is newer.
            copy.index = copy.index.max(index);
            if effect.head[0] == DELETE {
                copy.last_removal = copy.index;
            }
            if !filling {
                let breach = format!("range {}: what {index} changes is newer here", range.0);
                self.breach.get_or_insert(breach);
            }
            return true;
        }
        let behind = index <= copy.index;
        let before = copy.index;
        let done = copy.perform(index, effect);
        if behind {
            let breach = format!("range {}: {index} applied at {before}", range.0);
            self.breach.get_or_insert(breach);
        } else if !done && effect.head[0] == APPEND {
            let breach = format!("range {}: the append of {index} does not fit", range.0);
            self.breach.get_or_insert(breach);
        }
        true
    }

    fn clear(&mut self, range: RangeId) {
        self.copy(range).records.clear();
        self.cleared.push(range);
    }

    fn walk(
        &mut self,
        range: RangeId,
        cursor: u64,
        bytes_max: usize,
        sink: &mut dyn FnMut(u64, Effect<'_>),
    ) -> Option<u64> {
        let mut bytes = 0;
        for (place, record) in self.copy(range).records.range(cursor..) {
            if bytes >= bytes_max.max(1) {
                return Some(*place);
            }
            let put = Encoded::put(&record.key, &record.value, record.deadline_ms);
            bytes += put.head.len() + put.body.as_ref().map_or(0, Bytes::len);
            sink(record.version, put.effect());
        }
        None
    }

    fn load(&mut self, _now_ms: u64, range: RangeId, version: u64, record: Effect<'_>) -> bool {
        let copy = self.copy(range);
        if copy.version_of(record) <= version {
            copy.put(version, record);
        }
        true
    }

    fn rebase(&self, effect: &mut [u8], delta_ms: i64) {
        if !matches!(effect.first(), Some(&(PUT | EXPIRE))) {
            return;
        }
        let deadline_ms = u64_at(effect, DEADLINE.start).unwrap_or(0);
        if deadline_ms > 0
            && let Some(bytes) = effect.get_mut(DEADLINE)
        {
            let local_ms = deadline_ms.saturating_add_signed(delta_ms).max(1);
            bytes.copy_from_slice(&local_ms.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeId = RangeId(7);

    fn put(key: &str, value: &str) -> Encoded {
        Encoded::put(key.as_bytes(), &Bytes::copy_from_slice(value.as_bytes()), 0)
    }

    fn content(copies: &mut Copies) -> Vec<(String, String, u64)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let records = copies.copy(RANGE).records();
        let mut all: Vec<_> = records.map(|r| (text(&r.key), text(&r.value), r.version)).collect();
        all.sort();
        all
    }

    #[test]
    fn effects_do_what_they_say() {
        let mut copies = Copies::default();
        let effects = [
            put("a", "1"),
            put("b", "x"),
            Encoded::append(b"b", 1, b"yz"),
            Encoded::append(b"c", 0, b"new"),
            Encoded::delete(b"a"),
            Encoded::expire(b"c", 50),
        ];
        for (index, effect) in effects.iter().enumerate() {
            assert!(copies.apply(0, RANGE, index as u64 + 1, effect.effect(), true));
        }
        let expected = [("b".into(), "xyz".into(), 3), ("c".into(), "new".into(), 6)];
        assert_eq!(content(&mut copies), expected);
        assert_eq!(copies.copy(RANGE).get(b"c").unwrap().deadline_ms, 50);
        assert_eq!((copies.index(RANGE), copies.copy(RANGE).last_removal), (6, 5));
        assert_eq!((copies.applied.len(), &copies.breach), (6, &None));
        assert!(copies.apply(0, RANGE, 7, Encoded::append(b"b", 9, b"!").effect(), true));
        assert!(copies.breach.is_some(), "an append that does not fit passed");
    }

    #[test]
    fn a_walk_brings_every_record_and_a_load_keeps_the_newer_one() {
        let (mut from, mut to) = (Copies::default(), Copies::default());
        for index in 1..=50 {
            let effect = put(&format!("k{index}"), &"v".repeat(index * 40));
            assert!(from.apply(0, RANGE, index as u64, effect.effect(), true));
        }
        assert!(to.apply(0, RANGE, 99, put("k7", "newer").effect(), true));
        let mut cursor = Some(0);
        let mut slices = 0;
        while let Some(at) = cursor {
            slices += 1;
            let mut records = Vec::new();
            cursor = from.walk(RANGE, at, 500, &mut |version, record| {
                let encoded = Encoded { head: record.head.to_vec(), body: record.body.cloned() };
                records.push((version, encoded));
            });
            for (version, record) in records {
                assert!(to.load(0, RANGE, version, record.effect()));
            }
        }
        assert!(slices > 10, "{slices}");
        let mut expected = content(&mut from);
        expected
            .iter_mut()
            .filter(|r| r.0 == "k7")
            .for_each(|r| *r = (r.0.clone(), "newer".into(), 99));
        assert_eq!(content(&mut to), expected);
    }

    #[test]
    fn a_deadline_is_converted_and_does_not_count_in_the_stamp() {
        let copies = Copies::default();
        let dated = |deadline_ms| Encoded::put(b"k", &Bytes::from_static(b"v"), deadline_ms);
        let mut moved = dated(100);
        copies.rebase(&mut moved.head, 23);
        assert_eq!(moved.head, dated(123).head);
        assert_eq!(stamp(moved.effect()), stamp(dated(100).effect()));
        assert_ne!(stamp(moved.effect()), stamp(put("k", "w").effect()));
        let mut never = dated(0);
        copies.rebase(&mut never.head, 23);
        assert_eq!(never.head, dated(0).head);
    }
}
