#!/usr/bin/env bash
# Runs the crates with `unsafe` under AddressSanitizer (all tests of engine/table and engine/io) and, because that one does
# not see uninitialised bytes, the table's tests under valgrind (memcheck; a selection, it is fifty times slower). On a
# fresh Debian 12 with Rust. Set DKV_NO_INSTALL=1 to install nothing and fail where something is missing. Not a part of
# scripts/ci.sh: it takes about ten minutes. Arguments go to the first of the runs, a filter of tests for example.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*"; }
target=x86_64-unknown-linux-gnu
if [ "$(uname -m)" != x86_64 ]; then
  echo "only for x86_64: AddressSanitizer is built into Rust's library there" >&2
  exit 1
fi

step "what this needs"
. scripts/packages.sh
install_missing cc:build-essential valgrind:valgrind
cargo nextest --version >/dev/null 2>&1 || cargo install --quiet --locked --debug cargo-nextest@0.9.143

step "AddressSanitizer: all tests of dkv-table and dkv-io"
# The sanitizer is a part of the stable compiler that only the bootstrap switch lets one ask for. Frames are kept so that
# its traces can be read.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes" \
  ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1:abort_on_error=0" \
  CARGO_TARGET_DIR=target/sanitize \
  cargo nextest run -p dkv-table -p dkv-io --target "$target" --no-fail-fast "$@"

step "valgrind (memcheck): the table's unit tests, its model tests and a selection of its promises"
run=(env CARGO_TARGET_DIR=target/sanitize/valgrind RUSTFLAGS= PROPTEST_CASES=8
  CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind --quiet --error-exitcode=99 --leak-check=no"
  cargo test --quiet -p dkv-table --target "$target")
"${run[@]}" --lib -- --test-threads=1
"${run[@]}" --test table -- --test-threads=1 \
  model:: \
  promises::a_tiny_table promises::empty_long promises::a_write_replaces promises::a_scan_stays \
  promises::an_expired_key promises::every_effect promises::a_limit_smaller \
  replica:: ranges::what_does_not ranges::the_journal ranges::great_values ranges::a_clearing_in

step "nothing was found"
