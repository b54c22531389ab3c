//! Commands that nobody means well with: each has its answer, and each cut after any byte: what was cut has no effect, holds
//! nothing and stops nobody.

use dkv_tests::bare::command;
use dkv_tests::machine::{Machine, Network, PATIENCE, until};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It is closed by the node.
    Closed,
    /// It goes on.
    Open,
}

/// What is sent on a fresh connection, and all that comes back.
struct Row {
    sent: Vec<u8>,
    answered: String,
    then: Then,
}

/// Bytes by hand.
fn raw(sent: impl AsRef<[u8]>, answered: &str, then: Then) -> Row {
    let line = |text: &str| if text.is_empty() { String::new() } else { format!("{text}\r\n") };
    Row { sent: sent.as_ref().to_vec(), answered: line(answered), then }
}

/// A protocol error.
fn broken(sent: impl AsRef<[u8]>, what: &str) -> Row {
    raw(sent, &format!("-ERR Protocol error: {what}"), Then::Closed)
}

/// Commands, each as its arguments, and the reply to each.
fn say(pairs: &[(&[&[u8]], &str)]) -> Row {
    let mut row = raw("", "", Then::Open);
    for (args, reply) in pairs {
        command(&mut row.sent, args);
        row.answered.push_str(reply);
        row.answered.push_str("\r\n");
    }
    row
}

const MARK: &[u8] = b"*2\r\n$4\r\nECHO\r\n$10\r\nstill-here\r\n";
const MARKED: &[u8] = b"$10\r\nstill-here\r\n";

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream.set_nodelay(true).expect("settable");
    stream
}

/// Everything until the other side closes.
fn to_the_end(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        // What was not read before the close makes a reset of it.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("left open after {:?}: {e}", String::from_utf8_lossy(&all)),
    }
    all
}

/// Sends it all and gives what came back.
fn exchange(port: u16, row: &Row) -> Vec<u8> {
    let mut stream = connect(port);
    // The node may have heard enough before it has heard all.
    let _ = stream.write_all(&row.sent);
    if row.then == Then::Closed {
        return to_the_end(stream);
    }
    stream.write_all(MARK).expect("the connection goes on");
    let mut all = Vec::new();
    let mut buffer = vec![0; 65536];
    while !all.ends_with(MARKED) {
        let read = stream.read(&mut buffer).expect("a reply in time");
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..read]);
    }
    all.truncate(all.len() - MARKED.len());
    all
}

fn start_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(170)]).into_owned()
}

