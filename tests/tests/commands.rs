//! What COMMAND tells of commands is what redis-server tells of them.

use dkv_tests::differential::commands;
use dkv_tests::machine::dkv;

#[test]
fn commands_are_described_as_by_redis() {
    let (compared, different) = commands::run(&dkv());
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(compared > 150, "{compared}");
}
