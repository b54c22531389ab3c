//! Tests of merging.

use super::*;
use crate::walk::Wanted;
use std::vec;

fn merged(mut merging: Merging, parts: &[(u32, &[u8])]) -> Vec<u8> {
    for (part, reply) in parts {
        assert!(!merging.is_complete());
        merging.add(*part, (*reply).into());
    }
    assert!(merging.is_complete());
    let mut out = Vec::new();
    crate::bench::with_exec(|exec| merging.finish(exec, &mut out));
    out
}

#[test]
fn sums_oks_arrays_and_texts_become_one() {
    let sum = Merging::new(Merge::Sum, 2, vec![]);
    assert_eq!(merged(sum, &[(0, b":2\r\n"), (1, b":40\r\n")]), b":42\r\n");
    let ok = Merging::new(Merge::Ok, 2, vec![]);
    assert_eq!(merged(ok, &[(0, b"+OK\r\n"), (1, b"+OK\r\n")]), b"+OK\r\n");
    let mut walk = Merging::walk(Wanted::Matching(b"*".to_vec()), 2);
    assert_eq!(walk.walk_on(b"*2\r\n:7\r\n*1\r\n$1\r\nb\r\n"), Some(7));
    assert_eq!(walk.walk_on(b"*2\r\n:0\r\n*1\r\n$1\r\na\r\n"), None);
    let parts: [(u32, &[u8]); 2] =
        [(1, b"*2\r\n:0\r\n*1\r\n$1\r\na\r\n"), (0, b"*2\r\n:0\r\n*0\r\n")];
    assert_eq!(merged(walk, &parts), b"*2\r\n$1\r\nb\r\n$1\r\na\r\n");
    let list = Args::new(b"CLIENTLIST", &[(0, 6), (6, 10)]);
    let text = Merging::node(list, 2);
    assert_eq!(merged(text, &[(0, b"$2\r\na\n\r\n"), (1, b"$2\r\nb\n\r\n")]), b"$4\r\na\nb\n\r\n");
}

#[test]
fn elements_come_back_in_the_order_of_their_keys() {
    let merging = Merging::new(Merge::InOrder, 2, vec![0, 1, 1, 0]);
    let parts: [(u32, &[u8]); 2] =
        [(1, b"*2\r\n$-1\r\n$1\r\nc\r\n"), (0, b"*2\r\n$1\r\na\r\n$1\r\nd\r\n")];
    assert_eq!(merged(merging, &parts), b"*4\r\n$1\r\na\r\n$-1\r\n$1\r\nc\r\n$1\r\nd\r\n");
}

#[test]
fn the_first_error_is_the_reply_but_an_unknown_outcome_outranks_it() {
    let merging = || Merging::new(Merge::Ok, 3, vec![]);
    let parts: [(u32, &[u8]); 3] = [(0, b"-OOM a\r\n"), (1, b"-ERR b\r\n"), (2, b"+OK\r\n")];
    assert_eq!(merged(merging(), &parts), b"-OOM a\r\n");
    let parts: [(u32, &[u8]); 3] = [(0, b"-OOM a\r\n"), (1, b"-UNCERTAIN b\r\n"), (2, b"+OK\r\n")];
    assert_eq!(merged(merging(), &parts), b"-UNCERTAIN b\r\n");
}

#[test]
fn a_part_that_is_not_what_it_should_be_is_an_error() {
    let walk = Merging::walk(Wanted::Matching(b"*".to_vec()), 1);
    assert!(merged(walk, &[(0, b"+what\r\n")]).starts_with(b"-ERR a shard answered"));
    for merge in [Merge::Sum, Merge::InOrder] {
        let out = merged(Merging::new(merge, 1, vec![0]), &[(0, b"+what\r\n")]);
        assert!(out.starts_with(b"-ERR a shard answered"), "{merge:?}");
    }
    let short = merged(Merging::new(Merge::InOrder, 1, vec![0, 0]), &[(0, b"*1\r\n:1\r\n")]);
    assert!(short.starts_with(b"-ERR a shard answered"));
}

#[test]
fn a_walk_that_found_enough_or_failed_goes_no_further() {
    let step = b"*2\r\n:7\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
    let mut walk = Merging::walk(Wanted::OfSlot(1, 3), 1);
    assert_eq!(walk.walk_on(step), Some(7));
    assert_eq!(walk.walk_on(step), None, "more than were wanted");
    let mut walk = Merging::walk(Wanted::Matching(b"*".to_vec()), 2);
    walk.add(0, b"-CLUSTERDOWN gone\r\n".into());
    assert_eq!(walk.walk_on(step), None);
    assert_eq!(merged(walk, &[(1, step)]), b"-CLUSTERDOWN gone\r\n");
}