/// Tries each row whole, then cut after each byte (after some sixty, if it is long): nothing comes back but a beginning of
/// what comes back for all of it, and the node closes when the client has.
fn tried(port: u16, rows: &[Row]) -> usize {
    let mut wrong = Vec::new();
    for row in rows {
        let got = exchange(port, row);
        if got != row.answered.as_bytes() {
            let (sent, wanted) = (start_of(&row.sent), start_of(row.answered.as_bytes()));
            wrong.push(format!("{sent:?}: wanted {wanted:?}, got {:?}", start_of(&got)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut cuts = 0;
    for row in rows {
        let every = if row.sent.len() <= 600 { 1 } else { row.sent.len() / 60 };
        for cut in (0..row.sent.len()).step_by(every) {
            let mut stream = connect(port);
            let _ = stream.write_all(&row.sent[..cut]);
            let _ = stream.shutdown(Shutdown::Write);
            let got = to_the_end(stream);
            let part = row.answered.as_bytes().starts_with(&got)
                && (got.is_empty() || got.ends_with(b"\r\n"));
            assert!(part, "{:?} cut at {cut}: {:?}", start_of(&row.sent), start_of(&got));
            cuts += 1;
        }
    }
    cuts
}

/// Nothing was left behind, and the store is whole.
fn unharmed(machine: &Machine, auth: &[&str]) {
    until("no connection is left", || {
        let info = machine.redis("127.0.0.1", 7861, &[auth, &["info", "clients"]].concat());
        info.lines().any(|line| line.trim_end() == "connected_clients:1")
    });
    assert_eq!(machine.redis("127.0.0.1", 7862, &[auth, &["set", "alive", "yes"]].concat()), "OK");
    assert_eq!(machine.redis("127.0.0.1", 7861, &[auth, &["get", "alive"]].concat()), "yes");
    assert_eq!(machine.pids("node").len(), 2);
}

const MAX: &[u8] = b"9223372036854775807";
const MIN: &[u8] = b"-9223372036854775808";

#[test]
fn every_bad_input_has_its_answer_and_may_be_cut_anywhere() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let before: Vec<u32> = machine.pids("node");
    let long = vec![b'x'; 64 * 1024 + 1];
    let digits = vec![b'1'; 64 * 1024 + 1];
    let stars = b"a*".repeat(30);
    let pattern = vec![b'*'; 1 << 20];
    let fifty = [b'a'; 50];
    let zero_byte: &[u8] = b"a\0b";
    let bad_counts = "invalid multibulk length";
    let rows = [
        broken("*1000000000000\r\n", bad_counts),
        broken("*abc\r\n", bad_counts),
        broken("*1048577\r\n", bad_counts),
        broken("*1\r\n$-5\r\n", "invalid bulk length"),
        broken("*1\r\n$536870913\r\n", "invalid bulk length"),
        broken("*1\r\n$18446744073709551616\r\n", "invalid bulk length"),
        broken("*1\r\nxPING\r\n", "expected '$', got 'x'"),
        broken(&long, "too big inline request"),
        broken([b"*", &digits[..]].concat(), "too big mbulk count string"),
        broken([b"*1\r\n$", &digits[..]].concat(), "too big bulk count string"),
        broken("SET a \"b\r\n", "unbalanced quotes in request"),
        raw("*0\r\n*-1\r\n\r\n", "", Then::Open),
        raw("POST / HTTP/1.1\r\nHost: evil\r\n\r\nSET stolen 1\r\n", "", Then::Closed),
        raw("Host: evil\r\n", "", Then::Closed),
        raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "", Then::Closed),
        say(&[(&[b"HELLO", b"4"], "-NOPROTO unsupported protocol version")]),
        say(&[(&[b"HELLO", b"3", b"auth", b"u"], "-ERR Syntax error in HELLO option 'auth'")]),
        say(&[(
            &[b"AUTH", b"nobody", b"x"],
            "-WRONGPASS invalid username-password pair or user is disabled.",
        )]),
        say(&[
            (&[b"SET", b"top", MAX], "+OK"),
            (&[b"INCR", b"top"], "-ERR increment or decrement would overflow"),
            (&[b"GET", b"top"], "$19\r\n9223372036854775807"),
        ]),
        say(&[(&[b"DECRBY", b"low", MIN], "-ERR decrement would overflow")]),
        say(&[(&[b"INCRBY", b"low", b"9223372036854775808"], NOT_AN_INTEGER)]),
        say(&[(&[b"INCRBYFLOAT", b"low", b"nan"], "-ERR value is not a valid float")]),
        say(&[(&[b"SETRANGE", b"far", b"536870912", b"x"], TOO_LONG)]),
        say(&[(&[b"SETRANGE", b"far", MAX, b"x"], TOO_LONG)]),
        say(&[(&[b"SETRANGE", b"far", b"-1", b"x"], "-ERR offset is out of range")]),
        say(&[
            (&[b"SETRANGE", b"full", b"536870911", b"x"], ":536870912"),
            (&[b"APPEND", b"full", b"x"], TOO_LONG),
            (&[b"STRLEN", b"full"], ":536870912"),
            (&[b"DEL", b"full"], ":1"),
        ]),
        say(&[(&[b"SETBIT", b"bit", b"4294967296", b"1"], BIT_OFFSET)]),
        say(&[(&[b"BITFIELD", b"bit", b"SET", b"u64", b"0", b"1"], BITFIELD_TYPE)]),
        say(&[
            (&[b"SET", b"lives", b"1"], "+OK"),
            (&[b"EXPIRE", b"lives", MAX], "-ERR invalid expire time in 'expire' command"),
            (&[b"PEXPIREAT", b"lives", MAX, b"XX"], ":0"),
            (&[b"TTL", b"lives"], ":-1"),
            (&[b"SET", b"lives", b"v", b"PX", b"0"], "-ERR invalid expire time in 'set' command"),
            (&[b"SET", b"lives", b"v", b"PX", b"-1"], "-ERR invalid expire time in 'set' command"),
            (&[b"SET", b"lives", b"v", b"EX", MAX], "-ERR invalid expire time in 'set' command"),
            (&[b"GETEX", b"lives", b"EX", b"0"], "-ERR invalid expire time in 'getex' command"),
            (&[b"GET", b"lives"], "$1\r\n1"),
        ]),
        say(&[
            (&[b"SET", &fifty, b"1"], "+OK"),
            (&[b"KEYS", &[&stars[..], b"b"].concat()], "*0"),
            (&[b"KEYS", &pattern], PATTERN_TOO_LONG),
            (&[b"SCAN", b"0", b"MATCH", &pattern], PATTERN_TOO_LONG),
            (&[b"DEL", &fifty], ":1"),
        ]),
        say(&[(&[b"SCAN", b"99999999999999999999"], "-ERR invalid cursor")]),
        say(&[
            // A cut may have left the key of an earlier try.
            (&[b"FLUSHALL"], "+OK"),
            (&[b"MSETNX", b"twice", b"1", b"twice", b"2"], ":1"),
            (&[b"GET", b"twice"], "$1\r\n2"),
            (&[b"DEL", b"twice"], ":1"),
        ]),
        say(&[(&[b"MSET", b"a", b"1", b"b"], "-ERR wrong number of arguments for 'mset' command")]),
        say(&[(
            &[b"COMMAND", b"GETKEYS", b"MSET", b"a"],
            "-ERR Invalid number of arguments specified for command",
        )]),
        say(&[(&[b"COMMAND", b"GETKEYS", b"\xff"], "-ERR Invalid command specified")]),
        say(&[(
            &[b"CLIENT", b"SETNAME", b"a\nb"],
            "-ERR Client names cannot contain spaces, newlines or special characters.",
        )]),
        say(&[
            (&[b"SET", zero_byte, b""], "+OK"),
            (&[b"STRLEN", zero_byte], ":0"),
            (&[b"EXISTS", b"a"], ":0"),
            (&[b"SET", b"", b"nameless"], "+OK"),
            (&[b"GET", b""], "$8\r\nnameless"),
            (&[b"DEL", b"", zero_byte], ":2"),
        ]),
        say(&[
            (&[b"MULTI"], "+OK"),
            (&[b"NOSUCH"], "-ERR unknown command 'NOSUCH', with args beginning with: "),
            (&[b"EXEC"], "-EXECABORT Transaction discarded because of previous errors."),
        ]),
        say(&[(&[b"RESTORE", b"x", b"0", b"\xff\xff\xff"], BAD_DUMP)]),
        say(&[(&[b"RESTORE", b"x", MAX, b""], BAD_DUMP)]),
        say(&[(&[b"GETRANGE", b"none", MIN, MAX], "$0\r\n")]),
    ];
    let cuts = machine.inside(|| tried(7861, &rows));
    assert!(rows.len() >= 40 && cuts > 2000, "{} rows, {cuts} cuts", rows.len());
    // Nothing of what was cut, or of what a browser sent, has happened.
    assert_eq!(machine.redis("127.0.0.1", 7861, &["exists", "stolen", "far", "low", "bit"]), "0");
    unharmed(&machine, &[]);
    assert_eq!(machine.pids("node"), before, "a node was started anew");
}

const NOT_AN_INTEGER: &str = "-ERR value is not an integer or out of range";
const TOO_LONG: &str = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
const BIT_OFFSET: &str = "-ERR bit offset is not an integer or out of range";
const BITFIELD_TYPE: &str = "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";
const PATTERN_TOO_LONG: &str = "-ERR pattern too long: at most 1024 bytes";
const BAD_DUMP: &str = "-ERR DUMP payload version or checksum are wrong";

#[test]
fn a_transaction_without_an_end_is_refused_at_its_bound() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let refused = machine.inside(|| {
        let mut stream = connect(7861);
        let mut bytes = Vec::new();
        command(&mut bytes, &[b"MULTI"]);
        for _ in 0..65_537 {
            command(&mut bytes, &[b"GET", b"k"]);
        }
        command(&mut bytes, &[b"EXEC"]);
        let mut reading = stream.try_clone().expect("a second handle");
        let mut all = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(move || stream.write_all(&bytes).expect("taken"));
            let mut buffer = vec![0; 65536];
            while !all.windows(10).rev().take(200).any(|word| word == b"-EXECABORT") {
                let read = reading.read(&mut buffer).expect("a reply in time");
                assert!(read > 0, "closed");
                all.extend_from_slice(&buffer[..read]);
            }
        });
        let text = String::from_utf8_lossy(&all).into_owned();
        (text.matches("+QUEUED").count(), text.matches("-ERR ").count())
    });
    assert_eq!(refused, (65_536, 1));
    unharmed(&machine, &[]);
}

