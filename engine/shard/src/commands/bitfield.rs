//! BITFIELD: whole numbers of any width at any bit of a string.

use super::bits::BAD_OFFSET;
use super::number::parse_i64;
use super::{errors, record};
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::limits::VALUE_BYTES_MAX;
use dkv_protocol::resp::reply;

const READ: Spec = Spec {
    name: "BITFIELD_RO",
    arity: -2,
    flags: &["readonly", "fast"],
    first_key: 1,
    last_key: 1,
    key_step: 1,
    categories: &["@read", "@bitmap", "@fast"],
    key_flags: &["RO", "access"],
    scope: Scope::Keyed,
    handler: |x, args, out| bitfield(x, args, false, out),
    summary: "Performs arbitrary read-only bitfield integer operations on strings.",
    since: "6.0.0",
    group: "bitmap",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "BITFIELD",
        flags: &["write", "denyoom"],
        categories: &["@write", "@bitmap", "@slow"],
        key_flags: &["RW", "access", "update", "variable_flags"],
        key_notes: "This command allows both access and modification of the key",
        write: true,
        handler: |x, args, out| bitfield(x, args, true, out),
        summary: "Performs arbitrary bitfield integer operations on strings.",
        since: "3.2.0",
        ..READ
    },
    READ,
];

const BAD_TYPE: &str = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";
const BAD_OVERFLOW: &str = "ERR Invalid OVERFLOW type specified";
const READ_ONLY: &str = "ERR BITFIELD_RO only supports the GET subcommand";
/// What the operations of one command may touch at most to be one write: from the first byte of the first to the last of the
/// last. Those that lie further apart are writes one after the other.
const WINDOW_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

/// A number of `width` bits at a bit of the string.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    width: u32,
    offset: usize,
}

#[derive(Clone, Copy)]
struct Operation {
    field: Field,
    action: Action,
    overflow: Overflow,
}

impl Field {
    fn parse(kind: &[u8], offset: &[u8]) -> Result<Self, &'static str> {
        let (signed, width) = match kind {
            [b'i', rest @ ..] => (true, parse_i64(rest)),
            [b'u', rest @ ..] => (false, parse_i64(rest)),
            _ => return Err(BAD_TYPE),
        };
        let width = match width {
            Some(width @ 1..=63) => width as u32,
            Some(64) if signed => 64,
            _ => return Err(BAD_TYPE),
        };
        let (digits, unit) = match offset {
            [b'#', rest @ ..] => (rest, i64::from(width)),
            _ => (offset, 1),
        };
        let offset = parse_i64(digits).and_then(|n| n.checked_mul(unit)).ok_or(BAD_OFFSET)?;
        let offset = usize::try_from(offset).map_err(|_| BAD_OFFSET)?;
        if offset / 8 >= VALUE_BYTES_MAX {
            return Err(BAD_OFFSET);
        }
        Ok(Self { signed, width, offset })
    }

    /// The bytes that it is in, at most nine: from the first to behind the last.
    const fn bytes(self) -> core::ops::Range<usize> {
        self.offset / 8..(self.offset + self.width as usize).div_ceil(8)
    }

    /// Its value in `bytes`, which begin at byte `start` of the string; what is missing is zero.
    fn read(self, bytes: &[u8], start: usize) -> i64 {
        let mut whole = 0u128;
        for at in self.bytes() {
            let byte = at.checked_sub(start).and_then(|at| bytes.get(at)).copied().unwrap_or(0);
            whole = whole << 8 | u128::from(byte);
        }
        let behind = self.bytes().end * 8 - self.offset - self.width as usize;
        let bits = (whole >> behind) as u64;
        let unused = 64 - self.width;
        if self.signed {
            (bits << unused) as i64 >> unused
        } else {
            (bits << unused >> unused) as i64
        }
    }

    /// Writes its value into `bytes`, which begin at byte `start` of the string and are enough.
    fn write(self, value: i64, bytes: &mut [u8], start: usize) {
        for i in 0..self.width as usize {
            let bit = value >> (self.width as usize - 1 - i) & 1;
            let at = self.offset + i;
            let byte = &mut bytes[at / 8 - start];
            let mask = 0x80 >> (at % 8);
            *byte = if bit == 1 { *byte | mask } else { *byte & !mask };
        }
    }

    /// What becomes of a value that may not fit; none when it must not be written.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (least, most) = if self.signed {
            (-(1i128 << (self.width - 1)), (1i128 << (self.width - 1)) - 1)
        } else {
            (0, (1i128 << self.width) - 1)
        };
        let unused = 64 - self.width;
        match overflow {
            _ if (least..=most).contains(&value) => Some(value as i64),
            Overflow::Fail => None,
            Overflow::Saturate => Some(value.clamp(least, most) as i64),
            Overflow::Wrap if self.signed => Some((value as i64) << unused >> unused),
            Overflow::Wrap => Some(((value as u64) << unused >> unused) as i64),
        }
    }
}

/// The operations; the error that says why they are none.
fn parse(args: Args<'_>) -> Result<Vec<Operation>, &'static str> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut at = 2;
    while at < args.len() {
        let left = args.len() - at - 1;
        let is = |name: &str| args.get(at).eq_ignore_ascii_case(name.as_bytes());
        if is("OVERFLOW") && left >= 1 {
            let word = args.get(at + 1);
            overflow = match () {
                () if word.eq_ignore_ascii_case(b"WRAP") => Overflow::Wrap,
                () if word.eq_ignore_ascii_case(b"SAT") => Overflow::Saturate,
                () if word.eq_ignore_ascii_case(b"FAIL") => Overflow::Fail,
                () => return Err(BAD_OVERFLOW),
            };
            at += 2;
            continue;
        }
        let (reads, adds) = (is("GET"), is("INCRBY"));
        if !(reads && left >= 2 || (adds || is("SET")) && left >= 3) {
            return Err(errors::SYNTAX);
        }
        let field = Field::parse(args.get(at + 1), args.get(at + 2))?;
        let action = if reads {
            Action::Get
        } else {
            let n = parse_i64(args.get(at + 3)).ok_or(errors::NOT_AN_INTEGER)?;
            if adds { Action::Add(n) } else { Action::Set(n) }
        };
        operations.push(Operation { field, action, overflow });
        at += if reads { 3 } else { 4 };
    }
    Ok(operations)
}

