//! Tests of the client against a server that says what it is told to.

use super::*;
use dkv_protocol::resp::request::{Limits, Parsed, RequestParser};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

type Command = Vec<Vec<u8>>;

/// What the server does with a command.
enum Then {
    Reply(Vec<u8>),
    Close,
    Silence,
}

fn reply(bytes: &str) -> Then {
    Then::Reply(bytes.as_bytes().to_vec())
}

/// A server on a port of its own. `answer` is given the number of the connection, from 0, and each command but those of
/// the introduction, which succeed. Returns the endpoint and every command that came.
fn serve(
    answer: impl FnMut(usize, &Command) -> Then + Send + 'static,
) -> (String, mpsc::Receiver<Command>) {
    serve_with_hello("%1\r\n+server\r\n+dkv\r\n", answer)
}

fn serve_with_hello(
    hello: &'static str,
    mut answer: impl FnMut(usize, &Command) -> Then + Send + 'static,
) -> (String, mpsc::Receiver<Command>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (seen, commands) = mpsc::channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let (mut buf, mut piece) = (Vec::new(), [0; 4096]);
            let (mut parser, mut spans) = (RequestParser::default(), Vec::new());
            'connection: loop {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(len) => buf.extend_from_slice(&piece[..len]),
                }
                while let Ok(Parsed::Complete { consumed }) =
                    parser.parse(&buf, &Limits::AUTHENTICATED, &mut spans)
                {
                    let command: Command =
                        spans.iter().map(|&(s, e)| buf[s as usize..e as usize].to_vec()).collect();
                    buf.drain(..consumed);
                    let then = match command[0].as_slice() {
                        b"HELLO" => reply(hello),
                        b"CLIENT" => reply("-ERR unknown subcommand\r\n"),
                        _ => answer(number, &command),
                    };
                    // A test that has ended does not look any more.
                    drop(seen.send(command));
                    match then {
                        Then::Reply(bytes) => {
                            if stream.write_all(&bytes).is_err() {
                                break 'connection;
                            }
                        }
                        Then::Close => break 'connection,
                        Then::Silence => {}
                    }
                }
            }
        }
    });
    (endpoint, commands)
}

fn options(endpoints: &[&str]) -> Options {
    Options {
        endpoints: endpoints.iter().map(|&e| e.to_owned()).collect(),
        timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

fn client(answer: impl FnMut(usize, &Command) -> Then + Send + 'static) -> Client {
    Client::connect(options(&[&serve(answer).0])).unwrap()
}

/// A client whose every command is answered with `bytes`.
fn answered(bytes: &'static str) -> Client {
    client(move |_, _| reply(bytes))
}

/// A port on which nobody listens.
fn nobody() -> String {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().to_string()
}

fn words(command: &Command) -> String {
    let words: Vec<_> = command.iter().map(|w| String::from_utf8_lossy(w)).collect();
    words.join(" ")
}

#[test]
fn the_introduction_says_hello_with_the_password() {
    let (endpoint, seen) = serve(|_, _| Then::Silence);
    let with_password = Options { password: Some("pw".into()), ..options(&[&endpoint]) };
    Client::connect(with_password).unwrap();
    assert_eq!(words(&seen.recv().unwrap()), "HELLO 3 AUTH default pw");
    assert_eq!(words(&seen.recv().unwrap()), "CLIENT SETINFO LIB-NAME dkv-client");
    assert!(words(&seen.recv().unwrap()).starts_with("CLIENT SETINFO LIB-VER "));
    for (password, hello) in [(Some("pw"), "HELLO 3 AUTH bob pw"), (None, "HELLO 3 AUTH bob ")] {
        let (endpoint, seen) = serve(|_, _| Then::Silence);
        let (user, password) = (Some("bob".into()), password.map(str::to_owned));
        Client::connect(Options { user, password, ..options(&[&endpoint]) }).unwrap();
        assert_eq!(words(&seen.recv().unwrap()), hello);
    }
}

#[test]
fn a_user_that_may_not_ask_for_the_store_is_let_go_on() {
    let (endpoint, _seen) = serve(|_, command| {
        let may = !words(command).starts_with("INFO");
        reply(if may { "+OK\r\n" } else { "-NOPERM User bob has no permissions\r\n" })
    });
    let (store, user) = (Some("Orders".into()), Some("bob".into()));
    Client::connect(Options { user, store, ..options(&[&endpoint]) }).unwrap();
}

#[test]
fn a_refused_connection_says_so() {
    let endpoint = nobody();
    let error = Client::connect(options(&[&endpoint])).unwrap_err();
    assert!(matches!(&error, ClientError::Refused { endpoint: e } if *e == endpoint), "{error}");
    assert!(error.is_transport());
    let error = Client::connect(options(&[&endpoint, &endpoint])).unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { causes } if causes.len() == 2), "{error}");
}

