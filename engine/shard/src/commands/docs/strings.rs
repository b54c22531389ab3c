//! Strings, their bits, and numbers.

use super::{Arg, Doc, Kind, arg, block, doc, integer, key, one_of, string, unix_time, word};

const KEY: Arg = key("key", 0);
const VALUE: Arg = string("value");
const PAIRS: &[Arg] = &[block("key_value", &[KEY, VALUE]).multiple()];
const SLICE: &[Arg] = &[KEY, integer("start"), integer("end")];
const OFFSET: Arg = integer("offset");
const ENCODING: Arg = string("encoding");
const GET: Arg = block("encoding_offset", &[ENCODING, OFFSET]).token("GET");
const UNIT: Arg =
    one_of("index_unit", &[word("byte", "BYTE"), word("bit", "BIT")]).since("7.0.0").optional();
const UNIT_HISTORY: &[(&str, &str)] = &[("7.0.0", "The unit: `BYTE` or `BIT`.")];
const PER_OPERATION: &str = "O(1) for each operation";

pub(super) const DOCS: &[Doc] = &[
    doc("get", "O(1)", &[KEY]),
    doc(
        "set",
        "O(1)",
        &[
            KEY,
            VALUE,
            one_of("condition", &[word("nx", "NX"), word("xx", "XX")]).since("2.6.12").optional(),
            word("get", "GET").since("6.2.0").optional(),
            one_of(
                "expiration",
                &[
                    integer("seconds").token("EX").since("2.6.12"),
                    integer("milliseconds").token("PX").since("2.6.12"),
                    unix_time("unix-time-seconds").token("EXAT").since("6.2.0"),
                    unix_time("unix-time-milliseconds").token("PXAT").since("6.2.0"),
                    word("keepttl", "KEEPTTL").since("6.0.0"),
                ],
            )
            .optional(),
        ],
    )
    .history(&[
        ("2.6.12", "`EX`, `PX`, `NX` and `XX`."),
        ("6.0.0", "`KEEPTTL`."),
        ("6.2.0", "`GET`, `EXAT` and `PXAT`."),
        ("7.0.0", "`NX` and `GET` go together."),
    ]),
    doc("getdel", "O(1)", &[KEY]),
    doc(
        "getex",
        "O(1)",
        &[
            KEY,
            one_of(
                "expiration",
                &[
                    integer("seconds").token("EX"),
                    integer("milliseconds").token("PX"),
                    unix_time("unix-time-seconds").token("EXAT"),
                    unix_time("unix-time-milliseconds").token("PXAT"),
                    word("persist", "PERSIST"),
                ],
            )
            .optional(),
        ],
    ),
    doc("mget", "O(N) for N keys", &[KEY.multiple()]),
    doc("mset", "O(N) for N keys", PAIRS),
    doc("msetnx", "O(N) for N keys", PAIRS),
    doc("append", "O(N) for N bytes that are appended", &[KEY, VALUE]),
    doc("strlen", "O(1)", &[KEY]),
    doc("dkv.getv", "O(1)", &[KEY]),
    doc("getset", "O(1)", &[KEY, VALUE]).deprecated("6.2.0", "`SET` with the argument `GET`"),
    doc("setnx", "O(1)", &[KEY, VALUE]),
    doc("setex", "O(1)", &[KEY, integer("seconds"), VALUE]),
    doc("psetex", "O(1)", &[KEY, integer("milliseconds"), VALUE]),
    doc("getrange", "O(N) for N bytes of the reply", SLICE),
    doc("substr", "O(N) for N bytes of the reply", SLICE).deprecated("2.0.0", "`GETRANGE`"),
    doc("setrange", "O(N) for the N bytes of the value as it becomes", &[KEY, OFFSET, VALUE]),
    doc(
        "lcs",
        "O(N*M) for values of N and M bytes",
        &[
            key("key1", 0),
            key("key2", 0),
            word("len", "LEN").optional(),
            word("idx", "IDX").optional(),
            integer("len").token("MINMATCHLEN").optional(),
            word("withmatchlen", "WITHMATCHLEN").optional(),
        ],
    ),
    doc("incr", "O(1)", &[KEY]),
    doc("decr", "O(1)", &[KEY]),
    doc("incrby", "O(1)", &[KEY, integer("increment")]),
    doc("decrby", "O(1)", &[KEY, integer("decrement")]),
    doc("incrbyfloat", "O(1)", &[KEY, arg("increment", Kind::Double)]),
    doc("setbit", "O(1)", &[KEY, OFFSET, integer("value")]),
    doc("getbit", "O(1)", &[KEY, OFFSET]),
    doc(
        "bitcount",
        "O(N) for N bytes that are looked at",
        &[KEY, block("index", &[integer("start"), integer("end"), UNIT]).optional()],
    )
    .history(UNIT_HISTORY),
    doc(
        "bitpos",
        "O(N) for N bytes that are looked at",
        &[
            KEY,
            integer("bit"),
            block(
                "index",
                &[integer("start"), block("end_index", &[integer("end"), UNIT]).optional()],
            )
            .optional(),
        ],
    )
    .history(UNIT_HISTORY),
    doc(
        "bitop",
        "O(N) for the bytes of all values",
        &[string("operation"), key("destkey", 0), key("key", 1).multiple()],
    ),
    doc(
        "bitfield",
        PER_OPERATION,
        &[
            KEY,
            one_of(
                "operation",
                &[
                    GET,
                    block(
                        "write",
                        &[
                            one_of(
                                "wrap_sat_fail",
                                &[word("wrap", "WRAP"), word("sat", "SAT"), word("fail", "FAIL")],
                            )
                            .token("OVERFLOW")
                            .optional(),
                            one_of(
                                "write_operation",
                                &[
                                    block(
                                        "encoding_offset_value",
                                        &[ENCODING, OFFSET, integer("value")],
                                    )
                                    .token("SET"),
                                    block(
                                        "encoding_offset_increment",
                                        &[ENCODING, OFFSET, integer("increment")],
                                    )
                                    .token("INCRBY"),
                                ],
                            ),
                        ],
                    ),
                ],
            )
            .optional()
            .multiple(),
        ],
    ),
    doc("bitfield_ro", PER_OPERATION, &[KEY, GET.optional().each_with_token()]),
];
