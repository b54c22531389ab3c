//! A node that serves nobody: it takes a launch document, holds its lock, prints its ready line, answers on its control
//! socket, and otherwise does what the file named by its first argument says at its start. For tests of supervision.
//!
//! When it is followed it writes what it is told behind `….told` beside its control socket, line by line, and asks what
//! stands in `….asks` there.
//!
//! `serve` (also when there is no file), `exit CODE` before the ready line, `crash CODE` after it, `hang` without one,
//! `deaf` to being asked to stop. It ends by itself when the directory of that file is gone, so that no test leaves one
//! behind. Lock and socket that are removed under it are made anew, as by a real node.

use dkv_protocol::control::{ControlRequest, LATENCY_BUCKETS, NodeStatus, ShardCounters};
use dkv_protocol::launch::{LaunchDocument, ReadyLine, exit};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static ASKED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let plan = std::env::args().nth(1).and_then(|path| std::fs::read_to_string(path).ok());
    let plan = plan.unwrap_or_default();
    let mut words = plan.split_whitespace();
    let deed = words.next().unwrap_or("serve").to_string();
    let code: u8 = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);

    let Ok(document) = serde_json::from_reader::<_, LaunchDocument>(std::io::stdin()) else {
        return ExitCode::from(exit::BAD_LAUNCH_DOCUMENT);
    };
    let lock = File::create(&document.lock_file).expect("the directory is there");
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return ExitCode::from(exit::ALREADY_RUNNING);
    }
    let _ = rustix::process::setsid();
    let plan = std::env::args().nth(1).unwrap_or_default();
    if let Some(home) = Path::new(&plan).parent() {
        watch_directory(home);
    }
    if deed == "exit" {
        eprintln!("port {} is in use", document.nodes[0].client_port);
        return ExitCode::from(code);
    }
    if deed == "hang" {
        loop {
            std::thread::park();
        }
    }
    let _ = std::fs::remove_file(&document.control_socket);
    let listener = UnixListener::bind(&document.control_socket).expect("the path is free");
    let ready = ReadyLine {
        pid: std::process::id(),
        boot: format!("{:x}", std::process::id()),
        io: "none".to_string(),
    };
    println!("{}", serde_json::to_string(&ready).expect("plain data"));
    if deed == "crash" {
        eprintln!("crashed as told");
        return ExitCode::from(code);
    }
    let deaf = deed == "deaf";
    let first = directory_of(&document.lock_file);
    serve(listener, &document, deaf);
    let mut locks = vec![lock];
    loop {
        std::thread::park_timeout(Duration::from_millis(20));
        // In another directory only: one that is being removed at the end of a test is left to that.
        if directory_of(&document.lock_file) == first {
            continue;
        }
        if !Path::new(&document.lock_file).exists()
            && let Ok(lock) = File::create_new(&document.lock_file)
        {
            let _ = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
            locks.push(lock);
        }
        if !Path::new(&document.control_socket).exists()
            && let Ok(listener) = UnixListener::bind(&document.control_socket)
        {
            serve(listener, &document, deaf);
        }
    }
}

/// What tells the directory of a file from a later one of the same name.
fn directory_of(file: &str) -> Option<(u64, Option<std::time::SystemTime>)> {
    use std::os::unix::fs::MetadataExt;
    let about = Path::new(file).parent()?.metadata().ok()?;
    Some((about.ino(), about.created().ok()))
}

/// Answers on a socket for as long as the process lives.
fn serve(listener: UnixListener, document: &LaunchDocument, deaf: bool) {
    let document = document.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let document = document.clone();
            std::thread::spawn(move || {
                if answer(stream, &document) && !deaf {
                    std::process::exit(i32::from(exit::OK));
                }
            });
        }
    });
}

/// Answers one connection; whether it was asked to stop.
fn answer(stream: UnixStream, document: &LaunchDocument) -> bool {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        let request: ControlRequest = serde_json::from_str(&line).expect("a request");
        line.clear();
        let mut text = serde_json::to_string(&status(document)).expect("plain data");
        text.push('\n');
        let _ = reader.get_mut().write_all(text.as_bytes());
        match request {
            ControlRequest::Status => {}
            ControlRequest::Stop => return true,
            ControlRequest::Follow => {
                followed(reader, &document.control_socket);
                return false;
            }
        }
    }
    false
}

/// Notes what it is told, and asks what somebody puts beside it.
fn followed(mut reader: BufReader<UnixStream>, socket: &str) {
    let mut asking = reader.get_ref().try_clone().expect("a second handle");
    let asks = format!("{socket}.asks");
    std::thread::spawn(move || {
        loop {
            // Renamed into place, so that it is whole when it is there.
            if let Ok(text) = std::fs::read(&asks) {
                std::fs::remove_file(&asks).expect("ours");
                if asking.write_all(&text).is_err() {
                    return;
                }
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    });
    let told = std::fs::OpenOptions::new().create(true).append(true).open(format!("{socket}.told"));
    let mut told = told.expect("the directory is there");
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        told.write_all(line.as_bytes()).expect("there is room");
        line.clear();
    }
}

/// Each time it is asked it has served a hundred reads more.
fn status(document: &LaunchDocument) -> NodeStatus {
    let gets = ASKED.fetch_add(100, Ordering::Relaxed);
    let mut latency = vec![0; LATENCY_BUCKETS];
    latency[10] = gets;
    let shard = ShardCounters { gets, commands: gets, latency, ..ShardCounters::default() };
    NodeStatus {
        store: document.store.clone(),
        store_id: document.store_id.0.clone(),
        node: document.nodes[usize::from(document.index.0)].name.clone(),
        pid: std::process::id(),
        boot: format!("{:x}", std::process::id()),
        uptime_ms: 1,
        io: "none".to_string(),
        cluster_ok: true,
        unreachable: Vec::new(),
        resident_bytes: 1,
        cpu_us: gets,
        users_version: Some(document.users.version),
        shards: vec![shard; document.cpus.len()],
        commands: Vec::new(),
    }
}

fn watch_directory(home: &Path) {
    let home = home.to_path_buf();
    let parent = rustix::process::getppid();
    std::thread::spawn(move || {
        // The test that started it may end without tidying up.
        while home.exists() && rustix::process::getppid() == parent {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        std::process::exit(0);
    });
}