#[test]
fn a_silent_server_is_named_when_time_is_out() {
    // It is never accepted: the kernel completes the connection, and nobody answers.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let options = Options { timeout: Duration::from_millis(50), ..options(&[&endpoint]) };
    let error = Client::connect(options).unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("within 50 ms"), "{error}");
}

#[test]
fn passwords_and_strangers_are_told_apart() {
    for (hello, expected) in [
        ("-NOAUTH HELLO must be called with the client already authenticated\r\n", "(NOAUTH)"),
        ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "(WRONGPASS)"),
        ("-NOPROTO unsupported protocol version\r\n", "not the client port"),
        ("-ERR unknown command 'HELLO', with args beginning with: '3' \r\n", "not the client port"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "not the client port"),
        ("+OK\r\n", "not the client port"),
        ("-DENIED Running in protected mode\r\n", "DENIED Running in protected mode"),
    ] {
        let (endpoint, _seen) = serve_with_hello(hello, |_, _| Then::Silence);
        // A second endpoint changes nothing: this is no failure of the network.
        let error = Client::connect(options(&[&endpoint, &nobody()])).unwrap_err();
        assert!(error.to_string().contains(expected), "{hello}: {error}");
    }
}

#[test]
fn another_store_is_refused() {
    let info = "# Server\r\nredis_version:7.2.4\r\ndkv_store:Orders\r\n";
    let info = move |_: usize, _: &Command| reply(&format!("${}\r\n{info}\r\n", info.len()));
    let (endpoint, _seen) = serve(info);
    let named = |store: &str| Options { store: Some(store.into()), ..options(&[&endpoint]) };
    Client::connect(named("Orders")).unwrap();
    let error = Client::connect(named("orders")).unwrap_err();
    assert!(
        matches!(&error, ClientError::WrongStore { actual, .. } if actual == "Orders"),
        "{error}"
    );
    let (other, _seen) = serve(|_, _| reply("$7\r\n# Other\r\n"));
    let error =
        Client::connect(Options { store: Some("S".into()), ..options(&[&other]) }).unwrap_err();
    assert!(matches!(error, ClientError::NotAStore { .. }), "{error}");
}

#[test]
fn the_next_endpoint_is_used_when_the_first_is_down() {
    let (endpoint, _seen) = serve(|_, _| reply("+PONG\r\n"));
    let mut client = Client::connect(options(&[&nobody(), &endpoint])).unwrap();
    assert_eq!(client.endpoint(), endpoint);
    client.ping().unwrap();
}

#[test]
fn a_read_is_tried_on_the_next_node() {
    let (first, _seen) = serve(|_, _| Then::Close);
    let (second, _seen) = serve(|_, _| reply("$1\r\nv\r\n"));
    let mut client = Client::connect(options(&[&first, &second])).unwrap();
    assert_eq!(client.get(b"k").unwrap().unwrap(), b"v");
    assert_eq!(client.endpoint(), second);
}

#[test]
fn a_read_is_tried_again_on_the_only_node() {
    let mut client = client(|number, _| if number == 0 { Then::Close } else { reply(":7\r\n") });
    assert_eq!(client.dbsize().unwrap(), 7);
}

#[test]
fn a_write_without_an_answer_is_uncertain_and_not_sent_again() {
    let (first, first_seen) = serve(|_, _| Then::Close);
    let (second, second_seen) = serve(|_, _| reply("+OK\r\n"));
    let mut client = Client::connect(options(&[&first, &second])).unwrap();
    let error = client.set(b"k", b"v", &SetOptions::default()).unwrap_err();
    assert!(
        matches!(&error, ClientError::Uncertain { command, .. } if command == "SET"),
        "{error}"
    );
    assert!(!error.is_transport());
    assert_eq!(first_seen.iter().take(4).filter(|c| c[0] == b"SET").count(), 1);
    assert_eq!(second_seen.try_iter().count(), 0, "nobody asked the second node");
    // The client is still good.
    assert!(client.set(b"k", b"v", &SetOptions::default()).unwrap());
    assert_eq!(client.endpoint(), second);
}

#[test]
fn an_uncertain_reply_is_uncertain() {
    let error = answered("-UNCERTAIN node2 went away\r\n").del(&[b"k"]).unwrap_err();
    assert!(
        matches!(&error, ClientError::Uncertain { why, .. } if why.contains("node2")),
        "{error}"
    );
}

#[test]
fn error_replies_keep_their_words() {
    let error = answered("-WRONGTYPE Operation against a key\r\n").get(b"k").unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"));
    assert_eq!(error.to_string(), "WRONGTYPE Operation against a key");
}

