//! The clients: what each asks next, of whom, and what it makes of the answer.
//!
//! A client has one command under way. When nobody answers it gives up, on another connection, and the command's outcome
//! stays unknown. Keys take turns, so that no history gets long and none collects many unknown outcomes.

use crate::face::{ClientId, Outcome, Request, Serial, Told};
use crate::history::{Class, History, KeyId, OpRef};
use crate::model::{Answer, Ask};
use crate::net::Machine;
use crate::rng::Rng;
use crate::scenario::Workload;
use dkv_protocol::ids::RangeId;
use std::collections::VecDeque;
use std::rc::Rc;

/// Unknown outcomes after which a key is used no more.
const UNKNOWN_MAX: u32 = 6;
/// Times that a command of the end is tried.
const TRIES_MAX: u32 = 40;

/// A command under way.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay {
    /// Its number.
    pub serial: Serial,
    /// To whom it was sent.
    pub to: Machine,
    op: OpRef,
    last: Option<Last>,
}

/// A command of the end: it has to succeed.
#[derive(Clone, Copy, Debug)]
struct Last {
    key: KeyId,
    ask: Ask,
    tries: u32,
}

#[derive(Debug)]
struct Client {
    at: Machine,
    under_way: Option<UnderWay>,
    /// The last value it saw of the key it compares.
    seen: Option<(KeyId, Option<crate::model::ValueId>)>,
}

/// All clients.
pub struct Clients {
    workload: Workload,
    machines: u8,
    ranges: Vec<RangeId>,
    rng: Rng,
    list: Vec<Client>,
    active: Vec<KeyId>,
    serial: u64,
    last: VecDeque<Last>,
    ending: bool,
    /// A command of the end that was not answered in all its tries.
    pub failed: Option<String>,
}

