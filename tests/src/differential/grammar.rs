//! What is asked: a table of commands, each a small grammar of its arguments. Whoever adds a command to the server adds a line
//! here.

/// A part of a command.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A key; all keys of a command are of one slot, unless the command is in [`Command::anywhere`].
    Key,
    /// Any bytes, mostly short; sometimes a number.
    Value,
    /// A whole number, mostly small, also one that is none.
    Integer,
    /// As [`Self::Integer`], and never close to the least one: there Redis 7.0 subtracts beyond its range when it saturates
    /// (`BITFIELD OVERFLOW SAT SET`), takes the greatest value of the field for the nearest one, and goes on from it.
    Fitting,
    /// A number with a fraction, in one of the forms of C.
    Float,
    /// A bit's or a byte's position, mostly below a few hundred.
    Offset,
    /// Seconds or milliseconds that do not end while the run lasts, or have ended long ago.
    Span,
    /// A moment of calendar time, far from now.
    Moment,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// One of these sequences.
    OneOf(&'static [&'static [Arg]]),
    /// This sequence or nothing.
    Maybe(&'static [Arg]),
    /// This sequence, once to so many times.
    Many(&'static [Arg], usize),
}

/// How two replies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Byte for byte.
    Exactly,
    /// Whole numbers may be so far apart: time passes between the two servers.
    Within(i64),
    /// The elements of an array, in any order.
    AnyOrder,
    /// Only what kind of reply it is: the contents are each server's own.
    Kind,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its name and, of containers, its subcommand.
    pub words: &'static [&'static str],
    /// How often it comes, against the others.
    pub weight: u32,
    /// Its arguments.
    pub args: &'static [Arg],
    /// How its replies are compared.
    pub compare: Compare,
    /// Whether its keys may be of several slots.
    pub anywhere: bool,
}

const fn plain(words: &'static [&'static str], weight: u32, args: &'static [Arg]) -> Command {
    Command { words, weight, args, compare: Compare::Exactly, anywhere: false }
}

const fn within(words: &'static [&'static str], far: i64, args: &'static [Arg]) -> Command {
    Command { compare: Compare::Within(far), ..plain(words, 2, args) }
}

const fn kind(words: &'static [&'static str], args: &'static [Arg]) -> Command {
    Command { compare: Compare::Kind, ..plain(words, 1, args) }
}

const fn anywhere(words: &'static [&'static str], weight: u32, args: &'static [Arg]) -> Command {
    Command { anywhere: true, ..plain(words, weight, args) }
}

use Arg::{Fitting, Float, Integer, Key, Many, Maybe, Moment, Offset, OneOf, Span, Value, Word};

const KEYS: &[Arg] = &[Many(&[Key], 4)];
const EXPIRY: &[Arg] = &[OneOf(&[
    &[Word(&["EX", "PX"]), Span],
    &[Word(&["EXAT", "PXAT"]), Moment],
    &[Word(&["KEEPTTL", "PERSIST"])],
])];
const CONDITION: Arg = Maybe(&[Word(&["NX", "XX", "GT", "LT"])]);
const FIELD: &[Arg] = &[OneOf(&[
    &[Word(&["GET"]), KIND, Offset],
    &[Word(&["SET"]), KIND, Offset, Fitting],
    &[Word(&["INCRBY"]), KIND, Offset, Integer],
    &[Word(&["OVERFLOW"]), Word(&["WRAP", "SAT", "FAIL", "FALL"])],
])];
const KIND: Arg = Word(&[
    "u8", "i8", "u1", "i1", "u16", "i16", "i64", "u63", "u64", "i65", "u0", "i13", "u7", "x8",
]);
const UNIT: Arg = Maybe(&[Word(&["BIT", "BYTE", "BITE"])]);