#[test]
fn replies_are_bounded() {
    let (endpoint, _seen) =
        serve(|_, _| reply(&format!("$1000000\r\n{}\r\n", "x".repeat(1_000_000))));
    let mut client =
        Client::connect(Options { reply_bytes_max: 100_000, ..options(&[&endpoint]) }).unwrap();
    let error = client.get(b"k").unwrap_err();
    assert!(matches!(error, ClientError::ReplyTooLarge { bytes_max: 100_000, .. }), "{error}");
}

#[test]
fn garbage_in_place_of_a_reply_is_named() {
    let error = answered("huh\r\n").get(b"k").unwrap_err();
    assert!(matches!(error, ClientError::Malformed { .. }), "{error}");
}

#[test]
fn pipelines_keep_their_order_and_their_errors() {
    let mut client = client(|_, command| match command[0].as_slice() {
        b"GET" => Then::Reply([b"$4\r\n", &command[1][..], b"\r\n"].concat()),
        _ => reply(">2\r\n+message\r\n+x\r\n-ERR no\r\n"),
    });
    let keys: Vec<String> = (0..3000).map(|i| format!("{i:04}")).collect();
    let gets: Vec<[&[u8]; 2]> = keys.iter().map(|k| [&b"GET"[..], k.as_bytes()]).collect();
    let no = [&b"NO"[..]];
    let commands: Vec<&[&[u8]]> = gets.iter().map(|g| &g[..]).chain([&no[..]]).collect();
    let replies = client.call_many(&commands).unwrap();
    let texts: Vec<_> = replies[..3000].iter().map(|r| r.as_bytes().unwrap().to_vec()).collect();
    assert!(texts.iter().eq(keys.iter().map(String::as_bytes)));
    assert_eq!(replies[3000], Value::Error(b"ERR no".to_vec()));
    assert_eq!(client.call_many(&[]).unwrap(), []);
}

#[test]
fn a_pipeline_with_a_write_is_uncertain_when_it_breaks() {
    let mut client = client(|_, command| match command[0].as_slice() {
        b"GET" => reply("_\r\n"),
        _ => Then::Close,
    });
    let error = client.call_many(&[&[b"GET", b"a"], &[b"incr", b"b"]]).unwrap_err();
    assert!(
        matches!(&error, ClientError::Uncertain { command, .. } if command == "INCR"),
        "{error}"
    );
}

#[test]
fn typed_calls_send_and_take_what_they_should() {
    let expected = [
        ("GET k", "$1\r\nv\r\n"),
        ("GET k", "_\r\n"),
        ("DKV.GETV k", "*2\r\n$1\r\nv\r\n:9\r\n"),
        ("DKV.GETV k", "_\r\n"),
        ("SET k v", "+OK\r\n"),
        ("SET k v NX PX 1500", "_\r\n"),
        ("SET k v XX KEEPTTL", "+OK\r\n"),
        ("SET k v PXAT 1700000000000", "+OK\r\n"),
        ("DEL a b", ":1\r\n"),
        ("EXISTS a a", ":2\r\n"),
        ("INCRBY c -5", ":-5\r\n"),
        ("PEXPIRE k 2000", ":1\r\n"),
        ("PERSIST k", ":0\r\n"),
        ("PTTL k", ":-2\r\n"),
        ("PTTL k", ":-1\r\n"),
        ("PTTL k", ":1234\r\n"),
        ("MGET a b", "*2\r\n$1\r\n1\r\n_\r\n"),
        ("MSET a 1 b 2", "+OK\r\n"),
        ("DBSIZE", ":3\r\n"),
        ("INFO keyspace", "=15\r\ntxt:# Keyspace\n\r\n"),
        ("FLUSHALL", "+OK\r\n"),
    ];
    let mut next = expected.into_iter();
    let mut client = client(move |_, command| {
        let (line, bytes) = next.next().unwrap();
        assert_eq!(words(command), line);
        reply(bytes)
    });
    let set = |condition, expiry| SetOptions { expiry, condition };
    assert_eq!(client.get(b"k").unwrap(), Some(b"v".to_vec()));
    assert_eq!(client.get(b"k").unwrap(), None);
    let versioned = Versioned { value: b"v".to_vec(), version: 9 };
    assert_eq!(client.get_versioned(b"k").unwrap(), Some(versioned));
    assert_eq!(client.get_versioned(b"k").unwrap(), None);
    assert!(client.set(b"k", b"v", &SetOptions::default()).unwrap());
    let after = Expiry::After(Duration::from_millis(1500));
    assert!(!client.set(b"k", b"v", &set(Condition::IfAbsent, after)).unwrap());
    assert!(client.set(b"k", b"v", &set(Condition::IfPresent, Expiry::Keep)).unwrap());
    let at = Expiry::AtUnixMs(1_700_000_000_000);
    assert!(client.set(b"k", b"v", &set(Condition::Always, at)).unwrap());
    assert_eq!(client.del(&[b"a", b"b"]).unwrap(), 1);
    assert_eq!(client.exists(&[b"a", b"a"]).unwrap(), 2);
    assert_eq!(client.incr_by(b"c", -5).unwrap(), -5);
    assert!(client.expire(b"k", Duration::from_secs(2)).unwrap());
    assert!(!client.persist(b"k").unwrap());
    assert_eq!(client.ttl(b"k").unwrap(), Ttl::Missing);
    assert_eq!(client.ttl(b"k").unwrap(), Ttl::Forever);
    assert_eq!(client.ttl(b"k").unwrap(), Ttl::Left(Duration::from_millis(1234)));
    assert_eq!(client.mget(&[b"a", b"b"]).unwrap(), [Some(b"1".to_vec()), None]);
    client.mset(&[(b"a", b"1"), (b"b", b"2")]).unwrap();
    assert_eq!(client.dbsize().unwrap(), 3);
    assert_eq!(client.info(Some("keyspace")).unwrap(), "# Keyspace\n");
    client.flush_all().unwrap();
    assert_eq!(client.mget(&[]).unwrap(), Vec::<Option<Vec<u8>>>::new());
    client.mset(&[]).unwrap();
}

