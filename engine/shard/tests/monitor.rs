//! MONITOR: what who looks on is shown of a node's commands, and that nobody waits for it.

mod store;

use dkv_protocol::limits::{MONITOR_LINES_BYTES_MAX, SUBSCRIBER_OUTPUT_BYTES_MAX};
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, command_bytes};

const FOUR: Settings = Settings { nodes: 2, shards: 2, ..PLAIN };

/// The commands that were shown, without their times and addresses, which are looked at.
fn shown(store: &mut Store, client: usize) -> Vec<String> {
    let text = String::from_utf8(store.take(client)).expect("text");
    let line = |line: &str| {
        let (head, command) = line.split_once("] ").expect("a line of MONITOR");
        let (time, address) = head.split_once(' ').expect("a time and an address");
        assert!(
            time.starts_with("+17000000") && time.len() == "+1700000000.000000".len(),
            "{time}"
        );
        assert_eq!(address, "[0 127.0.0.1:50000");
        command.to_owned()
    };
    text.split_terminator("\r\n").map(line).collect()
}

fn send_all(store: &mut Store, client: usize, lines: &[&str]) {
    for line in lines {
        let args: Vec<&str> = line.split(' ').collect();
        store.send(client, &command(&args));
    }
    store.run();
    store.take(client);
}