impl Clients {
    /// All clients, idle.
    pub fn new(workload: Workload, machines: u8, ranges: &[RangeId], mut rng: Rng) -> Self {
        let list = (0..workload.clients)
            .map(|_| Client {
                at: Machine(rng.below(u64::from(machines)) as u8),
                under_way: None,
                seen: None,
            })
            .collect();
        Self {
            workload,
            machines,
            ranges: ranges.to_vec(),
            rng,
            list,
            active: Vec::new(),
            serial: 0,
            last: VecDeque::new(),
            ending: false,
            failed: None,
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = ClientId> + use<> {
        (0..self.list.len() as u8).map(ClientId)
    }

    /// How long a client pauses before its next command.
    pub fn pause_ns(&mut self) -> u64 {
        if self.ending {
            1 + self.rng.below(1_000_000)
        } else {
            self.rng.delay(self.workload.think_ns)
        }
    }

    /// How long it waits for an answer.
    pub fn patience_ns(&self) -> u64 {
        self.workload.patience_ns
    }

    /// Who waits for an answer of this machine.
    pub fn waiting_at(&self, machine: Machine) -> Vec<Serial> {
        let under_way = self.list.iter().filter_map(|client| client.under_way);
        under_way.filter(|u| u.to == machine).map(|u| u.serial).collect()
    }

    /// No more commands but these: every key is read, and every range written once more.
    pub fn end(&mut self, history: &mut History, served: &[RangeId]) {
        self.ending = true;
        let value = history.values.id(b"the end");
        for range in served {
            let name = format!("{}end", tag_of(*range));
            let key = history.add_key(name, *range, Class::Register);
            self.last.push_back(Last { key, ask: Ask::Set(value), tries: 0 });
        }
        let keys: Vec<KeyId> = history
            .keys()
            .filter(|(id, key)| served.contains(&key.range) && !history.is_void(*id))
            .map(|(id, _)| id)
            .collect();
        self.last.extend(keys.iter().map(|key| Last { key: *key, ask: Ask::Get, tries: 0 }));
    }

    /// Whether all commands of the end are through.
    pub fn ended(&self) -> bool {
        self.ending && self.last.is_empty() && self.list.iter().all(|c| c.under_way.is_none())
    }

    /// The next command of a client, and to whom it goes.
    pub fn next(
        &mut self,
        now_ns: u64,
        client: ClientId,
        history: &mut History,
    ) -> Option<(Machine, Request)> {
        if self.list[usize::from(client.0)].under_way.is_some() {
            return None;
        }
        let last = if self.ending { Some(self.last.pop_front()?) } else { None };
        let (key, ask) = match last {
            Some(last) => (last.key, last.ask),
            None => self.draw(client, history),
        };
        if self.ending || self.rng.chance(50) {
            self.list[usize::from(client.0)].at = self.any_machine();
        }
        self.serial += 1;
        let serial = Serial(self.serial);
        let op = history.call(now_ns, client.0, key, ask);
        let to = self.list[usize::from(client.0)].at;
        self.list[usize::from(client.0)].under_way = Some(UnderWay { serial, to, op, last });
        let value_of = |id| Rc::<[u8]>::from(history.values.bytes(id));
        let (value, expected) = match ask {
            Ask::Set(value) | Ask::SetFor(value, _) | Ask::Append(value) => (value_of(value), None),
            Ask::SetIf(expected, value) => (value_of(value), expected.map(value_of)),
            _ => (Rc::default(), None),
        };
        let of = history.key(key);
        let request =
            Request { serial, key: of.name.as_str().into(), range: of.range, ask, value, expected };
        Some((to, request))
    }

    fn any_machine(&mut self) -> Machine {
        Machine(self.rng.below(u64::from(self.machines)) as u8)
    }

    fn draw(&mut self, client: ClientId, history: &mut History) -> (KeyId, Ask) {
        let workload = self.workload;
        self.active.retain(|id| {
            let key = history.key(*id);
            let used_up = key.ops.len() >= workload.ops_per_key || key.unknown >= UNKNOWN_MAX;
            !used_up && !history.is_void(*id)
        });
        while self.active.len() < workload.keys {
            let range = *self.rng.pick(&self.ranges);
            let on: Vec<Class> = [Class::Register, Class::Counter, Class::List, Class::Expiring]
                .into_iter()
                .zip(workload.classes)
                .filter_map(|(class, on)| on.then_some(class))
                .collect();
            let class = *self.rng.pick(&on);
            let name = format!("{}k{}", tag_of(range), history.keys().count());
            self.active.push(history.add_key(name, range, class));
        }
        let key = *self.rng.pick(&self.active);
        let class = history.key(key).class;
        let reads = client.0 < workload.readers || self.rng.chance(workload.reads_permille);
        let ask = if reads { Ask::Get } else { self.draw_write(client, key, class, history) };
        (key, ask)
    }

    fn draw_write(
        &mut self,
        client: ClientId,
        key: KeyId,
        class: Class,
        history: &mut History,
    ) -> Ask {
        let lot = self.rng.below(100);
        let ttl_ns = 1_000_000 * (1 + self.rng.delay(self.workload.ttl_ns) / 1_000_000);
        match class {
            Class::Counter => match lot {
                0..=89 => Ask::Incr,
                90..=95 => Ask::Del,
                _ => Ask::Set(history.values.id(self.rng.below(1000).to_string().as_bytes())),
            },
            Class::List if lot < 95 => {
                Ask::Append(history.values.id(format!("{},", self.serial).as_bytes()))
            }
            Class::List => Ask::Del,
            Class::Register | Class::Expiring => {
                let mut text = format!("v{}", self.serial);
                if self.rng.chance(self.workload.long_permille) {
                    text += &".".repeat(self.rng.below(self.workload.long_bytes) as usize);
                }
                let value = history.values.id(text.as_bytes());
                let seen = self.list[usize::from(client.0)].seen;
                match (class, lot, seen) {
                    (_, 0..=9, _) => Ask::Del,
                    (Class::Expiring, 10..=59, _) => Ask::SetFor(value, ttl_ns),
                    (Class::Expiring, 60..=79, _) => Ask::Expire(ttl_ns),
                    (Class::Expiring, 80..=86, _) => Ask::Persist,
                    (Class::Register, 10..=49, Some((of, seen))) if of == key => {
                        Ask::SetIf(seen, value)
                    }
                    _ => Ask::Set(value),
                }
            }
        }
    }

    /// A command ends, as far as its client goes. Returns the client when it was still waiting for that.
    pub fn over(
        &mut self,
        now_ns: u64,
        serial: Serial,
        outcome: &Outcome,
        history: &mut History,
    ) -> Option<ClientId> {
        let index = self
            .list
            .iter()
            .position(|client| client.under_way.is_some_and(|u| u.serial == serial))?;
        let under_way = self.list[index].under_way.take()?;
        let op = under_way.op;
        match outcome {
            Outcome::Answer(told) => {
                let answer = match told {
                    Told::Value(value) => {
                        let id = value.as_ref().map(|value| history.values.id(value));
                        self.list[index].seen = Some((op.key, id));
                        Answer::Value(id)
                    }
                    Told::Other(answer) => *answer,
                };
                history.answered(now_ns, op, answer);
            }
            Outcome::Refused(_) => history.refused(op),
            Outcome::Unknown => history.unknown(op),
        }
        if !matches!(outcome, Outcome::Answer(_)) {
            self.list[index].at = self.any_machine();
            if let Some(last) = under_way.last {
                self.again(last, outcome, history);
            }
        }
        Some(ClientId(index as u8))
    }

    fn again(&mut self, last: Last, outcome: &Outcome, history: &History) {
        if last.tries < TRIES_MAX {
            self.last.push_back(Last { tries: last.tries + 1, ..last });
            return;
        }
        let name = &history.key(last.key).name;
        let text =
            format!("{:?} of {name} is not answered after all is mended: {outcome:?}", last.ask);
        self.failed.get_or_insert(text);
    }
}

/// A hash tag whose slot is in that range, as the start of a key.
pub fn tag_of(range: RangeId) -> String {
    use std::sync::OnceLock;
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![String::new(); 256];
        let mut missing = tags.len();
        for number in 0_u32.. {
            let tag = format!("{{{number}}}");
            let place =
                &mut tags[usize::from(dkv_protocol::slots::slot_of(tag.as_bytes()).range().0)];
            if place.is_empty() {
                *place = tag;
                missing -= 1;
            }
            if missing == 0 {
                break;
            }
        }
        tags
    });
    tags[usize::from(range.0)].clone()
}
