//! DUMP and RESTORE: strings in the format that Redis writes to disk, so that keys can be carried between the two.
//!
//! A payload is the kind of value (0, a string), the value, the version of the format and a CRC64 over all of it. What is
//! written is of version 10, without compression; what is read is of any version up to that of Redis 7.2, compressed or
//! not.

use super::number::parse_i64;
use super::{errors, expiry, record};
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::limits::VALUE_BYTES_MAX;
use dkv_protocol::resp::reply;
use dkv_table::Expiry;

const ONE_KEY: Spec = Spec {
    first_key: 1,
    last_key: 1,
    key_step: 1,
    scope: Scope::Keyed,
    since: "2.6.0",
    group: "generic",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "DUMP",
        long: true,
        arity: 2,
        flags: &["readonly"],
        categories: &["@keyspace", "@read", "@slow"],
        tips: &["nondeterministic_output"],
        key_flags: &["RO", "access"],
        handler: dump,
        summary: "Returns a serialized representation of the value stored at a key.",
        ..ONE_KEY
    },
    Spec {
        name: "RESTORE",
        long: true,
        arity: -4,
        flags: &["write", "denyoom"],
        categories: &["@keyspace", "@write", "@slow", "@dangerous"],
        key_flags: &["OW", "update"],
        write: true,
        handler: restore,
        summary: "Creates a key from the serialized representation of a string.",
        ..ONE_KEY
    },
];

/// The version of the format that is written, and the latest that is read.
const VERSION: u16 = 10;
const VERSION_MAX: u16 = 11;
const STRING: u8 = 0;
/// The version and the sum behind a value.
const FOOTER_BYTES: usize = 10;

const INVALID: &str = "ERR DUMP payload version or checksum are wrong";
const BAD_DATA: &str = "ERR Bad data format";
const NO_STRING: &str = "ERR this payload is not of a string: only strings can be restored here";

fn dump(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let Some(entry) = record::read(x, place, key) else { return reply::null(out, x.proto) };
    let payload = payload_of(entry.value);
    if payload.len() > VALUE_BYTES_MAX {
        return reply::error(out, errors::REPLY_TOO_LONG);
    }
    reply::bulk(out, &payload);
}

fn payload_of(value: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(value.len() + 16);
    payload.push(STRING);
    let small = if value.len() <= 11 { parse_i64(value) } else { None };
    if let Some(n) = small.and_then(|n| i32::try_from(n).ok()) {
        match (i8::try_from(n), i16::try_from(n)) {
            (Ok(n), _) => payload.extend([0xc0, n as u8]),
            (_, Ok(n)) => payload.extend([0xc1].into_iter().chain(n.to_le_bytes())),
            _ => payload.extend([0xc2].into_iter().chain(n.to_le_bytes())),
        }
    } else {
        write_length(value.len(), &mut payload);
        payload.extend_from_slice(value);
    }
    payload.extend(VERSION.to_le_bytes());
    let sum = crc64(&payload);
    payload.extend(sum.to_le_bytes());
    payload
}

fn write_length(len: usize, out: &mut Vec<u8>) {
    match len {
        0..0x40 => out.push(len as u8),
        0x40..0x4000 => out.extend((0x4000 | len as u16).to_be_bytes()),
        _ => out.extend([0x80].into_iter().chain((len as u32).to_be_bytes())),
    }
}

/// Reads from the start of what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A length, or the number of a special encoding.
    fn length(&mut self) -> Option<Result<usize, u8>> {
        let [first] = self.array()?;
        Some(Ok(match first >> 6 {
            0 => usize::from(first),
            1 => usize::from(first & 0x3f) << 8 | usize::from(self.array::<1>()?[0]),
            2 if first == 0x80 => u32::from_be_bytes(self.array()?) as usize,
            2 if first == 0x81 => usize::try_from(u64::from_be_bytes(self.array()?)).ok()?,
            2 => return None,
            _ => return Some(Err(first & 0x3f)),
        }))
    }
}

/// A value as it was read.
enum Value<'a> {
    Plain(&'a [u8]),
    Made(Vec<u8>),
}

fn number(n: i64) -> Value<'static> {
    Value::Made(itoa::Buffer::new().format(n).as_bytes().to_vec())
}

/// The value of a payload whose sum is right, or the error.
fn value_of(body: &[u8]) -> Result<Value<'_>, &'static str> {
    let mut reader = Reader(body);
    match reader.array() {
        Some([STRING]) => {}
        Some([1..=24]) => return Err(NO_STRING),
        _ => return Err(BAD_DATA),
    }
    // What follows the value is not looked at, as in Redis.
    string(&mut reader).ok_or(BAD_DATA)
}