/// Where the last byte ends that the operations may write; none when they write nothing.
pub(super) fn end_of_writes(args: Args<'_>) -> Option<usize> {
    let operations = parse(args).ok()?;
    let writes = operations.iter().filter(|o| !matches!(o.action, Action::Get));
    writes.map(|operation| operation.field.bytes().end).max()
}

/// The string while it is worked on.
trait Surface {
    fn read(&self, field: Field) -> i64;
    fn write(&mut self, field: Field, value: i64);
}

/// Runs an operation and writes its reply.
fn run(operation: Operation, surface: &mut impl Surface, replies: &mut impl FnMut(Option<i64>)) {
    let Operation { field, action, overflow } = operation;
    let old = surface.read(field);
    let (new, shows_new) = match action {
        Action::Get => return replies(Some(old)),
        Action::Set(n) if field.signed => (i128::from(n), false),
        // A negative number is one of 64 bits, and so too great for any field without a sign.
        Action::Set(n) => (i128::from(n as u64), false),
        Action::Add(n) => (i128::from(old) + i128::from(n), true),
    };
    match field.fit(new, overflow) {
        Some(new) => {
            if new != old {
                surface.write(field, new);
            }
            replies(Some(if shows_new { new } else { old }));
        }
        None => replies(None),
    }
}

/// A piece of the string, copied.
struct Window {
    start: usize,
    bytes: Vec<u8>,
    changed: bool,
}

impl Surface for Window {
    fn read(&self, field: Field) -> i64 {
        field.read(&self.bytes, self.start)
    }

    fn write(&mut self, field: Field, value: i64) {
        field.write(value, &mut self.bytes, self.start);
        self.changed = true;
    }
}

impl Window {
    /// Those bytes of a value, with zeros behind its end.
    fn of(value: &[u8], bytes: &core::ops::Range<usize>) -> Self {
        let here = bytes.start.min(value.len())..bytes.end.min(value.len());
        let mut copy = value[here].to_vec();
        copy.resize(bytes.len(), 0);
        Self { start: bytes.start, bytes: copy, changed: false }
    }
}

fn bitfield(x: &mut Exec<'_>, args: Args<'_>, may_write: bool, out: &mut Vec<u8>) {
    let operations = match parse(args) {
        Ok(operations) => operations,
        Err(text) => return reply::error(out, text),
    };
    let touched = |writes: bool| {
        let of = operations.iter().filter(move |o| !writes || !matches!(o.action, Action::Get));
        let bytes = of.map(|operation| operation.field.bytes());
        bytes.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
    };
    let written = touched(true);
    if written.is_some() && !may_write {
        return reply::error(out, READ_ONLY);
    }
    // An end behind the greatest string there may be is one that the first operation's offset did not show.
    if written.as_ref().is_some_and(|written| written.end > VALUE_BYTES_MAX) {
        return reply::error(out, errors::TOO_LONG);
    }
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let start = out.len();
    let proto = x.proto;
    let answer = |out: &mut Vec<u8>, n: Option<i64>| match n {
        Some(n) => reply::integer(out, n),
        None => reply::null(out, proto),
    };
    let Some(written) = written else {
        let value = record::read(x, place, key).map_or(&b""[..], |entry| entry.value);
        reply::array(out, operations.len());
        for Operation { field, .. } in &operations {
            answer(out, Some(field.read(value, 0)));
        }
        return;
    };
    let value = record::peek(x, place, key).map_or(&b""[..], |entry| entry.value);
    let before = value.len();
    reply::array(out, operations.len());
    let all = touched(false).unwrap_or(written.clone());
    if all.len() <= WINDOW_BYTES_MAX {
        let mut window = Window::of(value, &all);
        for operation in &operations {
            run(*operation, &mut window, &mut |n| answer(out, n));
        }
        // A string becomes as long as the operations reach, also when none of them writes in the end.
        if window.changed || written.end > before {
            let part = &window.bytes[written.start - all.start..written.end - all.start];
            store(x, place, key, written.start, part, start, out);
        }
        return;
    }
    if written.end > before && !store(x, place, key, written.end - 1, &[0], start, out) {
        return;
    }
    for operation in &operations {
        let bytes = operation.field.bytes();
        let value = record::peek(x, place, key).map_or(&b""[..], |entry| entry.value);
        let mut window = Window::of(value, &bytes);
        run(*operation, &mut window, &mut |n| answer(out, n));
        if window.changed && !store(x, place, key, bytes.start, &window.bytes, start, out) {
            return;
        }
    }
}

/// Writes what was changed. Otherwise the refusal is the whole reply, which began at `start`.
fn store(
    x: &mut Exec<'_>,
    place: dkv_table::Place,
    key: &[u8],
    offset: usize,
    bytes: &[u8],
    start: usize,
    out: &mut Vec<u8>,
) -> bool {
    let mut refusal = Vec::new();
    let stored = record::patch(x, place, key, offset, bytes, &mut refusal).is_some();
    if !stored {
        out.truncate(start);
        out.extend_from_slice(&refusal);
    }
    stored
}
