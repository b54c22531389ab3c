//! A node that is the real thing: the shard with its sessions, routing, batches and gates over the real table, spoken to
//! in the protocol of clients.
//!
//! Around it stands what a driver does at each turn: bytes in, batches and replies out, in order. It runs over links that
//! keep order only, since that is what a shard is promised.
//!
//! Every other key is a *pair*: two keys of one slot, to which everything is done in one transaction. For the histories it
//! is one key, and a transaction of which a half can be seen is found out by two answers that differ. A pair is compared
//! and set by WATCH, GET and a transaction behind them.

use crate::face::{Content, Held, Input, Node, Now, Out, Outcome, Request, Sent, Told};
use crate::model::{Answer, Ask};
use crate::net::{Link, Machine, Parcel};
use crate::peers;
use crate::scenario::{MS, addr, machine_of};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::{BootId, Epoch, RangeId};
use dkv_protocol::map::{NodeInfo, StoreMap};
use dkv_shard::command::{Env, ProcessStats};
use dkv_shard::stats::ShardStats;
use dkv_shard::{Hold, Opened, Order, Output, PortKind, SessionId, Shard};
use dkv_table::{HeapMemory, Options, Table};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of a slice of the sum over a range.
const SUM_BYTES: usize = 1 << 20;
/// Slices of background work in a turn.
const SLICES_MAX: usize = 20;

/// A connection of a client.
struct Session {
    id: SessionId,
    /// The request that it has not answered.
    asked: Option<Request>,
    /// What has to be sent when it has told what the key holds, as long as that is what is expected.
    then: Option<Vec<u8>>,
    /// How many replies are to come.
    replies: usize,
    /// Whether one comes first that nobody waits for.
    leftover: bool,
    received: Vec<u8>,
}

/// Batches of requests that came over one link, and the replies that wait.
#[derive(Default)]
struct Served {
    generation: u32,
    /// Batches, and how much of the first is done.
    batches: VecDeque<Vec<u8>>,
    done: usize,
    held: VecDeque<(Vec<u8>, Hold)>,
}

/// See the module.
pub struct ShardNode {
    me: Machine,
    shard: Shard,
    sessions: Vec<Session>,
    opened: u64,
    served: BTreeMap<Machine, Served>,
    /// Whether something is left to do at once.
    busy: bool,
    now_ns: u64,
}

impl ShardNode {
    /// A node that has just started and holds nothing.
    pub fn new(
        me: Machine,
        machines: u8,
        boot: BootId,
        settings: dkv_cluster::Settings,
        now: Now,
    ) -> Self {
        let env = env(me, machines, now);
        let options = Options {
            seed: [boot.0, 4],
            memory_bytes_max: 0,
            eviction: env.table_eviction(),
            first_version: 1 << 32,
        };
        let mut shard = Shard::new(env, addr(me), Table::new(options, Box::new(HeapMemory)));
        shard.replicate(boot, settings);
        Self {
            me,
            shard,
            sessions: Vec::new(),
            opened: 0,
            served: BTreeMap::new(),
            busy: false,
            now_ns: now.boot_ns,
        }
    }

    fn input(&mut self, now: dkv_shard::command::Now, input: Input, out: &mut Out) {
        match input {
            Input::Request(request) => self.ask(now, &request, out),
            Input::News(news) => self.shard.news(now, &news),
            Input::LinkUp(peer) => self.shard.link_up(addr(peer)),
            Input::LinkDown(peer) => self.shard.link_down(addr(peer)),
            Input::Parcel(parcel) => self.parcel(now, parcel, out),
        }
    }

    fn parcel(&mut self, now: dkv_shard::command::Now, parcel: Parcel<Content>, out: &mut Out) {
        let from = parcel.from();
        let read = match parcel.content {
            Content::Peer(body) => {
                self.shard.peer(now, addr(from), &body).map_err(|error| error.to_string())
            }
            Content::Replies(batch) => {
                let read = self.shard.replies(now, addr(from), &batch);
                read.map_err(|error| format!("{error:?}"))
            }
            Content::Requests(batch) => {
                let served = self.served.entry(from).or_default();
                if served.generation != parcel.link.generation {
                    // What came over an earlier link was done or not; nobody waits for the replies.
                    *served = Served { generation: parcel.link.generation, ..Served::default() };
                }
                served.batches.push_back(batch);
                Ok(())
            }
            Content::Forward(_) | Content::Back(..) => Ok(()),
        };
        if let Err(error) = read {
            out.breach.get_or_insert(format!("a batch of {from:?} is refused: {error}"));
        }
    }

