//! The bytes of consensus messages and log entries: fixed fields, little endian.
//!
//! The library's own format is not used for bytes that came from elsewhere: its decoder recurses without a bound on
//! crafted input. Changes of votes, which it keeps in that format inside an entry, are written field by field here too.

use alloc::vec::Vec;
use protobuf::Message as _;
use raft::prelude::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType, Message, MessageType, Snapshot,
};

/// Bytes that are no message, entry or record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The version of messages; others are refused.
const VERSION: u8 = 1;

/// Message types that members send each other, at the number that stands for them.
const TYPES: &[MessageType] = &[
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

const PARTS: &[ConfChangeType] =
    &[ConfChangeType::AddNode, ConfChangeType::RemoveNode, ConfChangeType::AddLearnerNode];

const TRANSITIONS: &[ConfChangeTransition] =
    &[ConfChangeTransition::Auto, ConfChangeTransition::Implicit, ConfChangeTransition::Explicit];

#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    fn numbers(&mut self, numbers: &[u64]) {
        // In order, because the library keeps them in a hash set and copies must be equal.
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        self.u32(numbers.len() as u32);
        for number in numbers {
            self.u64(number);
        }
    }

    fn one_of<T: PartialEq>(&mut self, value: &T, all: &[T]) -> Result<(), Malformed> {
        let number = all.iter().position(|known| known == value).ok_or(Malformed)?;
        self.u8(number as u8);
        Ok(())
    }

    pub(crate) fn conf_state(&mut self, conf: &ConfState) {
        self.numbers(conf.get_voters());
        self.numbers(conf.get_learners());
        self.numbers(conf.get_voters_outgoing());
        self.numbers(conf.get_learners_next());
        self.u8(conf.auto_leave.into());
    }

    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<(), Malformed> {
        self.u64(entry.term);
        self.u64(entry.index);
        match entry.get_entry_type() {
            EntryType::EntryNormal => {
                self.u8(0);
                self.bytes(&entry.data);
            }
            EntryType::EntryConfChange => return Err(Malformed),
            EntryType::EntryConfChangeV2 => {
                self.u8(1);
                let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(|_| Malformed)?;
                self.one_of(&change.transition, TRANSITIONS)?;
                self.u32(change.get_changes().len() as u32);
                for single in change.get_changes() {
                    self.one_of(&single.get_change_type(), PARTS)?;
                    self.u64(single.node_id);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        self.u64(meta.index);
        self.u64(meta.term);
        self.conf_state(meta.get_conf_state());
        self.bytes(&snapshot.data);
    }
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn numbers(&mut self) -> Result<Vec<u64>, Malformed> {
        let count = self.u32()?;
        (0..count).map(|_| self.u64()).collect()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T, Malformed> {
        all.get(usize::from(self.u8()?)).copied().ok_or(Malformed)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(crate) fn conf_state(&mut self) -> Result<ConfState, Malformed> {
        let mut conf = ConfState::default();
        conf.set_voters(self.numbers()?);
        conf.set_learners(self.numbers()?);
        conf.set_voters_outgoing(self.numbers()?);
        conf.set_learners_next(self.numbers()?);
        conf.set_auto_leave(self.bool()?);
        Ok(conf)
    }

    pub(crate) fn entry(&mut self) -> Result<Entry, Malformed> {
        let mut entry = Entry::default();
        entry.set_term(self.u64()?);
        entry.set_index(self.u64()?);
        if self.bool()? {
            let mut change = ConfChangeV2::default();
            change.set_transition(self.one_of(TRANSITIONS)?);
            let mut singles = Vec::new();
            for _ in 0..self.u32()? {
                let mut single = ConfChangeSingle::default();
                single.set_change_type(self.one_of(PARTS)?);
                single.set_node_id(self.u64()?);
                singles.push(single);
            }
            change.set_changes(singles.into());
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.set_data(change.write_to_bytes().map_err(|_| Malformed)?.into());
        } else {
            entry.set_data(self.bytes()?.to_vec().into());
        }
        Ok(entry)
    }

    pub(crate) fn snapshot(&mut self) -> Result<Snapshot, Malformed> {
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.set_index(self.u64()?);
        meta.set_term(self.u64()?);
        meta.set_conf_state(self.conf_state()?);
        snapshot.set_data(self.bytes()?.to_vec().into());
        Ok(snapshot)
    }
}

/// A message of a group as bytes. None for one that members do not send each other.
pub(crate) fn write_message(group: u64, message: &Message) -> Result<Vec<u8>, Malformed> {
    let mut w = Writer::default();
    w.u8(VERSION);
    w.u64(group);
    w.one_of(&message.get_msg_type(), TYPES)?;
    for number in [
        message.to,
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.request_snapshot,
        message.reject_hint,
        message.priority as u64,
    ] {
        w.u64(number);
    }
    w.u8(message.reject.into());
    w.bytes(&message.context);
    w.u32(message.entries.len() as u32);
    for entry in &message.entries {
        w.entry(entry)?;
    }
    w.u8(message.has_snapshot().into());
    if message.has_snapshot() {
        w.snapshot(message.get_snapshot());
    }
    Ok(w.0)
}

/// The group and the message in these bytes.
pub(crate) fn read_message(bytes: &[u8]) -> Result<(u64, Message), Malformed> {
    let mut r = Reader(bytes);
    if r.u8()? != VERSION {
        return Err(Malformed);
    }
    let group = r.u64()?;
    let mut message = Message::default();
    message.set_msg_type(r.one_of(TYPES)?);
    message.to = r.u64()?;
    message.from = r.u64()?;
    message.term = r.u64()?;
    message.log_term = r.u64()?;
    message.index = r.u64()?;
    message.commit = r.u64()?;
    message.commit_term = r.u64()?;
    message.request_snapshot = r.u64()?;
    message.reject_hint = r.u64()?;
    message.priority = r.u64()? as i64;
    message.reject = r.bool()?;
    message.context = r.bytes()?.to_vec().into();
    let count = r.u32()?;
    let entries: Result<Vec<Entry>, Malformed> = (0..count).map(|_| r.entry()).collect();
    message.set_entries(entries?.into());
    if r.bool()? {
        message.set_snapshot(r.snapshot()?);
    }
    r.end()?;
    Ok((group, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Message {
        let mut change = ConfChangeV2::default();
        let mut single = ConfChangeSingle::default();
        single.set_node_id(9);
        single.set_change_type(ConfChangeType::AddLearnerNode);
        change.set_changes(vec![single].into());
        let entry = |kind, data: Vec<u8>| {
            let mut entry = Entry::default();
            entry.set_entry_type(kind);
            entry.index = 5;
            entry.term = 3;
            entry.set_data(data.into());
            entry
        };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.to, message.from, message.term, message.log_term) = (1, u64::MAX, 3, 4);
        (message.index, message.commit, message.commit_term) = (5, 6, 7);
        (message.reject, message.reject_hint, message.priority) = (true, 8, -1);
        message.set_context(vec![1, 2, 3].into());
        message.set_entries(
            vec![
                entry(EntryType::EntryNormal, vec![7; 9]),
                entry(EntryType::EntryNormal, vec![]),
                entry(EntryType::EntryConfChangeV2, change.write_to_bytes().expect("writes")),
                entry(EntryType::EntryConfChangeV2, vec![]),
            ]
            .into(),
        );
        let snapshot = message.mut_snapshot();
        snapshot.set_data(vec![4; 5].into());
        snapshot.mut_metadata().index = 2;
        snapshot.mut_metadata().mut_conf_state().set_voters(vec![1, 2]);
        snapshot.mut_metadata().mut_conf_state().set_learners_next(vec![3]);
        message
    }

    #[test]
    fn messages_come_back_whole_and_never_in_part() {
        let bytes = write_message(77, &full()).expect("writes");
        assert_eq!(read_message(&bytes), Ok((77, full())));
        for len in 0..bytes.len() {
            assert_eq!(read_message(&bytes[..len]), Err(Malformed), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(read_message(&longer), Err(Malformed));
    }

    #[test]
    fn what_members_do_not_send_is_not_written() {
        let mut message = full();
        message.set_msg_type(MessageType::MsgHup);
        assert_eq!(write_message(1, &message), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_malformed(
            at in any::<prop::sample::Index>(), with in any::<u8>(),
        ) {
            let mut bytes = write_message(77, &full()).expect("writes");
            let at = at.index(bytes.len());
            bytes[at] = with;
            if let Ok((group, message)) = read_message(&bytes) {
                prop_assert_eq!(write_message(group, &message).map(|w| w.len()), Ok(bytes.len()));
            }
        }
    }
}