/// All commands.
pub static COMMANDS: &[Command] = &[
    plain(&["GET"], 12, &[Key]),
    plain(
        &["SET"],
        12,
        &[Key, Value, Maybe(&[Word(&["NX", "XX"])]), Maybe(&[Word(&["GET"])]), Maybe(EXPIRY)],
    ),
    plain(&["SET"], 2, &[Key, Integer]),
    plain(&["SET"], 2, &[Key, Float]),
    plain(&["GETSET"], 3, &[Key, Value]),
    plain(&["SETNX"], 3, &[Key, Value]),
    plain(&["SETEX"], 2, &[Key, Span, Value]),
    plain(&["PSETEX"], 2, &[Key, Span, Value]),
    plain(&["GETDEL"], 2, &[Key]),
    plain(&["GETEX"], 3, &[Key, Maybe(EXPIRY)]),
    plain(&["MSETNX"], 3, &[Many(&[Key, Value], 3)]),
    anywhere(&["MSET"], 3, &[Many(&[Key, Value], 4)]),
    anywhere(&["MGET"], 3, KEYS),
    plain(&["APPEND"], 4, &[Key, Value]),
    plain(&["STRLEN"], 3, &[Key]),
    plain(&["GETRANGE"], 4, &[Key, Integer, Integer]),
    plain(&["SUBSTR"], 1, &[Key, Integer, Integer]),
    plain(&["SETRANGE"], 5, &[Key, Offset, Value]),
    plain(
        &["LCS"],
        3,
        &[
            Key,
            Key,
            Maybe(&[Word(&["IDX", "LEN"])]),
            Maybe(&[Word(&["MINMATCHLEN"]), Integer]),
            Maybe(&[Word(&["WITHMATCHLEN"])]),
        ],
    ),
    plain(&["INCR"], 3, &[Key]),
    plain(&["DECR"], 2, &[Key]),
    plain(&["INCRBY"], 3, &[Key, Integer]),
    plain(&["DECRBY"], 2, &[Key, Integer]),
    plain(&["INCRBYFLOAT"], 5, &[Key, Float]),
    plain(&["SETBIT"], 5, &[Key, Offset, Word(&["0", "1", "1", "2"])]),
    plain(&["GETBIT"], 3, &[Key, Offset]),
    plain(&["BITCOUNT"], 3, &[Key, Maybe(&[Integer, Integer, UNIT])]),
    plain(
        &["BITPOS"],
        4,
        &[Key, Word(&["0", "1", "0", "1", "2"]), Maybe(&[Integer, Maybe(&[Integer, UNIT])])],
    ),
    plain(
        &["BITOP"],
        4,
        &[Word(&["AND", "OR", "XOR", "NOT", "NAND"]), Key, Key, Maybe(&[Many(&[Key], 3)])],
    ),
    plain(&["BITFIELD"], 6, &[Key, Many(FIELD, 4)]),
    plain(&["BITFIELD_RO"], 2, &[Key, Many(FIELD, 2)]),
    plain(&["RENAME"], 3, &[Key, Key]),
    plain(&["RENAMENX"], 3, &[Key, Key]),
    plain(
        &["COPY"],
        3,
        &[Key, Key, Maybe(&[Word(&["DB"]), Word(&["0"])]), Maybe(&[Word(&["REPLACE"])])],
    ),
    Command { compare: Compare::Kind, ..plain(&["RANDOMKEY"], 1, &[]) },
    anywhere(&["DEL"], 3, KEYS),
    anywhere(&["UNLINK"], 1, KEYS),
    anywhere(&["EXISTS"], 2, KEYS),
    anywhere(&["TOUCH"], 1, KEYS),
    plain(&["TYPE"], 2, &[Key]),
    plain(&["EXPIRE"], 3, &[Key, Span, CONDITION, CONDITION]),
    plain(&["PEXPIRE"], 3, &[Key, Span, CONDITION]),
    plain(&["EXPIREAT"], 2, &[Key, Moment, CONDITION]),
    plain(&["PEXPIREAT"], 2, &[Key, Moment, CONDITION]),
    plain(&["PERSIST"], 2, &[Key]),
    within(&["TTL"], 5, &[Key]),
    within(&["PTTL"], 5_000, &[Key]),
    within(&["EXPIRETIME"], 5, &[Key]),
    within(&["PEXPIRETIME"], 5_000, &[Key]),
    plain(
        &["RESTORE"],
        3,
        &[
            Key,
            Word(&["0", "0", "300000000", "-1", "x"]),
            Word(PAYLOADS),
            Maybe(&[Word(&["REPLACE"])]),
            Maybe(&[Word(&["ABSTTL"])]),
        ],
    ),
    kind(&["DUMP"], &[Key]),
    kind(&["OBJECT", "ENCODING"], &[Key]),
    kind(&["OBJECT", "REFCOUNT"], &[Key]),
    plain(&["OBJECT", "FREQ"], 1, &[Key]),
    plain(&["OBJECT", "TELL"], 1, &[Key]),
    kind(&["MEMORY", "USAGE"], &[Key, Maybe(&[Word(&["SAMPLES"]), Integer])]),
    Command {
        compare: Compare::AnyOrder,
        ..plain(&["KEYS"], 1, &[Word(&["*", "{a}*", "{b}[0-3]*", "x"])])
    },
    // Redis counts keys that have ended until it comes across them.
    within(&["DBSIZE"], 5, &[]),
    plain(&["PING"], 1, &[Maybe(&[Value])]),
    plain(&["ECHO"], 1, &[Value]),
    kind(&["TIME"], &[]),
    plain(&["SELECT"], 1, &[Word(&["0", "99", "x"])]),
    plain(&["ROLE"], 1, &[]),
    plain(&["NOSUCHCOMMAND"], 1, &[Maybe(&[Value])]),
    plain(
        &["COMMAND", "GETKEYS"],
        1,
        &[OneOf(&[
            &[Word(&["GET"]), Key],
            &[Word(&["MSET"]), Key, Value, Key, Value],
            &[Word(&["BITOP"]), Word(&["AND"]), Key, Key],
            &[Word(&["OBJECT"]), Word(&["ENCODING"]), Key],
            &[Word(&["RENAME"]), Key, Key],
            &[Word(&["PING"])],
            &[Word(&["GET"])],
        ])],
    ),
];

/// What Redis 7.0.15 answers to DUMP, in hexadecimal: numbers, plain and compressed strings; and what is damaged.
pub static PAYLOADS: &[&str] = &[
    "00c0000a009840a778f8500308",
    "00c1d4fe0a00c6c48623febede2e",
    "00c2a08601000a00f12403506f2fa674",
    "000b39393939393939393939390a0023b048fb0edbef7f",
    "000d612073686f72742076616c75650a0066594ad6e247b6ae",
    "00c3093c016161e02f000161610a00a67e08b217d09780",
    "00c31240750361626361e04d020278797ae00d0201797a0a002001a423ae33d8eb",
    "000764606d616765640a0019d021e72f5c578b",
    "00c0",
];
