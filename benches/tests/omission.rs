//! What a load generator must not leave out: a server that stands still for half a second delays all that fell due meanwhile.

use dkv_bench::generator::{Arrivals, Outcome, Pace, Plan, run};
use dkv_protocol::resp::value::parse;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// For so long the server stands still, at least.
const STOP: Duration = Duration::from_millis(500);
/// What of it must be seen, in nanoseconds.
const SEEN_NS: u64 = 400_000_000;
/// How long a server may take to listen, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a process of this test is to serve; set for that process alone.
const SERVE: &str = "DKV_TEST_SERVE";

/// A small server as a process of its own, which can be stopped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(number: u32) -> Self {
        // An address of this test's own, so that no port is ever in use.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let address = format!("127.{}.{b}.{c}:{}", a | 64, 6390 + number);
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "the_server"])
            .env(SERVE, &address)
            .spawn()
            .expect("this test can be run");
        let begin = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(begin.elapsed() < PATIENCE, "{address} does not listen");
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Self { child, address }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("it is ours and not waited for");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The process that the other test starts and stops: it answers PING, GET and SET. Among the tests it has nothing to do.
#[test]
fn the_server() {
    let Ok(address) = std::env::var(SERVE) else { return };
    let listener = TcpListener::bind(address).expect("a free address");
    for socket in listener.incoming().flatten() {
        std::thread::spawn(move || serve(socket));
    }
}

fn serve(mut socket: TcpStream) {
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    socket.set_nodelay(true).expect("a TCP socket");
    while let Ok(read @ 1..) = socket.read(&mut piece) {
        seen.extend_from_slice(&piece[..read]);
        let mut answers = Vec::new();
        while let Ok(Some((request, length))) = parse(&seen) {
            seen.drain(..length);
            let words = request.into_elements().unwrap_or_default();
            let answer: &[u8] = match words.first().and_then(|word| word.as_bytes()) {
                Some(b"PING") => b"+PONG\r\n",
                Some(b"GET") => b"$3\r\nabc\r\n",
                _ => b"+OK\r\n",
            };
            answers.extend_from_slice(answer);
        }
        if socket.write_all(&answers).is_err() {
            return;
        }
    }
}

/// A load with the server standing still in its middle.
fn stalled(number: u32, pace: Pace) -> Outcome {
    let server = Server::start(number);
    let plan = Plan {
        endpoints: vec![server.address.clone()],
        connections: 1,
        pace,
        duration: Duration::from_millis(2500),
        timeout: PATIENCE,
        ..Plan::default()
    };
    let (mut stopped, mut went_on) = (None::<Instant>, false);
    let outcome = run(&plan, &mut |progress| match stopped {
        None if progress.answered > 0 => {
            server.signal(Signal::STOP);
            stopped = Some(Instant::now());
        }
        Some(since) if !went_on && since.elapsed() >= STOP => {
            server.signal(Signal::CONT);
            went_on = true;
        }
        _ => {}
    });
    let outcome = outcome.expect("the server answers");
    assert!(went_on, "the run was over before the server was");
    outcome
}

#[test]
fn a_stall_is_felt_by_all_that_fell_due_in_it_and_a_closed_loop_would_not_have_said_so() {
    let open = stalled(0, Pace::Open { per_second: 2000.0, arrivals: Arrivals::Constant });
    let closed = stalled(1, Pace::Closed);
    let p999 = |latencies: dkv_bench::generator::Latencies| latencies.value_at_quantile(0.999);
    let (felt, since_send, blind) =
        (p999(open.latency()), p999(open.service()), p999(closed.latency()));
    assert_eq!((open.unsent, open.unanswered), (0, 0));
    assert!(felt >= SEEN_NS, "p99.9 of {felt} ns hides the stall");
    // Each of them has it once, as one slow request among thousands.
    assert!(open.service().max() >= SEEN_NS && closed.latency().max() >= SEEN_NS);
    assert!(since_send < felt / 2 && blind < felt / 2, "{felt} {since_send} {blind} ns");
    println!(
        "p99.9 with a stop of {STOP:?}: open loop {} ms, since sending {} ms, closed loop {} ms",
        felt / 1_000_000,
        since_send / 1_000_000,
        blind / 1_000_000
    );
}
