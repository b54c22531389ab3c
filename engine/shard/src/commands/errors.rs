//! Refusals in Redis' exact words: clients act on them.

use alloc::vec::Vec;
use dkv_protocol::resp::reply;

pub(super) const SYNTAX: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const OVERFLOW: &str = "ERR increment or decrement would overflow";
pub(super) const DECREMENT_OVERFLOW: &str = "ERR decrement would overflow";
pub(super) const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
pub(super) const INVALID_CURSOR: &str = "ERR invalid cursor";
pub(crate) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// The number is `KEY_BYTES_MAX`; Redis has no such limit, so the words are ours.
pub(super) const KEY_TOO_LONG: &str =
    "ERR key is longer than 65536 bytes; use a shorter key, for example a hash of it";
const _: () = assert!(dkv_protocol::limits::KEY_BYTES_MAX == 65536);
/// For a reply that would not fit in a frame between two shards.
pub(super) const REPLY_TOO_LONG: &str =
    "ERR reply is longer than 512 MiB; ask for fewer keys at once (SCAN instead of KEYS)";
const _: () = assert!(dkv_protocol::limits::VALUE_BYTES_MAX == 512 << 20);
/// The number is `glob::PATTERN_BYTES_MAX`.
pub(crate) const PATTERN_TOO_LONG: &str = "ERR pattern too long: at most 1024 bytes";
const _: () = assert!(super::glob::PATTERN_BYTES_MAX == 1024);

/// `-ERR invalid expire time in 'set' command`; `name` as the client sent it.
#[cold]
pub(super) fn invalid_expire_time(name: &[u8], out: &mut Vec<u8>) {
    let mut text = Vec::from(b"ERR invalid expire time in '");
    text.extend(name.iter().map(u8::to_ascii_lowercase));
    text.extend_from_slice(b"' command");
    reply::error_bytes(out, &text);
}
