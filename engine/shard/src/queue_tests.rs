//! Tests of the queue of replies.

use super::*;
use crate::bench::with_exec;
use crate::command::Merge;
use dkv_protocol::ids::RangeId;

fn resolve(replies: &mut Replies, number: u32, reply: &[u8]) -> Option<Answered> {
    with_exec(|exec| replies.resolve(number, 0, reply.into(), Noticed::None, exec))
}

fn local(replies: &mut Replies, text: &[u8]) {
    replies.push(text);
}

#[test]
fn local_replies_go_straight_out_while_nothing_waits() {
    let mut replies = Replies::default();
    local(&mut replies, b"+a\r\n");
    local(&mut replies, b"+b\r\n");
    assert!(replies.is_settled());
    assert_eq!(replies.take(Output::default()).bytes, b"+a\r\n+b\r\n");
    assert_eq!(replies.unsent(), 8);
    replies.sent();
    assert_eq!(replies.unsent(), 0);
}

#[test]
fn replies_leave_in_the_order_of_their_requests() {
    let mut replies = Replies::default();
    let first = replies.wait();
    local(&mut replies, b"+2\r\n");
    local(&mut replies, b"+3\r\n");
    let fourth = replies.wait();
    local(&mut replies, b"+5\r\n");
    assert_eq!(replies.waiting(), 2);
    assert_eq!(resolve(&mut replies, fourth, b"-4\r\n"), Some(Answered { failures: 1 }));
    assert!(!replies.has_output());
    assert_eq!(replies.unsent(), 16);
    resolve(&mut replies, first, b"+1\r\n");
    assert_eq!(replies.take(Output::default()).bytes, b"+1\r\n+2\r\n+3\r\n-4\r\n+5\r\n");
    assert!(replies.is_settled());
    assert_eq!(replies.unsent(), 20);
}

#[test]
fn replies_that_nobody_wants_are_dropped_wherever_they_come_from_and_messages_are_not() {
    let mut replies = Replies::default();
    replies.silence(true);
    local(&mut replies, b"+0\r\n");
    replies.silence(false);
    assert!(!replies.has_output());
    let first = replies.wait();
    replies.silence(true);
    local(&mut replies, b"+2\r\n");
    let third = replies.wait();
    replies.message(b">a\r\n");
    replies.silence(false);
    let fourth = replies.wait();
    resolve(&mut replies, third, b"+3\r\n");
    resolve(&mut replies, first, b"+1\r\n");
    resolve(&mut replies, fourth, b"+4\r\n");
    replies.silence(true);
    replies.message(b">b\r\n");
    let fifth = replies.wait();
    resolve(&mut replies, fifth, b"+5\r\n");
    assert!(replies.is_settled());
    assert_eq!(replies.take(Output::default()).bytes, b"+1\r\n>a\r\n+4\r\n>b\r\n");
    replies.sent();
    assert_eq!(replies.unsent(), 0);
}

#[test]
fn a_reply_for_a_place_that_is_gone_is_dropped() {
    let mut replies = Replies::default();
    let first = replies.wait();
    resolve(&mut replies, first, b"+1\r\n");
    assert_eq!(resolve(&mut replies, first, b"+1\r\n"), None);
    let second = replies.wait();
    replies.drop_all();
    assert_eq!(resolve(&mut replies, second, b"+2\r\n"), None);
    assert_eq!(replies.unsent(), 0);
}

fn gated(replies: &mut Replies, gates: &Gates, range: u8, index: u64, text: &[u8]) {
    let (out, _) = replies.begin();
    let start = out.len();
    out.extend_from_slice(text);
    gates.wrote(RangeId(range), index);
    replies.wrote_gated(start, 0, gates.take());
}

fn gates(indexes: [u64; 2]) -> Gates {
    let mut gates = Gates::new();
    (0..2).for_each(|range| {
        gates.committed(RangeId(range), indexes[range as usize], indexes[range as usize]);
    });
    gates
}