    fn ask(&mut self, now: dkv_shard::command::Now, request: &Request, out: &mut Out) {
        let free = self.sessions.iter().position(|session| session.asked.is_none());
        let index = match free {
            Some(index) => index,
            None => match self.open(now) {
                Ok(index) => index,
                Err(refusal) => {
                    let text = String::from_utf8_lossy(&refusal).into_owned();
                    out.breach.get_or_insert(format!("no session: {text}"));
                    return;
                }
            },
        };
        let session = &mut self.sessions[index];
        session.asked = Some(request.clone());
        let mut bytes;
        (bytes, session.then, session.replies) = (command_of(request), None, 1);
        if is_pair(&request.key) {
            let whole = in_transaction(request);
            session.replies = replies_of(request);
            bytes = whole.clone();
            if matches!(request.ask, Ask::SetIf(..)) {
                session.replies = 2;
                session.then = Some(whole);
                bytes = words(&[b"WATCH", request.key.as_bytes()]);
                bytes.extend(words(&[b"GET", request.key.as_bytes()]));
            } else if request.ask.reads() && request.serial.0.is_multiple_of(2) {
                session.replies = 1;
                bytes = words(&[b"MGET", request.key.as_bytes(), &other_of(&request.key)]);
            }
        }
        self.shard.input(now, session.id, &bytes);
    }

    fn open(&mut self, now: dkv_shard::command::Now) -> Result<usize, Vec<u8>> {
        self.opened += 1;
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000);
        let local = SocketAddr::new(address(self.me), 7861);
        let opened = Opened { port: PortKind::Client, peer, local, id: self.opened };
        let id = self.shard.open(now, opened)?;
        self.sessions.push(Session {
            id,
            asked: None,
            then: None,
            replies: 0,
            leftover: false,
            received: Vec::new(),
        });
        Ok(self.sessions.len() - 1)
    }

    /// Executes what other nodes ask, as far as it may be now, and lets the replies go that wait no longer.
    fn serve(&mut self, now: dkv_shard::command::Now, out: &mut Out) {
        for (from, served) in &mut self.served {
            while let Some(batch) = served.batches.front() {
                let (mut replies, mut hold) = (Vec::new(), Hold::default());
                let rest = &batch[served.done..];
                let used =
                    match self.shard.requests_held(now, addr(*from), rest, &mut replies, &mut hold)
                    {
                        Ok(used) => used,
                        Err(error) => {
                            let text = format!("a batch of requests of {from:?}: {error:?}");
                            out.breach.get_or_insert(text);
                            return;
                        }
                    };
                served.done += used;
                if !replies.is_empty() {
                    served.held.push_back((replies, hold));
                }
                if served.done < batch.len() {
                    self.busy = true;
                    break;
                }
                served.done = 0;
                if let Some(batch) = served.batches.pop_front() {
                    self.shard.give_batch_buffer(batch);
                }
            }
            while let Some((replies, hold)) = served.held.front_mut()
                && (hold.is_empty() || self.shard.release(hold, replies))
            {
                let Some((replies, _)) = served.held.pop_front() else { break };
                let generation = served.generation;
                let link = Link { dialler: *from, acceptor: self.me, generation };
                out.sent.push(Sent::Back(link, Content::Replies(replies)));
            }
        }
    }

    /// What a driver does with the orders of a turn.
    fn orders(&mut self, now: dkv_shard::command::Now, out: &mut Out) {
        let orders: Vec<Order> = self.shard.orders().drain(..).collect();
        for order in orders {
            match order {
                Order::Flush(id) => self.flush(id),
                Order::Close(id) | Order::Cut(id) => {
                    self.flush(id);
                    self.shard.ended(id);
                    let index = self.sessions.iter().position(|session| session.id == id);
                    let Some(index) = index else { continue };
                    let session = self.sessions.remove(index);
                    out.breach.get_or_insert(format!(
                        "a session is closed: {:?} {:?}",
                        session.asked,
                        String::from_utf8_lossy(&session.received)
                    ));
                }
                Order::Pause(_) | Order::Resume(_) | Order::Expect(..) => {}
            }
        }
        for session in &mut self.sessions {
            let Some(request) = &session.asked else { continue };
            let (serial, ask) = (request.serial, request.ask);
            let count = session.replies + usize::from(session.leftover);
            let Some(mut replies) = Reply::all(&session.received, count) else { continue };
            session.leftover = false;
            session.received.clear();
            if let Some(transaction) = session.then.take() {
                let told = Reply::last(&mut replies);
                self.busy = true;
                if matches!(&told, Reply::Bulk(value) if value.as_deref() == request.expected.as_deref())
                {
                    session.replies = replies_of(request);
                    self.shard.input(now, session.id, &transaction);
                    continue;
                }
                // Another value, or an error: nothing was done, and the key is watched no more.
                let outcome = match told {
                    Reply::Bulk(_) => Ok(Outcome::Answer(Told::Other(Answer::Flag(false)))),
                    told => told.outcome(Ask::Get),
                };
                self.shard.input(now, session.id, &words(&[b"UNWATCH"]));
                (session.asked, session.leftover) = (None, true);
                match outcome {
                    Ok(outcome) => out.replies.push((serial, outcome)),
                    Err(text) => {
                        out.breach.get_or_insert(format!("WATCH is answered {text}"));
                    }
                }
                continue;
            }
            let pair = is_pair(&request.key);
            session.asked = None;
            let outcome = match Reply::last(&mut replies) {
                Reply::Null if matches!(ask, Ask::SetIf(..)) => Ok(Outcome::Refused("aborted")),
                Reply::Array(both) if pair => {
                    Reply::agreed(both).and_then(|one| match (one, ask) {
                        (Reply::Simple(_), Ask::SetIf(..)) => {
                            Ok(Outcome::Answer(Told::Other(Answer::Flag(true))))
                        }
                        (one, ask) => one.outcome(ask),
                    })
                }
                reply => reply.outcome(ask),
            };
            match outcome {
                Ok(outcome) => out.replies.push((serial, outcome)),
                Err(text) => {
                    out.breach.get_or_insert(format!("{ask:?} is answered {text}"));
                }
            }
        }
    }

    fn flush(&mut self, id: SessionId) {
        let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) else {
            return;
        };
        let mut output = self.shard.take_output(id, Output::default());
        while let Some(some) = output {
            let mut at = 0;
            for (position, insert) in &some.inserts {
                session.received.extend_from_slice(&some.bytes[at..*position]);
                session.received.extend_from_slice(insert);
                at = *position;
            }
            session.received.extend_from_slice(&some.bytes[at..]);
            output = self.shard.take_output(id, some);
        }
    }
}