#[test]
fn commands_are_shown_as_redis_shows_them() {
    let mut store = Store::new(PLAIN);
    let (monitor, client) =
        (store.connect(0, 0, PortKind::Client), store.connect(0, 0, PortKind::Client));
    assert_eq!(store.call(monitor, &["MONITOR"]), "+OK\r\n");
    // Once more says nothing.
    assert_eq!(store.call(monitor, &["MONITOR"]), "");
    let lines = [
        "set a b",
        "CONFIG GET maxmemory",
        "HELLO 2 AUTH default x",
        "HELLO 2 SETNAME auth AUTH default x",
        "HELLO 2 SETNAME auth",
        "HELLO 2 foo default x",
        "AUTH default x",
        "AUTH x",
        "GET",
        "FOO",
        "INFO server",
        "CLIENT LIST",
        "CLIENT SETNAME x",
        "MULTI",
        "SET a b",
        "PUBLISH a b",
        "EXEC",
        "DBSIZE",
    ];
    send_all(&mut store, client, &lines);
    let expected = [
        r#""set" "a" "b""#,
        r#""HELLO" "2" "AUTH" "(redacted)" "(redacted)""#,
        r#""HELLO" "2" "SETNAME" "auth" "AUTH" "(redacted)" "(redacted)""#,
        r#""HELLO" "2" "SETNAME" "auth""#,
        r#""HELLO" "2" "foo" "(redacted)" "(redacted)""#,
        r#""AUTH" "(redacted)" "(redacted)""#,
        r#""AUTH" "(redacted)""#,
        r#""INFO" "server""#,
        r#""CLIENT" "SETNAME" "x""#,
        r#""MULTI""#,
        r#""SET" "a" "b""#,
        r#""PUBLISH" "a" "b""#,
        r#""EXEC""#,
        r#""DBSIZE""#,
    ];
    assert_eq!(shown(&mut store, monitor), expected);
    store.send(client, &command_bytes(&[b"ECHO", b"a\\\"\n\r\t\x07\x08\x00\xff b"]));
    store.run();
    assert_eq!(shown(&mut store, monitor), [r#""ECHO" "a\\\"\n\r\t\a\b\x00\xff b""#]);
    // Its own, behind their replies; what concerns keys is refused.
    let own = store.call(monitor, &["PING"]);
    assert!(own.starts_with("+PONG\r\n+17") && own.ends_with("\"PING\"\r\n"), "{own}");
    for line in [&["GET", "a"][..], &["SET", "a", "b"], &["PUBLISH", "a", "b"]] {
        assert_eq!(store.call(monitor, line), "-ERR Replica can't interact with the keyspace\r\n");
    }
    assert!(store.call(client, &["CLIENT", "LIST"]).contains(" flags=O "));
    for line in ["MULTI", "MONITOR", "EXEC"] {
        store.send(client, &command(&[line]));
    }
    store.run();
    let refused = "+OK\r\n+QUEUED\r\n*1\r\n-ERR MONITOR isn't allowed for DENY BLOCKING client\r\n";
    assert_eq!(store.take(client), refused.as_bytes());
    store.take(monitor);
    assert!(store.call(monitor, &["RESET"]).starts_with("+RESET\r\n"));
    send_all(&mut store, client, &["GET a"]);
    assert!(store.take(monitor).is_empty());
}

#[test]
fn a_monitor_is_shown_its_node_and_no_other_and_its_end_is_heard() {
    let mut store = Store::new(FOUR);
    let clients: Vec<usize> = [(0, 0), (0, 1), (1, 0)]
        .into_iter()
        .map(|(node, shard)| store.connect(node, shard, PortKind::Client))
        .collect();
    let monitors: Vec<usize> =
        (0..2).map(|shard| store.connect(0, shard, PortKind::Client)).collect();
    for monitor in &monitors {
        assert_eq!(store.call(*monitor, &["MONITOR"]), "+OK\r\n");
    }
    for (i, client) in clients.iter().enumerate() {
        // Wherever the key is.
        send_all(&mut store, *client, &[&format!("GET {i}a"), &format!("GET {i}b")]);
    }
    for monitor in &monitors {
        let expected = [r#""GET" "0a""#, r#""GET" "0b""#, r#""GET" "1a""#, r#""GET" "1b""#];
        assert_eq!(shown(&mut store, *monitor), expected);
    }
    store.disconnect(monitors[0]);
    store.run();
    let served = |store: &Store, shard| store.stats(0, shard).served_for_others.get();
    let before = served(&store, 0);
    (0..10).for_each(|_| send_all(&mut store, clients[1], &["PING"]));
    assert_eq!(served(&store, 0), before, "nobody is left there to be shown anything");
    assert_eq!(shown(&mut store, monitors[1]).len(), 10);
    send_all(&mut store, clients[0], &["PING"]);
    assert_eq!(shown(&mut store, monitors[1]).len(), 1);
}

#[test]
fn what_is_too_much_to_show_is_left_out() {
    let mut store = Store::new(PLAIN);
    let (monitor, client) =
        (store.connect(0, 0, PortKind::Client), store.connect(0, 0, PortKind::Client));
    store.call(monitor, &["MONITOR"]);
    store.call(client, &["ECHO", &"x".repeat(100_000)]);
    let lines = shown(&mut store, monitor);
    assert!(lines[0].len() < 17_000 && lines[0].ends_with(" more bytes)\""), "{}", lines[0].len());
    let many = ["EXISTS"].into_iter().chain(vec!["x"; 10_000]).collect::<Vec<_>>();
    store.call(client, &many);
    let lines = shown(&mut store, monitor);
    assert!(
        lines[0].len() < 17_000 && lines[0].ends_with(" more arguments)\""),
        "{}",
        lines[0].len()
    );
    // So much in one turn.
    let long = "x".repeat(1000);
    let pipeline = command(&["ECHO", &long]).repeat(2000);
    store.input(client, &pipeline);
    store.run();
    let lines = shown(&mut store, monitor);
    let lost = store.stats(0, 0).monitor_lines_lost.get();
    assert!(
        lines.len() >= MONITOR_LINES_BYTES_MAX / 1100 && lost > 0,
        "{} and {lost}",
        lines.len()
    );
    assert_eq!(lines.len() as u64 + lost, 2000);
    store.take(client);
    // One that does not read is cut off.
    store.clients[monitor].reads = false;
    for _ in 0..3 * SUBSCRIBER_OUTPUT_BYTES_MAX / MONITOR_LINES_BYTES_MAX {
        store.input(client, &pipeline[..300 * pipeline.len() / 2000]);
        store.run();
        store.take(client);
    }
    assert!(store.clients[monitor].cut && store.stats(0, 0).subscribers_cut.get() == 1);
}
