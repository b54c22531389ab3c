//! Hands libFuzzer's inputs to the fuzz target that `DKV_FUZZ_TARGET` names: what they must hold stands in `dkv_tests::fuzz`.
#![no_main]

use dkv_tests::fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;

thread_local! {
    static CHOSEN: RefCell<Box<dyn Target>> = RefCell::new(chosen());
}

fn chosen() -> Box<dyn Target> {
    let name = std::env::var("DKV_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("DKV_FUZZ_TARGET is '{name}'; it can be one of {TARGETS:?}"))
}

fuzz_target!(|input: &[u8]| {
    CHOSEN.with_borrow_mut(|target| target.read(input));
});
