//! What a message between two shards costs: the queue alone, two threads that are both awake, and waking one that sleeps.
//!
//! `cargo bench -p dkv-bench --bench mailbox`

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dkv_bench::micro::Micro;
use dkv_io::{
    Event, Inbox, Options, Outbox, Reactor, UringReactor, Wait, WakeHandle, Wakeup, clock, cpu,
    mailbox,
};

/// Messages that fit.
const CAPACITY: usize = 1024;
/// A sleep that ends by itself; nothing depends on it.
const SLEEP: Duration = Duration::from_millis(50);

/// A batch, as it goes between shards: three words.
type Message = Vec<u8>;

fn new_mailbox() -> (Inbox<Message>, Outbox<Message>) {
    mailbox(CAPACITY, WakeHandle::new().expect("an eventfd"))
}

fn one_thread(micro: Micro) {
    let (mut inbox, outbox) = new_mailbox();
    let count = micro.count(5_000_000);
    micro.row("push and pop, one thread", count, || {
        for _ in 0..count {
            let wakeup = outbox.push(Vec::new()).expect("there is room");
            assert_eq!(wakeup, Wakeup::NotNeeded);
            black_box(inbox.pop());
        }
    });
    let count = micro.count(500_000);
    micro.row("park and unpark", count, || {
        for _ in 0..count {
            assert!(inbox.park());
            inbox.unpark();
        }
    });
}

fn pin(place: usize) {
    let cpus = cpu::available().expect("affinity can be read");
    cpu::pin(cpus[place % cpus.len()]).expect("an available CPU");
}

/// Both threads poll, as shards do that are busy; a thread that waits gives its CPU away, so that it costs little there.
fn two_threads(micro: Micro) {
    let (mut inbox, outbox) = new_mailbox();
    let count = micro.count(2_000_000);
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            pin(0);
            let start = clock::thread_cpu_ns();
            for _ in 0..count {
                let mut message = Vec::new();
                while let Err(back) = outbox.push(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
            clock::thread_cpu_ns() - start
        });
        let receiver = scope.spawn(move || {
            pin(1);
            let start = clock::thread_cpu_ns();
            let mut left = count;
            while left > 0 {
                match inbox.pop() {
                    Some(message) => {
                        black_box(message);
                        left -= 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
            clock::thread_cpu_ns() - start
        });
        (sender.join().expect("no panic"), receiver.join().expect("no panic"))
    });
    micro.show("push, the receiver on another CPU", sent as f64 / count as f64, "ns");
    micro.show("pop, the sender on another CPU", received as f64 / count as f64, "ns");
}

fn reactor(wake: WakeHandle) -> UringReactor {
    UringReactor::new(Options::new(wake)).unwrap_or_else(|error| panic!("{error}"))
}

/// One end of a ping-pong between two reactors that sleep in between. Returns its CPU time.
fn play(
    place: usize,
    own: WakeHandle,
    mut inbox: Inbox<Message>,
    other: &Outbox<Message>,
    count: u64,
    ready: &AtomicBool,
) -> u64 {
    pin(place);
    let mut reactor = reactor(own);
    let mut events: Vec<Event> = Vec::new();
    let start = clock::thread_cpu_ns();
    let mut turn = |reactor: &mut UringReactor, wait| {
        reactor.turn(wait, &mut events).expect("a turn works");
        events.clear();
    };
    let mut left = count;
    let serves = place == 0;
    if serves {
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    } else {
        ready.store(true, Ordering::Release);
    }
    let send = |reactor: &mut UringReactor| {
        if other.push(Vec::new()).expect("there is room") == Wakeup::Needed {
            reactor.wake_peer(other.wake_handle());
        }
    };
    if serves {
        send(&mut reactor);
    }
    while left > 0 {
        match inbox.pop() {
            Some(_) => {
                left -= 1;
                if left > 0 || !serves {
                    send(&mut reactor);
                }
            }
            None if inbox.park() => {
                turn(&mut reactor, Wait::Until(SLEEP));
                inbox.unpark();
            }
            None => turn(&mut reactor, Wait::Now),
        }
    }
    // The last message's wake rides on this.
    turn(&mut reactor, Wait::Now);
    clock::thread_cpu_ns() - start
}

fn rings(micro: Micro) {
    let count = micro.count(100_000);
    let wakes = [(), ()].map(|()| WakeHandle::new().expect("an eventfd"));
    let (first_in, first_out) = mailbox(CAPACITY, wakes[0].clone());
    let (second_in, second_out) = mailbox(CAPACITY, wakes[1].clone());
    let [first, second] = wakes;
    let ready = AtomicBool::new(false);
    let used = std::thread::scope(|scope| {
        let ends = [
            scope.spawn(|| play(0, first, first_in, &second_out, count, &ready)),
            scope.spawn(|| play(1, second, second_in, &first_out, count, &ready)),
        ];
        ends.map(|end| end.join().expect("no panic"))
    });
    let per_message = (used[0] + used[1]) as f64 / (2 * count) as f64;
    micro.show("message to a sleeping shard and its wake, both sides", per_message, "ns");
}

fn main() {
    let micro = Micro::new("mailbox, per message");
    one_thread(micro);
    two_threads(micro);
    rings(micro);
}
