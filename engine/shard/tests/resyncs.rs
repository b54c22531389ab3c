//! What it takes to bring a copy up to date that was away: only what it missed while the log still has that, else all.

mod store;

use dkv_protocol::ids::RangeId;
use dkv_protocol::ranges::Replication;
use dkv_shard::PortKind;
use dkv_shard::stats::ShardStats;
use store::{PLAIN, Settings, Store, key_of};

/// One node leads everything, the other holds a copy of it.
fn ready() -> Store {
    let replication = Replication { replicas: 1, ..Replication::NONE };
    let mut store = Store::new(Settings { nodes: 2, replication, ..PLAIN });
    for range in (0..=u8::MAX).map(RangeId) {
        store.place(range, vec![Store::addr(0, 0), Store::addr(1, 0)]);
    }
    until(&mut store, "one leads all", &|store| led(store) == 256 && degraded(store) == 0);
    store
}

fn until(store: &mut Store, what: &str, holds: &dyn Fn(&Store) -> bool) {
    for _ in 0..600 {
        store.pass(20);
        if holds(store) {
            return;
        }
    }
    panic!("{what}: not after 12 seconds");
}

fn led(store: &Store) -> u64 {
    store.stats(0, 0).ranges_led.get()
}

fn degraded(store: &Store) -> u64 {
    store.stats(0, 0).ranges_degraded.get()
}

fn counts(stats: &ShardStats) -> [u64; 5] {
    [
        &stats.resyncs_full,
        &stats.resyncs_partial,
        &stats.resyncs_unfit,
        &stats.resync_bytes_full,
        &stats.resync_bytes_log,
    ]
    .map(dkv_shard::stats::Counter::get)
}

fn between(store: &Store, before: [u64; 5]) -> [u64; 5] {
    let now = counts(store.stats(0, 0));
    core::array::from_fn(|at| now[at] - before[at])
}

fn cut(store: &mut Store) {
    store.cut(0, 1);
    store.cut(1, 0);
    until(store, "the copy is let go", &|store| degraded(store) == 256);
}

fn mend(store: &mut Store) {
    store.mend(0, 1);
    store.mend(1, 0);
    until(store, "the copy counts again", &|store| degraded(store) == 0);
}

#[test]
fn a_copy_that_was_away_for_a_moment_gets_only_what_it_missed() {
    let mut store = ready();
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(500);
    for i in 0..1000 {
        assert_eq!(store.call(client, &["SET", &format!("k{i}"), &value]), "+OK\r\n");
    }
    // A copy says how far it has applied, which the next beacon lets it do with the last entries.
    store.pass(300);
    let before = counts(store.stats(0, 0));
    cut(&mut store);
    for i in 0..20 {
        assert_eq!(store.call(client, &["SET", &format!("k{i}"), "later"]), "+OK\r\n");
    }
    mend(&mut store);
    let [full, partial, unfit, full_bytes, log_bytes] = between(&store, before);
    assert_eq!((full, partial, unfit, full_bytes), (0, 256, 0, 0));
    // A head, the key and the value of each.
    assert!((20 * 10..20 * 50).contains(&log_bytes), "{log_bytes} bytes for 20 short writes");
    store.assert_copies_are_equal();
    let info = store.call(client, &["INFO", "stats", "dkv"]);
    let at_first = before[1];
    for field in [
        format!("sync_partial_ok:{}", at_first + 256),
        format!("sync_full:{}", before[0]),
        format!("sync_partial_err:{}", before[2]),
        format!("dkv_resync_bytes_full:{}", before[3]),
        format!("dkv_resync_bytes_log:{}", before[4] + log_bytes),
    ] {
        assert!(info.contains(&format!("{field}\r\n")), "{field} in {info}");
    }
}

#[test]
fn a_copy_that_was_away_for_longer_than_the_log_reaches_gets_all_of_the_range() {
    let mut store = ready();
    let client = store.connect(0, 0, PortKind::Client);
    let key = key_of(&store, 0, 0, "k");
    let range = dkv_protocol::slots::slot_of(key.as_bytes()).range();
    let of_same_range = |stem: &str| {
        (0..100_000)
            .map(|i| format!("{stem}{i}"))
            .find(|key| dkv_protocol::slots::slot_of(key.as_bytes()).range() == range)
            .expect("some key lies there")
    };
    let kept = "v".repeat(5000);
    for stem in ["a", "b", "c"] {
        assert_eq!(store.call(client, &["SET", &of_same_range(stem), &kept]), "+OK\r\n");
    }
    let before = counts(store.stats(0, 0));
    cut(&mut store);
    // More than the logs of a shard keep for copies that come back.
    let megabyte = "w".repeat(1 << 20);
    for _ in 0..18 {
        assert_eq!(store.call(client, &["SET", &key, &megabyte]), "+OK\r\n");
    }
    mend(&mut store);
    let [full, partial, unfit, full_bytes, log_bytes] = between(&store, before);
    assert_eq!((full, unfit), (1, 1), "only the range whose log was cut off");
    assert_eq!(partial, 255);
    let content = 3 * 5000 + (1 << 20);
    assert!((content..content + 1000).contains(&full_bytes), "{full_bytes} of {content}");
    assert_eq!(log_bytes, 0, "nothing was written meanwhile");
    store.assert_copies_are_equal();
}
