//! What clients ask to see whether the other end is alive: PING, ECHO, TIME.

use super::wrong_arity;
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::resp::reply;

const FAST: Spec = Spec {
    flags: &["loading", "stale", "fast"],
    categories: &["@fast", "@connection"],
    scope: Scope::Anywhere,
    since: "1.0.0",
    group: "connection",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "PING",
        arity: -1,
        flags: &["fast"],
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        handler: ping,
        summary: "Returns the server's liveliness response.",
        ..FAST
    },
    Spec {
        name: "ECHO",
        arity: 2,
        handler: |_, args, out| reply::bulk(out, args.get(1)),
        summary: "Returns the given string.",
        ..FAST
    },
    Spec {
        name: "TIME",
        arity: 1,
        categories: &["@fast"],
        tips: &["nondeterministic_output"],
        handler: time,
        summary: "Returns the server time.",
        since: "2.6.0",
        group: "server",
        ..FAST
    },
];

fn ping(_: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    match args.len() {
        1 => reply::simple(out, "PONG"),
        2 => reply::bulk(out, args.get(1)),
        _ => wrong_arity("ping", out),
    }
}

/// Seconds and microseconds; the turn's clock has milliseconds.
fn time(x: &mut Exec<'_>, _args: Args<'_>, out: &mut Vec<u8>) {
    let mut text = itoa::Buffer::new();
    reply::array(out, 2);
    reply::bulk(out, text.format(x.now.unix_ms / 1000).as_bytes());
    reply::bulk(out, text.format(x.now.unix_ms % 1000 * 1000).as_bytes());
}
