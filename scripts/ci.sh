#!/usr/bin/env bash
# Installs what the tests need and runs them all: on a fresh Debian 12 with Rust, as root (the tests make network
# namespaces). Set DKV_NO_INSTALL=1 to install nothing and fail where something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*"; }

step "what the tests need"
. scripts/needs.sh
# The runner only starts processes: an unoptimised build of it is made in half the time and costs nothing here.
cargo nextest --version >/dev/null 2>&1 || cargo install --quiet --locked --debug cargo-nextest@0.9.143

export RUSTFLAGS="${RUSTFLAGS:--D warnings}"
step "format"
cargo fmt --all --check
step "clippy"
cargo clippy --quiet --workspace --all-targets -- -D warnings
step "build"
cargo build --quiet --workspace --bins
cargo nextest run --workspace --no-run
# What else is to be built is built meanwhile, with what the tests leave of the processors: many of them mostly wait.
loom() { RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --quiet --release -p dkv-io --lib "$@"; }
set -m
{ renice -n 19 "$BASHPID" >/dev/null; cargo build --quiet --release -p dkv-sim; loom --no-run; } &
builds=$!
set +m
trap 'kill -- "-$builds" 2>/dev/null || true' EXIT
step "tests"
cargo nextest run --workspace --no-fail-fast
# The same once more with nodes that run without io_uring: each test that starts nodes and asks nothing about the way they do it.
# The binaries are those of the step before.
step "tests of real processes, on epoll"
# Two that take minutes and look at managers and commands rather than at sockets are left out unless DKV_EPOLL_ALL=1.
left_out='binary(filters) or binary(compare) or binary(fuzz) or binary(console)'
[ -n "${DKV_EPOLL_ALL:-}" ] || left_out="$left_out or binary(two_managers) or binary(differential)"
DKV_TEST_IO=epoll cargo nextest run --profile epoll --workspace --no-fail-fast \
  -E "(package(dkv-tests) or (package(dkv-node) and kind(test))) and not ($left_out)"
wait "$builds"
step "simulator: many seeds"
cargo run --quiet --release -p dkv-sim -- --seeds 4000
cargo run --quiet --release -p dkv-sim -- --seeds 600 --shard
# Seeds that nobody has seen may find something at any time, which is no fault of the change that is looked at: for a run of
# its own, not for each.
if [ -n "${DKV_FRESH_SEEDS:-}" ]; then
  step "simulator: five minutes of seeds that nobody has seen"
  from=$(($(date +%s) * 10000))
  cargo run --quiet --release -p dkv-sim -- --minutes 3 --from "$from"
  cargo run --quiet --release -p dkv-sim -- --minutes 2 --from "$from" --shard
fi
if [ -n "${DKV_DIFFERENTIAL:-}" ]; then
  step "a million commands to redis-server and to DKV"
  cargo build --quiet --release -p dkv-cli --bin dkv
  cargo run --quiet --release -p dkv-tests --bin differential -- --commands 1000000
fi
step "documentation tests"
cargo test --quiet --workspace --doc
step "micro-benchmarks, once and quickly"
cargo test --quiet -p dkv-bench --bench '*' -- --quick
step "mailbox under every interleaving (loom)"
loom mailbox