fn string<'a>(reader: &mut Reader<'a>) -> Option<Value<'a>> {
    Some(match reader.length()? {
        Ok(len) => Value::Plain(reader.take(len)?),
        Err(0) => number(i8::from_le_bytes(reader.array()?).into()),
        Err(1) => number(i16::from_le_bytes(reader.array()?).into()),
        Err(2) => number(i32::from_le_bytes(reader.array()?).into()),
        Err(3) => {
            let (packed, len) = (reader.length()?.ok()?, reader.length()?.ok()?);
            Value::Made(unpack(reader.take(packed)?, len)?)
        }
        Err(_) => return None,
    })
}

/// LZF: runs of plain bytes (a count below 32, less one) and references to what was written (three bits of length, or seven
/// and a byte more, and thirteen of distance).
fn unpack(mut packed: &[u8], len: usize) -> Option<Vec<u8>> {
    // A reference of three bytes gives 264 at most: nobody gets more memory than that for what was sent.
    if len > VALUE_BYTES_MAX || len > packed.len().saturating_mul(264) {
        return None;
    }
    let mut out = Vec::new();
    out.try_reserve_exact(len).ok()?;
    while let Some((&control, rest)) = packed.split_first() {
        packed = rest;
        if control < 32 {
            let (plain, rest) = packed.split_at_checked(usize::from(control) + 1)?;
            out.extend_from_slice(plain);
            packed = rest;
        } else {
            let mut count = usize::from(control >> 5);
            if count == 7 {
                let (&more, rest) = packed.split_first()?;
                count += usize::from(more);
                packed = rest;
            }
            let (&low, rest) = packed.split_first()?;
            packed = rest;
            let back = (usize::from(control & 31) << 8 | usize::from(low)) + 1;
            let start = out.len().checked_sub(back)?;
            // It may reach into what it writes.
            for at in start..start + count + 2 {
                out.push(out[at]);
            }
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
}

/// How the key was used is understood and left aside: the table keeps that for itself.
fn options(args: Args<'_>) -> Result<Options, &'static str> {
    let mut found = Options::default();
    let (mut idle, mut frequency) = (false, false);
    let mut rest = args.iter_from(4);
    while let Some(word) = rest.next() {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("REPLACE") => found.replace = true,
            () if is("ABSTTL") => found.absolute = true,
            () if is("IDLETIME") && !frequency || is("FREQ") && !idle => {
                let n = parse_i64(rest.next().ok_or(errors::SYNTAX)?);
                let n = n.ok_or(errors::NOT_AN_INTEGER)?;
                if is("IDLETIME") {
                    idle = true;
                    if n < 0 {
                        return Err("ERR Invalid IDLETIME value, must be >= 0");
                    }
                } else {
                    frequency = true;
                    if !(0..=255).contains(&n) {
                        return Err("ERR Invalid FREQ value, must be >= 0 and <= 255");
                    }
                }
            }
            () => return Err(errors::SYNTAX),
        }
    }
    Ok(found)
}

fn restore(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let options = match options(args) {
        Ok(options) => options,
        Err(text) => return reply::error(out, text),
    };
    let (key, payload) = (args.get(1), args.get(3));
    let Some(place) = record::place(x, key, out) else { return };
    if !options.replace && record::peek(x, place, key).is_some() {
        return reply::error(out, "BUSYKEY Target key name already exists.");
    }
    let ttl = match parse_i64(args.get(2)) {
        None => return reply::error(out, errors::NOT_AN_INTEGER),
        Some(..0) => return reply::error(out, "ERR Invalid TTL value, must be >= 0"),
        Some(ttl) => ttl,
    };
    let value = match checked(payload).map(value_of) {
        None => return reply::error(out, INVALID),
        Some(Err(text)) => return reply::error(out, text),
        Some(Ok(value)) => value,
    };
    let from = if options.absolute { expiry::From::Epoch } else { expiry::From::Now };
    let expiry = match ttl {
        0 => Expiry::Clear,
        _ => match expiry::positive(x.now, args.get(2), expiry::Unit::Milliseconds, from) {
            Ok(expiry::Deadline::At(at)) => Expiry::At(at),
            Err(_) => return errors::invalid_expire_time(args.get(0), out),
            Ok(expiry::Deadline::Past) => {
                record::remove(x, place, key);
                return reply::ok(out);
            }
        },
    };
    let value = match &value {
        Value::Plain(bytes) => bytes,
        Value::Made(bytes) => &bytes[..],
    };
    if record::store(x, place, key, value, expiry, out) {
        reply::ok(out);
    }
}

/// What is before the version and the sum, if both are right. A sum of 0 is none, as in Redis.
fn checked(payload: &[u8]) -> Option<&[u8]> {
    let (body, footer) = payload.split_at_checked(payload.len().checked_sub(FOOTER_BYTES)?)?;
    let (version, sum) = footer.split_first_chunk::<2>()?;
    let sum = u64::from_le_bytes(sum.try_into().ok()?);
    let known = u16::from_le_bytes(*version) <= VERSION_MAX;
    (known && (sum == 0 || sum == crc64(&payload[..payload.len() - 8]))).then_some(body)
}

/// The polynomial of Jones, reflected.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// For each byte at each of eight places, what it does to the sum.
static TABLES: [[u64; 256]; 8] = {
    let mut tables = [[0u64; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut place = 1;
    while place < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[place - 1][byte];
            tables[place][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        place += 1;
    }
    tables
};

fn crc64(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0u64, |sum, word| {
        let all = (sum ^ u64::from_le_bytes(*word)).to_le_bytes();
        (0..8).fold(0, |sum, i| sum ^ TABLES[7 - i][usize::from(all[i])])
    });
    rest.iter().fold(sum, |sum, byte| sum >> 8 ^ TABLES[0][usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn the_sum_is_the_one_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn payloads_are_the_bytes_of_redis_and_read_back() {
        // As redis-server 7.0.15 dumps them.
        for (value, wanted) in [
            (&b"0"[..], &b"\x00\xc0\x00\n\x00\x98@\xa7x\xf8P\x03\x08"[..]),
            (b"", b"\x00\x00\n\x00]\x9b\\@\x0f\x7f\xa2\xda"),
            (b"-5", b"\x00\xc0\xfb\n\x00I\xc4\xc6\xf4\xd7&?h"),
            (b"300", b"\x00\xc1,\x01\n\x00\x95Ba\xf2e\x82\\\x10"),
            (b"100000", b"\x00\xc2\xa0\x86\x01\x00\n\x00\xf1$\x03Po/\xa6t"),
            (b"99999999999", b"\x00\x0b99999999999\n\x00#\xb0H\xfb\x0e\xdb\xef\x7f"),
            (b"-2147483648", b"\x00\xc2\x00\x00\x00\x80\n\x00\xc7O\x87>3U\x81\x87"),
            (b"01", b"\x00\x0201\n\x00l\xdd\xc4A\x14L}\xa4"),
        ] {
            assert_eq!(payload_of(value), wanted, "{}", value.escape_ascii());
            assert_eq!(read(wanted).as_deref(), Ok(value));
        }
        for len in [63, 64, 16383, 16384, 70000] {
            let value = vec![b'x'; len];
            assert_eq!(read(&payload_of(&value)), Ok(value));
        }
    }

    fn read(payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        Ok(match value_of(checked(payload).ok_or(INVALID)?)? {
            Value::Plain(bytes) => bytes.to_vec(),
            Value::Made(bytes) => bytes,
        })
    }

    #[test]
    fn compressed_values_are_read() {
        let short = b"\x00\xc3\x06\x15\x01aa\xe0\n\x00\n\x00\xfd\x0c\xb3h\x07A?h";
        assert_eq!(read(short), Ok(vec![b'a'; 21]));
        let longer = b"\x00\xc3\t@F\x01aa\xe09\x00\x01aa\n\x00\x84\xdeX\x89\xeb\x96\xba\xa3";
        assert_eq!(read(longer), Ok(vec![b'a'; 70]));
        assert_eq!(unpack(b"\x02abc\x20\x02", 6).as_deref(), Some(&b"abcabc"[..]));
        for bad in [&b"\x20\x00"[..], b"\x02ab", b"\x00a\xe0", b"\x00a\x20", b"\x00a\x20\x01"] {
            assert_eq!(unpack(bad, 4), None, "{bad:?}");
        }
        assert_eq!(unpack(b"\x00a", usize::MAX), None);
    }

    #[test]
    fn damaged_and_foreign_payloads_are_refused() {
        let whole = payload_of(b"a value");
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), Err(INVALID), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            assert_eq!(read(&changed), Err(INVALID), "changed at {at}");
        }
        let summed = |body: &[u8], version: u16| {
            let mut payload = body.to_vec();
            payload.extend(version.to_le_bytes());
            let sum = crc64(&payload);
            payload.extend(sum.to_le_bytes());
            payload
        };
        assert_eq!(read(&summed(b"\x00\x01a", 11)), Ok(b"a".to_vec()));
        assert_eq!(read(&summed(b"\x00\x01a", 12)), Err(INVALID));
        assert_eq!(read(&summed(b"\x01\x01\x01a", 10)), Err(NO_STRING));
        for bad in [
            &b""[..],
            b"\x00",
            b"\x00\x05ab",
            b"\x00\xc4",
            b"\x00\x82",
            b"\xff\x01a",
            b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(read(&summed(bad, 10)), Err(BAD_DATA), "{bad:?}");
        }
    }
}
