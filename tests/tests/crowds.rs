//! Crowds of connections, small: what each of them costs the node is counted here; how long others wait is measured by the
//! program `crowds`, because it is a time.

use dkv_tests::crowds::{Sizes, run};
use dkv_tests::machine::dkv;

#[test]
fn a_connection_that_does_nothing_costs_little_and_one_too_many_is_refused() {
    let cases = run(&dkv(), Sizes::SMALL, |case| println!("{case:?}"));
    let bytes_each = |what: &str| {
        let case = cases.iter().find(|case| case.name.contains(what));
        case.unwrap_or_else(|| panic!("no case {what}")).bytes_each
    };
    assert!(bytes_each("idle") <= 4 * 1024, "{cases:?}");
    assert!(bytes_each("byte a second") <= 16 * 1024, "{cases:?}");
    assert!(bytes_each("too many") <= 4 * 1024, "{cases:?}");
}