impl Node for ShardNode {
    fn turn(&mut self, now: Now, inputs: &mut VecDeque<Input>, out: &mut Out) {
        self.now_ns = now.boot_ns;
        self.busy = false;
        let now = dkv_shard::command::Now { boot_ns: now.boot_ns, unix_ms: now.calendar_ms };
        while let Some(input) = inputs.pop_front() {
            self.input(now, input, out);
        }
        self.serve(now, out);
        let mut slices = 0;
        while self.shard.background(now, 64) {
            slices += 1;
            if slices == SLICES_MAX {
                self.busy = true;
                break;
            }
        }
        self.serve(now, out);
        while let Some((to, batch)) = self.shard.next_batch() {
            out.sent.push(Sent::Forth(machine_of(to), Content::Requests(batch)));
        }
        while let Some((to, body)) = self.shard.next_peer_batch() {
            out.sent.push(Sent::Forth(machine_of(to), Content::Peer(body)));
        }
        // Messages that were made may have let something go.
        self.serve(now, out);
        self.orders(now, out);
        self.shard.take_asks(&mut out.asks);
    }

    fn wake_ns(&self) -> u64 {
        let waits = self.busy || self.sessions.iter().any(|session| session.asked.is_some());
        let waits = waits || self.served.values().any(|served| !served.held.is_empty());
        let soon_ns = if self.busy {
            self.now_ns + MS
        } else if waits {
            self.now_ns + 20 * MS
        } else {
            u64::MAX
        };
        self.shard.next_wake_ns().min(soon_ns)
    }

    fn held(&self, _now: Now, range: RangeId) -> (u64, Vec<Held>) {
        let index = self.shard.range_view(range).map_or(0, |view| view.commit);
        let (mut sum, mut cursor) = (0_u128, 0);
        loop {
            cursor = self.shard.sum_range(range, cursor, SUM_BYTES, &mut sum);
            if cursor == 0 {
                break;
            }
        }
        if sum == 0 {
            return (index, Vec::new());
        }
        let value = sum.to_le_bytes().to_vec();
        (index, vec![Held { key: b"the sum of all".to_vec(), value, version: 0, expires: false }])
    }