#[test]
fn before_the_password_little_is_read_and_little_is_answered() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    machine.dkv("connect -m 127.0.0.1:7801").ok();
    let password = machine.file("password", "a secret\n");
    machine
        .dkv(&format!(
            "store create Locked --instance-prefix node --instance-count 2 --password-file {}",
            password.display()
        ))
        .ok();
    machine.dkv("store start Locked").ok();
    let auth = ["--no-auth-warning", "-a", "a secret"];
    until("the store is whole", || {
        let args = [&["-p", "7861"], &auth[..], &["cluster", "info"]].concat();
        machine.run("redis-cli", &args).out.starts_with("cluster_state:ok")
    });
    let no_auth = "-NOAUTH Authentication required.";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    let aborted = "-EXECABORT Transaction discarded because of: NOAUTH Authentication required.";
    let rows = [
        broken("*11\r\n", "unauthenticated multibulk length"),
        broken("*2\r\n$16385\r\n", "unauthenticated bulk length"),
        say(&[(&[b"GET", b"x"], no_auth), (&[b"CONFIG", b"GET", b"*"], no_auth)]),
        say(&[(&[b"AUTH", b"wrong"], wrong), (&[b"AUTH", b"nobody", b"a secret"], wrong)]),
        say(&[(&[b"HELLO", b"3", b"AUTH", b"default", b""], wrong)]),
        say(&[(&[b"MULTI"], no_auth), (&[b"EXEC"], aborted)]),
        say(&[(&[b"AUTH", b"a secret"], "+OK"), (&[b"EXISTS", b"x"], ":0")]),
        broken("SET a \"b\r\n", "unbalanced quotes in request"),
        raw("POST / HTTP/1.1\r\n", "", Then::Closed),
    ];
    // The marker at the end of an open row is answered like anything else that is not AUTH.
    let (open, closed): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| row.then == Then::Open);
    let cuts = machine.inside(|| {
        for row in &open {
            let mut stream = connect(7861);
            stream.write_all(&row.sent).expect("taken");
            stream.shutdown(Shutdown::Write).expect("open until now");
            assert_eq!(String::from_utf8_lossy(&to_the_end(stream)), row.answered);
        }
        tried(7861, &closed)
    });
    assert!(cuts > 30, "{cuts}");
    // Who sends and never reads is closed after a kilobyte that nobody takes, whatever the kernel holds besides.
    machine.inside(|| {
        let mut stream = connect(7861);
        stream.set_write_timeout(Some(PATIENCE)).expect("settable");
        let mut gets = Vec::new();
        for _ in 0..10_000 {
            command(&mut gets, &[b"GET", b"x"]);
        }
        let closed = (0..2000).any(|_| stream.write_all(&gets).is_err());
        assert!(closed, "gigabytes were taken from a stranger");
    });
    unharmed(&machine, &auth);
    // One who says nothing is closed.
    machine.inside(|| assert!(to_the_end(connect(7861)).is_empty()));
    unharmed(&machine, &auth);
}
