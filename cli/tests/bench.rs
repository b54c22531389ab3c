//! `dkv bench` where something is wrong: with the server, with what was asked for, or with the patience of who looks on.

use dkv_protocol::resp::value::parse;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long something may take on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_mins(1);

/// A small server, which counts what it is asked and answers with what is decided by its name.
struct Server {
    address: String,
    asked: Arc<AtomicU64>,
    gone: Arc<AtomicBool>,
}

/// What to answer, and how long to wait before.
type Answer = fn(&str) -> (&'static str, Duration);

fn usual(name: &str) -> (&'static str, Duration) {
    let answer = match name {
        "PING" => "+PONG\r\n",
        "GET" => "$3\r\nabc\r\n",
        _ => "+OK\r\n",
    };
    (answer, Duration::ZERO)
}

impl Server {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = Self { address, asked: Arc::default(), gone: Arc::default() };
        let (asked, gone) = (Arc::clone(&server.asked), Arc::clone(&server.gone));
        // It serves until it is gone or the tests end.
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if gone.load(SeqCst) {
                    return;
                }
                let (asked, gone) = (Arc::clone(&asked), Arc::clone(&gone));
                std::thread::spawn(move || serve(socket, answer, &asked, &gone));
            }
        });
        server
    }

    /// Ends all connections and takes no more.
    fn go_away(&self) {
        self.gone.store(true, SeqCst);
        // What it waits for comes, and is turned away.
        let _ = TcpStream::connect(&self.address);
    }

    /// Waits until it was asked so often.
    fn until_asked(&self, count: u64) {
        let begin = Instant::now();
        while self.asked.load(SeqCst) < count {
            assert!(begin.elapsed() < PATIENCE, "nobody asks");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn serve(mut socket: TcpStream, answer: Answer, asked: &AtomicU64, gone: &AtomicBool) {
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    socket.set_nodelay(true).expect("a TCP socket");
    while let Ok(read @ 1..) = socket.read(&mut piece) {
        seen.extend_from_slice(&piece[..read]);
        while let Ok(Some((request, length))) = parse(&seen) {
            seen.drain(..length);
            let words = request.into_elements().unwrap_or_default();
            let name = words.first().and_then(|word| word.as_bytes()).unwrap_or_default();
            let (answer, after) = answer(&String::from_utf8_lossy(name));
            std::thread::park_timeout(after);
            asked.fetch_add(1, SeqCst);
            if gone.load(SeqCst) || socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn command(program: &str, home: &tempfile::TempDir) -> Command {
    let mut command = Command::new(program);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DKV_"))
    {
        command.env_remove(name);
    }
    command
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .env("XDG_DATA_HOME", home.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Begins `dkv bench …` on the server at that address.
fn begin(address: &str, flags: &str) -> Child {
    let home = tempfile::tempdir().expect("a directory");
    command(env!("CARGO_BIN_EXE_dkv"), &home)
        .arg("bench")
        .args(flags.split_whitespace())
        .args(["--target", address])
        .spawn()
        .expect("the binary was built for this test")
}

fn bench(address: &str, flags: &str) -> Output {
    begin(address, flags).wait_with_output().expect("it ends")
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id() as i32).expect("a pid");
    kill_process(pid, Signal::INT).expect("it is ours and not waited for");
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("no JSON ({error}): {} {}", text(&output.stdout), text(&output.stderr))
    })
}

#[track_caller]
fn says(output: &Output, expected: i32, words: &[&str]) {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(code(output), expected, "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[test]
fn an_interrupted_load_shows_what_it_measured() {
    let server = Server::start(usual);
    for (flags, is_json) in [("-o json", true), ("--closed --threads 2", false)] {
        let child = begin(&server.address, &format!("--warm-up 0 --duration 1h {flags}"));
        server.until_asked(server.asked.load(SeqCst) + 1000);
        interrupt(&child);
        let output = child.wait_with_output().expect("it ends");
        says(&output, 130, &["interrupted after "]);
        if is_json {
            let document = document(&output);
            assert!(document["requests"].as_u64() > Some(500), "{document:#}");
            assert_eq!(document["interrupted"], true);
            assert_eq!(
                (&document["rate_held"], &document["cut_off"]),
                (&true.into(), &Value::Null)
            );
            assert!(document["latency_ms"]["all"]["p50"].is_number(), "{document:#}");
        } else {
            assert!(text(&output.stdout).contains("Answered"), "{}", text(&output.stdout));
        }
    }
}

#[test]
fn an_interrupted_sweep_and_prefill_end_too() {
    let server = Server::start(usual);
    for (flags, word) in [
        ("sweep --from 1000 --duration 1h --warm-up 0", "interrupted after"),
        ("--prefill --keys 900000000", "of 900000000 keys were written"),
        ("stress --duration-sec 3600", "TotalOperations"),
    ] {
        let (name, flags) = flags.split_once(' ').expect("two words");
        let named = if name == "stress" { "--endpoint" } else { "--target" };
        let home = tempfile::tempdir().expect("a directory");
        let child = command(env!("CARGO_BIN_EXE_dkv"), &home)
            .args(["bench", name])
            .args(flags.split_whitespace())
            .args([named, &server.address])
            .spawn()
            .expect("the binary was built for this test");
        server.until_asked(server.asked.load(SeqCst) + 500);
        interrupt(&child);
        says(&child.wait_with_output().expect("it ends"), 130, &[word]);
    }
}

#[test]
fn a_second_interruption_ends_it_at_once() {
    // Whose answers are so late that even the end of the load is long in coming.
    let late: Answer = |name| {
        let after = if name == "PING" { Duration::ZERO } else { PATIENCE };
        (usual(name).0, after)
    };
    let server = Server::start(late);
    let mut child = begin(&server.address, "--warm-up 0 --duration 1h");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    // Until it says that it ends early, an interruption is the usual end.
    let begin = Instant::now();
    while !line.contains("once more") {
        assert!(begin.elapsed() < PATIENCE, "{line}");
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", child.id())).map_or(0, Iterator::count);
        // The thread that hears signals, and those of the load.
        if threads >= 4 {
            interrupt(&child);
            line.clear();
            while !line.contains("interrupted") {
                assert!(said.read_line(&mut line).expect("a line") > 0, "it ended: {line}");
            }
            break;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(line.contains("once more"), "{line}");
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 130);
    assert_eq!(text(&output.stdout), "", "there was no time to show anything");
}

#[test]
fn a_server_that_goes_away_in_the_middle_leaves_a_result_and_an_error() {
    for flags in ["--rate 2000", "--closed"] {
        let server = Server::start(usual);
        let flags = format!("--warm-up 0 --duration 1h --timeout-sec 1 -o json {flags}");
        let child = begin(&server.address, &flags);
        server.until_asked(1000);
        server.go_away();
        let output = child.wait_with_output().expect("it ends");
        says(&output, 3, &["went away", "did not come back for 1 s", "until then", "\"hint\""]);
        let document = document(&output);
        assert!(document["requests"].as_u64() > Some(500), "{document:#}");
        assert!(document["cut_off"].as_str().is_some_and(|why| why.contains("went away")));
        // The second in which nobody was there is not measured.
        let (rate, seconds) = (document["rate"].as_f64(), document["seconds"].as_f64());
        assert!(rate > Some(500.0), "{rate:?} a second in {seconds:?} s");
    }
}

#[test]
fn what_a_server_answers_instead_is_counted_by_its_kind() {
    let full: Answer = |name| match name {
        "SET" => ("-OOM no memory\r\n", Duration::ZERO),
        name => usual(name),
    };
    let server = Server::start(full);
    let output = bench(&server.address, "-n 1000 --warm-up 0 --reads 50 --closed -o json");
    assert_eq!(code(&output), 4, "{}", text(&output.stderr));
    let document = document(&output);
    let oom = document["errors"]["OOM"]["count"].as_u64().unwrap_or(0);
    assert_eq!(document["requests"].as_u64().unwrap_or(0) + oom, 1000, "{document:#}");
    assert!((300..700).contains(&oom), "{document:#}");
    let output = bench(&server.address, "-n 100 --warm-up 0 --reads 0 --closed");
    says(&output, 1, &["all 100 requests failed: OOM no memory", "hint: "]);
}

#[test]
fn who_is_no_such_server_is_told_apart() {
    let http: Answer = |_| ("HTTP/1.1 400 Bad Request\r\n\r\n", Duration::ZERO);
    let output = bench(&Server::start(http).address, "-n 10");
    says(&output, 1, &["no Redis-compatible server", "HTTP/1.1 400", "hint: "]);
    let locked: Answer = |_| ("-NOAUTH Authentication required.\r\n", Duration::ZERO);
    let output = bench(&Server::start(locked).address, "-n 10");
    says(&output, 1, &["wants a password", "--password-file"]);
    // Bound, so that nobody else gets it, and gone before anybody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let output = bench(&nobody.to_string(), "-n 10");
    says(&output, 3, &["cannot ask", "refused", "hint: "]);
    // The kernel takes the connection and nobody ever answers. Asked once, so within the limit and not a multiple.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let output = bench(&address, "-n 10 --timeout-sec 1");
    says(&output, 3, &["takes the connection and does not answer", "hint: "]);
    silent.set_nonblocking(true).expect("a socket");
    let asked = std::iter::from_fn(|| silent.accept().ok()).count();
    assert_eq!(asked, 1);
}

#[test]
fn what_is_compared_and_is_no_result_is_never_offered_to_be_overwritten() {
    let home = tempfile::tempdir().expect("a directory");
    let precious = home.path().join("precious.json");
    std::fs::write(&precious, "{}").expect("just made");
    let mut command = command(env!("CARGO_BIN_EXE_dkv"), &home);
    let output = command.args(["bench", "--compare"]).arg(&precious).arg(&precious).output();
    let output = output.expect("the program is built");
    says(&output, 2, &["is no result of dkv bench", "hint: "]);
    assert!(!text(&output.stderr).contains(&format!("> {}", precious.display())));
}

#[test]
fn a_rate_that_is_too_high_says_what_was_reached_and_what_was_not_sent() {
    let slow: Answer = |name| {
        let after = if name == "PING" { Duration::ZERO } else { Duration::from_millis(2) };
        (usual(name).0, after)
    };
    let server = Server::start(slow);
    let flags = "--rate 100k --connections 1 --warm-up 0 --duration 500ms --timeout-sec 1";
    let output = bench(&server.address, &format!("{flags} -o json"));
    let document = document(&output);
    assert_eq!((code(&output), &document["rate_held"]), (4, &false.into()), "{document:#}");
    assert!(document["rate"].as_f64() < Some(1000.0), "{document:#}");
    assert_eq!(document["load"]["rate"], 100_000.0);
    assert!(document["generator"]["unsent"].as_u64() > Some(10_000), "{document:#}");
    says(
        &bench(&server.address, flags),
        4,
        &["a second of 100000 asked for", "the rate was not reached"],
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_what_does() {
    let cases = [
        ("--keys 0", "--keys 1"),
        ("--value-size 513MiB", "at most 512"),
        ("--connections 0", "--connections 1"),
        ("--connections 60000", "--connections 50000"),
        ("--pipeline 0", "--pipeline 1"),
        ("--threads 17", "each thread needs one"),
        ("--reads 101", "--reads 100"),
        ("--rate 0", "as 10000 or 50k"),
        ("--duration 0", "--duration 10s"),
        ("--distribution zipf", "zipfian"),
    ];
    for (flags, word) in cases {
        says(&bench("127.0.0.1:1", flags), 2, &[word]);
    }
    let prefix = format!("--key-prefix {}", "k".repeat(65_536));
    says(&bench("127.0.0.1:1", &prefix), 2, &["is too long"]);
}

#[test]
fn few_requests_have_no_percentiles() {
    let server = Server::start(usual);
    let output = bench(&server.address, "-n 150 --reads 100 --warm-up 0 -o json");
    let document = document(&output);
    let reads = &document["latency_ms"]["read"];
    assert!(reads["p90"].is_number() && reads["p99"].is_null() && reads["max"].is_number());
    let note = document["notes"][0].as_str().unwrap_or_default();
    assert!(note.contains("no p95 and beyond of 150 requests"), "{document:#}");
    let output = bench(&server.address, "-n 150 --reads 100 --warm-up 0");
    says(&output, 0, &["p95     -", "no p95 and beyond of 150 requests"]);
}

#[test]
fn a_terminal_of_twenty_columns_is_wide_enough() {
    let server = Server::start(usual);
    let home = tempfile::tempdir().expect("a directory");
    let dkv = env!("CARGO_BIN_EXE_dkv");
    let line = format!(
        "stty cols 20 rows 10; exec {dkv} bench --target {} --warm-up 0 --duration 1s --prefill --keys 1000",
        server.address
    );
    let output = command("script", &home)
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .output()
        .expect("script (Debian: bsdutils) is installed");
    assert_eq!(code(&output), 0, "{}", text(&output.stdout));
    let shown = text(&output.stdout);
    let plain = without_escapes(&shown);
    for word in ["Answered", "p50", "p99.9"] {
        assert!(plain.contains(word), "{plain}");
    }
    // What is drawn over and over must not wrap, else every look leaves a line behind.
    let drawn =
        plain.split(['\r', '\n']).filter(|line| line.contains("/s") || line.contains("prefill"));
    let drawn: Vec<&str> = drawn.collect();
    assert!(!drawn.is_empty(), "{plain}");
    for line in drawn {
        assert!(line.trim_end().chars().count() <= 20, "{line:?} in {plain}");
    }
    // And of the percentiles each has a line.
    for line in plain.lines().filter(|line| line.starts_with('p')) {
        assert!(line.trim_end().chars().count() <= 20 || line.starts_with("prefill"), "{line:?}");
    }
}

/// Text without what steers a terminal.
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\x1b' {
            plain.push(letter);
        } else if letters.next() == Some('[') {
            let _ = letters.by_ref().find(char::is_ascii_alphabetic);
        }
    }
    plain
}