    fn shown(&self, range: RangeId) -> String {
        self.shard.range_view(range).map_or_else(String::new, |view| peers::view(&view))
    }
}

fn address(machine: Machine) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + machine.0))
}

fn env(me: Machine, machines: u8, now: Now) -> Arc<Env> {
    let infos: Vec<NodeInfo> = (0..machines)
        .map(|machine| NodeInfo {
            name: format!("node{}", machine + 1),
            address: address(Machine(machine)),
            cluster_port: 7811,
            client_port: 7861,
            shard_ports: vec![7900],
        })
        .collect();
    Arc::new(Env {
        store: "Simulated".into(),
        store_id: "0123456789abcdef0123456789abcdef".into(),
        node: format!("node{}", me.0 + 1),
        run_id: "0".repeat(40),
        pid: 1,
        address: address(me),
        client_port: 7861,
        started_boot_ms: now.boot_ns / MS,
        map: Arc::new(StoreMap::spread(infos, Epoch(1))),
        password_sha256: None,
        protected_mode: false,
        settings: dkv_shard::settings::Settings::new(0, Eviction::None),
        clock: || 0,
        random: |bytes| {
            bytes.fill(7);
            true
        },
        io: "simulated".into(),
        stats: vec![Arc::new(ShardStats::default())],
        process: ProcessStats::default(),
    })
}

/// Whether a key stands for two.
fn is_pair(key: &str) -> bool {
    key.ends_with(['1', '3', '5', '7', '9'])
}

/// Whether a transaction on a pair writes something long between the two, which fills a message of its own: so the two
/// would come apart if they were two entries.
fn fills(request: &Request) -> bool {
    !request.ask.reads() && request.serial.0.is_multiple_of(2)
}

/// What that is, in bytes.
const FILLING_BYTES: usize = 5000;

/// Replies to a transaction on a pair.
fn replies_of(request: &Request) -> usize {
    if fills(request) { 5 } else { 4 }
}

/// The other one.
fn other_of(key: &str) -> Vec<u8> {
    format!("{key}'").into_bytes()
}

/// A command for both keys of a pair.
fn in_transaction(request: &Request) -> Vec<u8> {
    let mut both = request.clone();
    // What is compared is watched.
    if let Ask::SetIf(_, value) = both.ask {
        both.ask = Ask::Set(value);
    }
    let mut bytes = words(&[b"MULTI"]);
    bytes.extend(command_of(&both));
    if fills(request) {
        let filling = [b'.'; FILLING_BYTES];
        bytes.extend(words(&[b"SET", format!("{}''", request.key).as_bytes(), &filling]));
    }
    both.key = format!("{}'", request.key).into();
    bytes.extend(command_of(&both));
    bytes.extend(words(&[b"EXEC"]));
    bytes
}

