//! Bytes by hand: what no well-behaved client would send.
//!
//! A socket has to be opened inside the machine's namespace; the few lines of Python in `tests/clients/raw.py` do that
//! and speak hexadecimal over their pipes, so that no thread of a test has to change its namespace.

use crate::Machine;
use std::fmt::Write;

/// Opens a connection on the machine, sends `bytes` in one piece, half-closes when `then_close`, and gives all that
/// came back until the other side closed, or until nothing came for `quiet_ms`, with whether it closed.
#[track_caller]
pub fn exchange(
    machine: &Machine,
    host: &str,
    port: u16,
    bytes: &[u8],
    then_close: bool,
    quiet_ms: u32,
) -> (Vec<u8>, bool) {
    let mut hex = String::new();
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}");
    }
    let path = machine.file("raw.hex", &hex);
    let output = machine
        .python(
            "raw.py",
            &[
                host,
                &port.to_string(),
                path.to_str().expect("a plain path"),
                if then_close { "1" } else { "0" },
                &quiet_ms.to_string(),
            ],
        )
        .ok();
    let (closed, hex) = output.out.trim().split_once(' ').expect("raw.py prints two words");
    let hex = hex.as_bytes();
    let bytes = hex
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    (bytes, closed == "closed")
}
