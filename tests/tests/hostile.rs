//! Bytes that no friend would send, to each of the three kinds of port; the store goes on as if nothing had been.

use dkv_tests::machine::{Machine, Network};
use dkv_tests::raw::exchange;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn still_serves(machine: &Machine) {
    assert_eq!(machine.redis("127.0.0.1", 7861, &["set", "alive", "yes"]), "OK");
    assert_eq!(machine.redis("127.0.0.1", 7862, &["get", "alive"]), "yes");
    assert!(machine.redis("127.0.0.1", 7862, &["cluster", "info"]).starts_with("cluster_state:ok"));
}

#[test]
fn client_port_answers_protocol_errors_in_redis_words() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let long = vec![b'x'; 64 * 1024 + 1];
    let cases: &[(&[u8], &str)] = &[
        (b"*1000000000000\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*abc\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\nxPING\r\n", "-ERR Protocol error: expected '$', got 'x'\r\n"),
        (&long, "-ERR Protocol error: too big inline request\r\n"),
        (b"SET a \"b\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ];
    for (bytes, wanted) in cases {
        let (back, closed) = exchange(&machine, "127.0.0.1", 7861, bytes, false, 3000);
        assert_eq!(
            (text(&back).as_str(), closed),
            (*wanted, true),
            "{:?}",
            text(&bytes[..bytes.len().min(40)])
        );
    }
    // What is only odd is ignored, and what was whole before the error is answered.
    let (back, closed) = exchange(
        &machine,
        "127.0.0.1",
        7861,
        b"*0\r\n*-1\r\n\r\nPING\r\n*1\r\n$4\r\nPING\r\n*x\r\n",
        false,
        3000,
    );
    assert_eq!(
        (text(&back).as_str(), closed),
        ("+PONG\r\n+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n", true)
    );
    // HTTP on the client port is somebody's browser, not a client.
    let (_, closed) = exchange(
        &machine,
        "127.0.0.1",
        7861,
        b"POST / HTTP/1.1\r\nHost: evil\r\n\r\nSET stolen 1\r\n",
        false,
        3000,
    );
    assert!(closed);
    assert_eq!(machine.redis("127.0.0.1", 7861, &["exists", "stolen"]), "0");
    still_serves(&machine);
}

#[test]
fn a_command_cut_anywhere_has_no_reply_and_no_effect() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let whole = b"*3\r\n$3\r\nSET\r\n$3\r\ncut\r\n$5\r\nhello\r\n";
    for cut in (0..whole.len()).step_by(3) {
        let (back, closed) = exchange(&machine, "127.0.0.1", 7861, &whole[..cut], true, 3000);
        assert_eq!((text(&back).as_str(), closed), ("", true), "cut at {cut}");
    }
    assert_eq!(machine.redis("127.0.0.1", 7861, &["exists", "cut"]), "0");
    still_serves(&machine);
}

#[test]
fn cluster_port_refuses_strangers_and_says_so_in_the_log() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let huge =
        [b"DKVP".as_slice(), &1u16.to_le_bytes(), &[16, 0], &u32::MAX.to_le_bytes(), &[0; 12]]
            .concat();
    for bytes in [
        b"*1\r\n$4\r\nPING\r\n".as_slice(),
        b"GET / HTTP/1.1\r\n\r\n",
        hello,
        &huge,
        &[0u8; 64],
        &[0xffu8; 4096],
    ] {
        let (back, closed) = exchange(&machine, "127.0.0.1", 7811, bytes, false, 8000);
        assert!(closed, "left open, answered {:?}", text(&back));
    }
    still_serves(&machine);
    let logs: String = std::fs::read_dir(machine.data.join("logs"))
        .expect("the logs")
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .collect();
    assert!(logs.contains("refused"), "{logs}");
}

#[test]
fn admin_port_answers_every_mistake_with_a_document() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let token =
        std::fs::read_to_string(machine.data.join("token")).expect("the token of the manager");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let big = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    let big = machine.file("big.json", &big);
    let big = format!("@{}", big.display());
    let stores = "http://127.0.0.1:7801/admin/v1/stores";
    let json = "Content-Type: application/json";
    let cases: &[(&str, &[&str])] = &[
        ("401", &[stores]),
        ("401", &["-H", "Authorization: Bearer 00", stores]),
        ("200", &["-H", &bearer, stores]),
        ("404", &["-H", &bearer, "http://127.0.0.1:7801/admin/v1/stores/Nowhere"]),
        ("404", &["-H", &bearer, "http://127.0.0.1:7801/nowhere"]),
        ("405", &["-X", "PUT", "-H", &bearer, stores]),
        ("400", &["-H", &bearer, "-H", json, "-d", "{", stores]),
        (
            "400",
            &[
                "-H",
                &bearer,
                "-H",
                json,
                "-d",
                r#"{"name":"../../etc","instance_prefix":"n","instance_count":1}"#,
                stores,
            ],
        ),
        (
            "400",
            &[
                "-H",
                &bearer,
                "-H",
                json,
                "-d",
                r#"{"name":"a","instance_prefix":"n","instance_count":1,"colour":1}"#,
                stores,
            ],
        ),
        ("413", &["-H", &bearer, "-H", json, "-d", &big, stores]),
        ("403", &["-H", &bearer, "-H", "Origin: http://evil", stores]),
        ("421", &["-H", &bearer, "-H", "Host: evil.example", stores]),
    ];
    for (code, args) in cases {
        let mut all = vec!["-s", "-m", "10", "-w", "\n%{http_code}"];
        all.extend_from_slice(args);
        let output = machine.run("curl", &all).ok().out;
        let (body, got) = output.rsplit_once('\n').expect("the code is the last line");
        assert_eq!(got, *code, "{args:?}: {body}");
        if *code != "200" {
            let document: serde_json::Value =
                serde_json::from_str(body).unwrap_or_else(|e| panic!("{args:?}: {e}: {body}"));
            assert!(
                document["error"]["message"].is_string() && document["error"]["hint"].is_string(),
                "{body}"
            );
        }
    }
    still_serves(&machine);
}