/// A command as clients send it.
fn command_of(request: &Request) -> Vec<u8> {
    let ms = |ttl_ns: u64| (ttl_ns / MS).to_string().into_bytes();
    let (key, value) = (request.key.as_bytes().to_vec(), request.value.to_vec());
    // Half of the requests are put in other words that mean the same.
    let otherwise = request.serial.0 % 2 == 1;
    let all: Vec<Vec<u8>> = match request.ask {
        Ask::SetFor(_, ttl_ns) if otherwise => {
            vec![b"PSETEX".to_vec(), key, ms(ttl_ns), value]
        }
        Ask::SetIf(..) if otherwise && request.expected.is_none() => {
            vec![b"SETNX".to_vec(), key, value]
        }
        Ask::Incr if otherwise => vec![b"INCRBYFLOAT".to_vec(), key, b"1".to_vec()],
        Ask::Get => vec![b"GET".to_vec(), key],
        Ask::Set(_) => vec![b"SET".to_vec(), key, value],
        Ask::SetFor(_, ttl_ns) => vec![b"SET".to_vec(), key, value, b"PX".to_vec(), ms(ttl_ns)],
        Ask::SetIf(..) => match &request.expected {
            None => vec![b"SET".to_vec(), key, value, b"NX".to_vec()],
            Some(expected) => {
                vec![b"SET".to_vec(), key, value, b"IFEQ".to_vec(), expected.to_vec()]
            }
        },
        Ask::Incr => vec![b"INCR".to_vec(), key],
        Ask::Append(_) => vec![b"APPEND".to_vec(), key, value],
        Ask::Del => vec![b"DEL".to_vec(), key],
        Ask::Expire(ttl_ns) => vec![b"PEXPIRE".to_vec(), key, ms(ttl_ns)],
        Ask::Persist => vec![b"PERSIST".to_vec(), key],
    };
    words(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn words(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// One reply.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Simple(String),
    Error(String),
    Number(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
    /// The null array.
    Null,
}

impl Reply {
    /// So many replies, if they are complete.
    fn all(mut bytes: &[u8], count: usize) -> Option<Vec<Self>> {
        (0..count).map(|_| Self::read(&mut bytes)).collect()
    }

    /// Reads one and goes on behind it, if it is complete.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let (line, rest) =
            (std::str::from_utf8(&bytes[1..end]).ok()?.to_owned(), &bytes[end + 2..]);
        let kind = bytes[0];
        *bytes = rest;
        match kind {
            b'+' => Some(Self::Simple(line)),
            b'-' => Some(Self::Error(line)),
            b':' => Some(Self::Number(line.parse().ok()?)),
            b'$' if line == "-1" => Some(Self::Bulk(None)),
            b'$' => {
                let len: usize = line.parse().ok()?;
                let value = rest.get(..len)?.to_vec();
                *bytes = rest.get(len + 2..)?;
                Some(Self::Bulk(Some(value)))
            }
            b'*' if line == "-1" => Some(Self::Null),
            b'*' => Some(Self::Array(Self::all_of(bytes, line.parse().ok()?)?)),
            _ => None,
        }
    }

    fn all_of(bytes: &mut &[u8], count: usize) -> Option<Vec<Self>> {
        (0..count).map(|_| Self::read(bytes)).collect()
    }

    /// The reply that counts of several: the first error, which says why the others are errors too, or the last.
    fn last(replies: &mut Vec<Self>) -> Self {
        let failed = replies.iter().position(|reply| matches!(reply, Self::Error(_)));
        match failed {
            Some(at) => replies.swap_remove(at),
            None => replies.pop().unwrap_or(Self::Null),
        }
    }

    /// What both keys of a pair answered.
    fn agreed(mut both: Vec<Self>) -> Result<Self, String> {
        if both.len() == 3 && both[1] == Self::Simple("OK".into()) {
            both.remove(1);
        }
        match (both.pop(), both.pop()) {
            (Some(one), Some(other)) if one == other => Ok(one),
            (one, other) => {
                Err(format!("by two keys that were always changed together: {other:?}, {one:?}"))
            }
        }
    }

    /// What it tells of that command, or what is wrong with it.
    fn outcome(self, ask: Ask) -> Result<Outcome, String> {
        let answer = |answer| Ok(Outcome::Answer(Told::Other(answer)));
        let compares = matches!(ask, Ask::SetIf(..));
        let counts = matches!(ask, Ask::Incr | Ask::Append(_));
        match self {
            Self::Error(text) => {
                let code = text.split(' ').next().unwrap_or_default();
                match code {
                    "UNCERTAIN" => Ok(Outcome::Unknown),
                    "TRYAGAIN" => Ok(Outcome::Refused("TRYAGAIN")),
                    "CLUSTERDOWN" => Ok(Outcome::Refused("CLUSTERDOWN")),
                    "NOREPLICAS" => Ok(Outcome::Refused("NOREPLICAS")),
                    _ => Err(text),
                }
            }
            Self::Simple(text) if text == "OK" && compares => answer(Answer::Flag(true)),
            Self::Simple(text) if text == "OK" && !ask.reads() => answer(Answer::Done),
            Self::Bulk(None) if compares => answer(Answer::Flag(false)),
            Self::Bulk(value) if ask.reads() => {
                Ok(Outcome::Answer(Told::Value(value.map(Rc::from))))
            }
            Self::Bulk(Some(digits)) if ask == Ask::Incr => {
                let text = String::from_utf8_lossy(&digits).into_owned();
                let number = text.parse().map_err(|_| text)?;
                answer(Answer::Number(number))
            }
            Self::Number(number) if counts => answer(Answer::Number(number)),
            Self::Number(number) if !ask.reads() => answer(Answer::Flag(number == 1)),
            Self::Simple(text) => Err(text),
            Self::Number(number) => Err(number.to_string()),
            Self::Bulk(_) | Self::Array(_) | Self::Null => Err("a value".into()),
        }
    }
}