#[test]
fn replies_wait_for_copies_in_their_order() {
    let mut gates = gates([5, 5]);
    let mut replies = Replies::default();
    local(&mut replies, b"+1\r\n");
    gated(&mut replies, &gates, 0, 6, b"+2\r\n");
    local(&mut replies, b"+3\r\n");
    gated(&mut replies, &gates, 1, 6, b"+4\r\n");
    gated(&mut replies, &gates, 0, 7, b"+5\r\n");
    local(&mut replies, b"+6\r\n");
    assert_eq!(replies.take(Output::default()).bytes, b"+1\r\n");
    assert_eq!((replies.gated(), replies.unsent()), (3, 24));
    assert_eq!(replies.front_gate(&gates).map(|gate| (gate.range().0, gate.index)), Some((0, 6)));
    gates.committed(RangeId(1), 6, 6);
    replies.open_gates(&gates);
    assert!(!replies.has_output());
    gates.committed(RangeId(0), 6, 6);
    assert_eq!(replies.open_gates(&gates), 0);
    assert_eq!(replies.take(Output::default()).bytes, b"+2\r\n+3\r\n+4\r\n");
    // The range changes hands before the last is everywhere.
    gates.deposed(RangeId(0), 6);
    assert_eq!(replies.open_gates(&gates), 1);
    let rest = replies.take(Output::default()).bytes;
    assert!(rest.starts_with(b"-UNCERTAIN ") && rest.ends_with(b"\r\n+6\r\n"));
    assert!(replies.is_settled() && replies.gated() == 0 && replies.front_gate(&gates).is_none());
    assert_eq!(replies.unsent(), rest.len());
}

#[test]
fn what_was_made_here_for_a_place_waits_for_copies_too() {
    let mut gates = gates([5, 5]);
    let mut replies = Replies::default();
    let place = replies.wait();
    let all = replies.wait_for_all(Merging::new(Merge::Sum, 2, Vec::new()));
    let resolve = |replies: &mut Replies, gates: &Gates, number, text: &[u8]| {
        let noticed = gates.take();
        with_exec(|exec| replies.resolve(number, 0, text.into(), noticed, exec))
    };
    gates.saw(RangeId(0), 6);
    assert_eq!(
        resolve(&mut replies, &gates, place, b"$1\r\na\r\n"),
        Some(Answered { failures: 0 })
    );
    gates.wrote(RangeId(1), 6);
    assert_eq!(resolve(&mut replies, &gates, all, b":1\r\n"), None);
    assert_eq!(resolve(&mut replies, &gates, all, b":2\r\n"), Some(Answered { failures: 0 }));
    assert_eq!((replies.waiting(), replies.gated()), (0, 2));
    assert!(!replies.has_output());
    gates.committed(RangeId(1), 6, 6);
    gates.deposed(RangeId(0), 5);
    assert_eq!(replies.open_gates(&gates), 1);
    let out = replies.take(Output::default()).bytes;
    assert!(out.starts_with(b"-TRYAGAIN ") && out.ends_with(b"\r\n:3\r\n"));
    assert_eq!(replies.unsent(), out.len());
}

#[test]
fn a_reply_with_inserts_keeps_them_while_it_waits() {
    let mut gates = gates([5, 5]);
    let mut replies = Replies::default();
    local(&mut replies, b"+a\r\n");
    let (out, inserts) = replies.begin();
    let start = out.len();
    out.extend_from_slice(b"$3\r\n");
    inserts.unwrap().push((out.len(), Bytes::from_static(b"xyz")));
    out.extend_from_slice(b"\r\n");
    gates.saw(RangeId(0), 6);
    replies.wrote_gated(start, 0, gates.take());
    replies.inserted(0);
    assert_eq!(replies.unsent(), 4 + 9);
    gates.committed(RangeId(0), 6, 6);
    replies.open_gates(&gates);
    let output = replies.take(Output::default());
    assert_eq!(output.bytes, b"+a\r\n\r\n");
    let inserts: Vec<_> = output.inserts.iter().map(|(at, bytes)| (*at, bytes.as_ref())).collect();
    assert_eq!(inserts, [(4, &b"$3\r\n"[..]), (4, b"xyz")]);
    assert_eq!(replies.unsent(), 13);
}
