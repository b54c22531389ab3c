//! Tests of the log's arithmetic against a list.

use super::*;
use alloc::vec;

fn filled(log: &mut Log, account: &mut Account, epochs: &[(u64, usize)]) -> Vec<(u64, Vec<u8>)> {
    let mut model = Vec::new();
    for &(epoch, count) in epochs {
        for n in 0..count {
            let bytes = vec![n as u8; n % 90];
            log.push(Epoch(epoch), Effect::small(&bytes), account);
            model.push((epoch, bytes));
        }
    }
    model
}

fn holds(log: &Log, base: u64, model: &[(u64, Vec<u8>)]) {
    assert_eq!(log.end(), base + model.len() as u64);
    for (at, (epoch, bytes)) in model.iter().enumerate() {
        let index = base + 1 + at as u64;
        if index <= log.base() {
            assert!(log.get(index).is_none());
            continue;
        }
        assert_eq!(log.get(index).map(|effect| effect.head), Some(&bytes[..]), "{index}");
        assert_eq!(log.epoch_at(index), Some(Epoch(*epoch)), "{index}");
    }
    assert!(log.get(log.end() + 1).is_none());
}

#[test]
fn a_log_gives_back_each_entry_and_its_epoch_when_it_is_trimmed_and_truncated() {
    let (mut log, mut account) = (Log::new(), Account::default());
    log.reset(100, Epoch(1), &mut account);
    assert_eq!((log.base(), log.end(), log.epoch_at(100)), (100, 100, Some(Epoch(1))));
    let mut model = filled(&mut log, &mut account, &[(1, 1500), (2, 3), (4, 2000)]);
    holds(&log, 100, &model);
    assert_eq!(account.bytes, log.cost());
    let held = log.bytes_to(log.end()) - log.bytes_to(150);
    let oldest = log.oldest().expect("it has chunks");
    log.trim(&mut account);
    assert_eq!((log.base(), log.epoch_at(oldest)), (oldest, Some(Epoch(1))));
    assert!(held > log.bytes_to(log.end()) - log.bytes_to(oldest));
    holds(&log, 100, &model);
    for keep in [1700, 1502, 1501, 1400] {
        log.truncate_after(100 + keep, &mut account);
        model.truncate(keep as usize);
        holds(&log, 100, &model);
        assert_eq!(account.bytes, log.cost());
    }
    model.extend(filled(&mut log, &mut account, &[(5, 10)]));
    holds(&log, 100, &model);
    log.reset(7, Epoch(9), &mut account);
    assert_eq!((account.bytes, log.end(), log.last_epoch()), (0, 7, Epoch(9)));
}

#[test]
fn runs_are_of_one_epoch_and_within_their_bound_but_never_empty() {
    let (mut log, mut account) = (Log::new(), Account::default());
    for (epoch, len) in [(1, 10), (1, 10), (1, 500), (2, 10)] {
        log.push(Epoch(epoch), Effect::small(&vec![0; len]), &mut account);
    }
    let body = Bytes::from_static(b"great");
    log.push(Epoch(2), Effect { head: b"h", body: Some(&body) }, &mut account);
    for (index, bytes_max, expect) in
        [(1, 10_000, (1, 3)), (1, 30, (1, 2)), (2, 1, (1, 1)), (3, 30, (1, 1)), (4, 10_000, (2, 1))]
    {
        let Some(Run::Small { epoch, count, bytes }) = log.run(index, bytes_max) else {
            panic!("{index}")
        };
        assert_eq!((epoch.0, count), expect, "{index} within {bytes_max}");
        let entries = dkv_protocol::peer::Entries::new(count, bytes);
        assert_eq!(Iterator::count(entries), count as usize);
    }
    assert!(matches!(log.run(5, 1), Some(Run::Large { head: b"h", body, .. }) if body == "great"));
    assert!(log.run(6, 1).is_none() && log.run(0, 1).is_none());
}