#[test]
fn replies_of_the_wrong_shape_are_refused() {
    let unexpected = |result: Result<(), ClientError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, ClientError::UnexpectedReply { .. }), "{error}");
    };
    unexpected(answered(":1\r\n").get(b"k").map(drop));
    unexpected(answered("*1\r\n$1\r\nv\r\n").get_versioned(b"k").map(drop));
    unexpected(answered("*2\r\n$1\r\nv\r\n:-1\r\n").get_versioned(b"k").map(drop));
    unexpected(answered("*1\r\n_\r\n").mget(&[b"a", b"b"]).map(drop));
    unexpected(answered(":-1\r\n").dbsize().map(drop));
    unexpected(answered("+OK\r\n").incr_by(b"k", 1).map(drop));
    unexpected(answered(":-3\r\n").ttl(b"k").map(drop));
    unexpected(answered(":1\r\n").set(b"k", b"v", &SetOptions::default()).map(drop));
    unexpected(answered("*1\r\n$1\r\n0\r\n").scan(None, 0).next().unwrap().map(drop));
}

#[test]
fn a_scan_goes_on_to_its_end() {
    let mut steps = [
        ("SCAN 0 MATCH a* COUNT 10", "*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$2\r\nab\r\n"),
        ("SCAN 17 MATCH a* COUNT 10", "*2\r\n$19\r\n9223372036854775807\r\n*0\r\n"),
        ("SCAN 9223372036854775807 MATCH a* COUNT 10", "*2\r\n$1\r\n0\r\n*1\r\n$2\r\nac\r\n"),
    ]
    .into_iter();
    let mut client = client(move |_, command| {
        let (line, bytes) = steps.next().unwrap();
        assert_eq!(words(command), line);
        reply(bytes)
    });
    let keys: Result<Vec<_>, _> = client.scan(Some(b"a*"), 10).collect();
    assert_eq!(keys.unwrap(), [b"a".to_vec(), b"ab".to_vec(), b"ac".to_vec()]);
}

#[test]
fn a_scan_that_fails_says_so_once() {
    let mut client = answered("-CLUSTERDOWN node2 is unreachable\r\n");
    let mut scan = client.scan(None, 0);
    assert_eq!(scan.next().unwrap().unwrap_err().code(), Some("CLUSTERDOWN"));
    assert!(scan.next().is_none());
}

#[test]
fn only_known_reads_are_sent_twice() {
    for (args, read) in [
        (&[&b"get"[..], b"k"][..], true),
        (&[b"Dkv.GetV", b"k"], true),
        (&[b"CONFIG", b"get", b"*"], true),
        (&[b"CONFIG", b"SET", b"a", b"b"], false),
        (&[b"CONFIG"], false),
        (&[b"GETDEL", b"k"], false),
        (&[b"GETEX", b"k"], false),
        (&[b"SET", b"k", b"v"], false),
        (&[b"WHATEVER"], false),
    ] {
        assert_eq!(is_read(args), read, "{args:?}");
    }
}

#[test]
fn an_empty_command_is_refused_here() {
    assert!(answered("+OK\r\n").call(&[]).is_err());
}
