//! `store verify`: the copies of a store are found to agree.

use dkv_tests::machine::{Network, until};

const CREATE: &str = "store create Ledger --instance-prefix n --instance-count 3 --cpus 1 --replicas 1 \
                      --clustron-port 7811 --client-port 7861";

#[test]
fn copies_agree_after_all_kinds_of_writes_and_a_store_without_any_says_so() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    machine.dkv("connect -m 127.0.0.1:7801").ok();
    machine.dkv(CREATE).ok();
    machine.dkv("store start Ledger").ok();
    until("the store serves", || machine.redis("127.0.0.1", 7861, &["set", "first", "1"]) == "OK");
    for i in 0..40 {
        let key = format!("key:{i}");
        machine.redis("127.0.0.1", 7861 + i % 3, &["set", &key, "value"]);
        match i % 4 {
            0 => machine.redis("127.0.0.1", 7862, &["pexpire", &key, "600000"]),
            1 => machine.redis("127.0.0.1", 7863, &["append", &key, "and more"]),
            2 => machine.redis("127.0.0.1", 7861, &["del", &key]),
            _ => machine.redis("127.0.0.1", 7861, &["set", &key, "2", "px", "50"]),
        };
    }
    machine.dkv("store verify Ledger").ok().says(&["Ledger: 256 of 256 ranges agree in 2 copies"]);
    let found = machine.json("store verify Ledger");
    assert_eq!(found["ranges"]["agree"], 256, "{found}");
    assert_eq!(found["rows"], serde_json::json!([]), "{found}");
    machine.dkv("store stop Ledger").ok();
    machine.dkv("store verify Ledger").fails(3).says(&["n1"]);
    machine
        .dkv("store create Alone --instance-prefix a --instance-count 1 --cpus 1 --replicas 0")
        .ok();
    machine.dkv("store start Alone").ok();
    machine.dkv("kv set key value --store Alone").ok();
    machine.dkv("store verify Alone").ok().says(&["Alone: no copies to compare", "1 keys"]);
    machine.dkv("store verify Nowhere").fails(1).says(&["Nowhere"]);
}
