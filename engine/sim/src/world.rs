//! The world of a run: machines with their clocks, nodes and managers, what is under way between them, and time.
//!
//! Everything that happens is an event of one queue, and every choice is drawn from the seed. A node works in turns, as
//! it really does: what came in since the last one is worked on together, and what it sends leaves at the end.

use crate::clients::Clients;
use crate::clock::Clock;
use crate::control::Control;
use crate::ending::Phase;
use crate::face::{ClientId, Content, Input, Node, Now, Out, Outcome, Request, Sent, Serial};
use crate::history::History;
use crate::ledger::Ledger;
use crate::net::{Arrival, Link, Machine, Net, Parcel, Plane};
use crate::node::SimNode;
use crate::peers;
use crate::planted::Planted;
use crate::queue::Queue;
use crate::real::ShardNode;
use crate::rng::Rng;
use crate::scenario::{Driven, MS, Scenario};
use crate::trace::Trace;
use dkv_catalog::Applied;
use dkv_protocol::ids::{BootId, Epoch, RangeId};
use dkv_protocol::ranges::{ConfigAsk, RangeNews};
use std::collections::{BTreeMap, VecDeque};

/// How often a manager looks for news that its node has not got.
const CATCH_UP_NS: u64 = 60 * MS;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A parcel comes to the end of its way, for the process that was there when it left.
    Deliver { parcel: Parcel<Content>, incarnation: u32 },
    /// A node works.
    Turn { machine: Machine, incarnation: u32 },
    /// A timer of a node.
    Wake { machine: Machine, incarnation: u32, at_ns: u64 },
    /// A node dials.
    Dial { dialler: Machine, acceptor: Machine },
    /// A node notices that its link is gone.
    LinkGone { link: Link },
    /// A stalled link is given up.
    GiveUp { link: Link },
    /// A manager registers the process of its machine.
    Register { machine: Machine, boot: BootId },
    /// A manager reports that a process has ended.
    ReportDead { machine: Machine, boot: BootId },
    /// All ranges are formed.
    Form,
    /// What copies ask comes to the catalogue.
    Asks { machine: Machine, asks: Vec<ConfigAsk> },
    /// News come to a node.
    News { machine: Machine, incarnation: u32, news: Vec<RangeNews> },
    /// A manager looks for what its node has not been told.
    CatchUp { machine: Machine },
    /// A fault of the scenario begins.
    FaultBegins(usize),
    /// It ends.
    FaultEnds(usize),
    /// A process starts again.
    Restart { machine: Machine },
    /// A client may ask.
    Act(ClientId),
    /// A request comes to a node.
    Request { machine: Machine, incarnation: u32, request: Request },
    /// A client is told.
    Reply { serial: Serial, outcome: Outcome },
    /// A client has waited long enough.
    Patience(Serial),
    /// All is mended.
    Mended,
    /// Somebody looks whether the run may end.
    Inspect,
}

/// A machine.
pub(crate) struct Host {
    pub(crate) clock: Clock,
    pub(crate) node: Option<Box<dyn Node>>,
    pub(crate) incarnation: u32,
    pub(crate) boot: BootId,
    inbox: VecDeque<Input>,
    turn_due: bool,
    wake_ns: u64,
    pub(crate) paused_until_ns: u64,
    pub(crate) slow_ns: u64,
    pub(crate) manager_away: u32,
    pub(crate) lost: u32,
}

/// See the module.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) planted: Planted,
    pub(crate) driven: Driven,
    pub(crate) queue: Queue<Event>,
    pub(crate) net: Net<Content>,
    pub(crate) control: Control,
    pub(crate) hosts: Vec<Host>,
    pub(crate) clients: Clients,
    pub(crate) history: History,
    pub(crate) ledger: Ledger,
    pub(crate) trace: Trace,
    pub(crate) rng: Rng,
    pub(crate) breaches: Vec<String>,
    pub(crate) phase: Phase,
    pub(crate) over_and_done: bool,
    pub(crate) formed: BTreeMap<RangeId, Epoch>,
    pub(crate) offline: u32,
    pub(crate) changes: u64,
}

impl World {
    /// A world in which nothing has happened yet.
    pub(crate) fn new(seed: u64, planted: Planted, driven: Driven, readable: bool) -> Self {
        let scenario = Scenario::of(seed, planted, driven);
        let mut rng = Rng::new(seed);
        let net = Net::new(usize::from(scenario.machines), scenario.weather, rng.fork());
        let control = Control::new(&scenario);
        let clients =
            Clients::new(scenario.workload, scenario.machines, &scenario.ranges, rng.fork());
        let hosts = scenario
            .clocks
            .iter()
            .map(|(up_ns, rate_ppm)| Host {
                clock: Clock::new(*up_ns, *rate_ppm, 1_700_000_000_000),
                node: None,
                incarnation: 0,
                boot: BootId(0),
                inbox: VecDeque::new(),
                turn_due: false,
                wake_ns: u64::MAX,
                paused_until_ns: 0,
                slow_ns: 0,
                manager_away: 0,
                lost: 0,
            })
            .collect();
        let mut world = Self {
            scenario,
            planted,
            driven,
            queue: Queue::default(),
            net,
            control,
            hosts,
            clients,
            history: History::default(),
            ledger: Ledger::default(),
            trace: Trace::new(readable),
            rng,
            breaches: Vec::new(),
            phase: Phase::Faults,
            over_and_done: false,
            formed: BTreeMap::new(),
            offline: 0,
            changes: 0,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for machine in self.scenario.all() {
            let after_ns = self.rng.below(5 * MS);
            self.queue.after(after_ns, Event::Restart { machine });
            self.queue.after(CATCH_UP_NS, Event::CatchUp { machine });
        }
        self.queue.after(20 * MS, Event::Form);
        for client in self.clients.all() {
            let after_ns = 30 * MS + self.rng.below(10 * MS);
            self.queue.after(after_ns, Event::Act(client));
        }
        for index in 0..self.scenario.faults.len() {
            self.queue.at(self.scenario.faults[index].0, Event::FaultBegins(index));
        }
        self.queue.at(self.scenario.mended_ns, Event::Mended);
    }

    pub(crate) fn host(&mut self, machine: Machine) -> &mut Host {
        &mut self.hosts[machine.index()]
    }

    pub(crate) fn now_of(&self, machine: Machine) -> Now {
        let (clock, true_ns) = (&self.hosts[machine.index()].clock, self.queue.now_ns());
        Now { boot_ns: clock.boot_ns(true_ns), calendar_ms: clock.calendar_ms(true_ns) }
    }

    pub(crate) fn say(&mut self, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.queue.now_ns(), text);
    }

    pub(crate) fn breach(&mut self, text: String) {
        self.trace.line(self.queue.now_ns(), format_args!("BREACH {text}"));
        if self.breaches.len() < 20 {
            self.breaches.push(text);
        }
    }

    /// Lets the next event happen.
    pub(crate) fn step(&mut self) {
        let Some(event) = self.queue.pop() else {
            self.over_and_done = true;
            return;
        };
        let now_ns = self.queue.now_ns();
        match event {
            Event::Deliver { parcel, incarnation } => self.deliver(parcel, incarnation),
            Event::Turn { machine, incarnation } => self.turn(machine, incarnation),
            Event::Wake { machine, incarnation, at_ns } => {
                let host = self.host(machine);
                if host.incarnation == incarnation && host.wake_ns == at_ns {
                    host.wake_ns = u64::MAX;
                    self.turn_soon(machine);
                }
            }
            Event::Dial { dialler, acceptor } => self.dial(dialler, acceptor),
            Event::LinkGone { link } => {
                self.trace.event(now_ns, 0x10 + u64::from(link.dialler.0), &[link.acceptor.0]);
                if self.net.link(link.dialler, link.acceptor).is_none() {
                    self.input(link.dialler, Input::LinkDown(link.acceptor));
                }
            }
            Event::GiveUp { link } => {
                let cut = self.net.cut(Plane::Data, link.dialler, link.acceptor)
                    || self.net.cut(Plane::Data, link.acceptor, link.dialler)
                    || self.hosts[link.acceptor.index()].lost > 0;
                if cut && self.net.lives(link) {
                    self.break_link(link.dialler, link.acceptor, 0);
                }
            }
            Event::Register { machine, boot } => self.register(machine, boot),
            Event::ReportDead { machine, boot } => self.report_dead(machine, boot),
            Event::Form => {
                let applied = self.control.form(now_ns);
                self.applied(&applied);
            }
            Event::Asks { machine, asks } => self.asks(machine, &asks),
            Event::News { machine, incarnation, news } => self.news(machine, incarnation, news),
            Event::CatchUp { machine } => {
                self.queue.after(CATCH_UP_NS, Event::CatchUp { machine });
                let news = self.control.behind(machine);
                if !news.is_empty() {
                    self.send_news(machine, news);
                }
            }
            Event::FaultBegins(index) => self.fault_begins(index),
            Event::FaultEnds(index) => self.fault_ends(index),
            Event::Restart { machine } => self.restart(machine),
            Event::Act(client) => self.act(client),
            Event::Request { machine, incarnation, request } => {
                self.request(machine, incarnation, request);
            }
            Event::Reply { serial, outcome } => self.over(serial, &outcome),
            Event::Patience(serial) => self.over(serial, &Outcome::Unknown),
            Event::Mended => self.mend(),
            Event::Inspect => self.inspect(),
        }
    }

    // Nodes.

    /// A node gets something; it works on it in its next turn.
    pub(crate) fn input(&mut self, machine: Machine, input: Input) {
        let host = self.host(machine);
        if host.node.is_some() {
            host.inbox.push_back(input);
            self.turn_soon(machine);
        }
    }

    fn turn_soon(&mut self, machine: Machine) {
        let late_ns = self.rng.below(self.scenario.turn_ns);
        let now_ns = self.queue.now_ns();
        let host = &mut self.hosts[machine.index()];
        if host.node.is_none() || std::mem::replace(&mut host.turn_due, true) {
            return;
        }
        let slow_ns = if host.slow_ns > 0 { self.rng.delay(host.slow_ns) } else { 0 };
        let at_ns = (now_ns + late_ns + slow_ns).max(host.paused_until_ns);
        let incarnation = host.incarnation;
        self.queue.at(at_ns, Event::Turn { machine, incarnation });
    }

    fn turn(&mut self, machine: Machine, incarnation: u32) {
        let (now_ns, now) = (self.queue.now_ns(), self.now_of(machine));
        let readable = self.trace.readable();
        let host = &mut self.hosts[machine.index()];
        if host.incarnation != incarnation {
            return;
        }
        if now_ns < host.paused_until_ns {
            let at_ns = host.paused_until_ns;
            self.queue.at(at_ns, Event::Turn { machine, incarnation });
            return;
        }
        host.turn_due = false;
        let Some(node) = host.node.as_mut() else { return };
        let mut out = Out { readable, ..Out::default() };
        node.turn(now, &mut host.inbox, &mut out);
        let wake_ns = node.wake_ns();
        self.trace.event(now_ns, 0x20 + u64::from(machine.0), &[]);
        self.emit(machine, out);
        self.wake_at(machine, wake_ns);
    }

    fn wake_at(&mut self, machine: Machine, boot_ns: u64) {
        if boot_ns == u64::MAX {
            return;
        }
        let late_ns = self.rng.below(self.scenario.timer_ns);
        let now_ns = self.queue.now_ns();
        let host = &mut self.hosts[machine.index()];
        let at_ns = host.clock.true_ns(boot_ns).max(now_ns) + late_ns;
        // A timer that is set already comes early enough, or the turn that it causes sets the next.
        if host.wake_ns <= at_ns {
            return;
        }
        host.wake_ns = at_ns;
        let incarnation = host.incarnation;
        self.queue.at(at_ns, Event::Wake { machine, incarnation, at_ns });
    }

    fn emit(&mut self, machine: Machine, out: Out) {
        for note in out.notes {
            self.say(format_args!("n{} {note}", machine.0));
        }
        for sent in out.sent {
            match sent {
                Sent::Forth(to, content) => {
                    if let Some(link) = self.net.link(machine, to) {
                        self.send(Parcel { link, forth: true, content });
                    }
                }
                Sent::Back(link, content) => self.send(Parcel { link, forth: false, content }),
            }
        }
        for (serial, outcome) in out.replies {
            let after_ns = self.net.delay_ns(machine, machine);
            self.queue.after(after_ns, Event::Reply { serial, outcome });
        }
        for (range, index, stamp) in out.committed {
            if let Err(breach) = self.ledger.committed(range, index, stamp) {
                self.breach(format!("{breach} (seen at node {})", machine.0));
            }
        }
        for (range, index) in out.acknowledged {
            self.ledger.acknowledged(range, index);
        }
        if let Some(breach) = out.breach {
            self.breach(format!("node {}: {breach}", machine.0));
        }
        if !out.asks.is_empty() && self.control_path(machine) {
            for ask in &out.asks {
                if self.trace.readable() {
                    self.say(format_args!("n{} asks {}", machine.0, peers::ask(ask)));
                }
            }
            let after_ns = MS / 10 + self.rng.delay(self.scenario.control_ns);
            self.queue.after(after_ns, Event::Asks { machine, asks: out.asks });
        }
    }

    fn send(&mut self, parcel: Parcel<Content>) {
        let now_ns = self.queue.now_ns();
        let incarnation = self.hosts[parcel.to().index()].incarnation;
        let [first, second] = self.net.send(now_ns, parcel.link, parcel.forth);
        // Only messages of the copies claim to survive being doubled.
        if let Some(at_ns) = second.filter(|_| matches!(parcel.content, Content::Peer(_))) {
            self.queue.at(at_ns, Event::Deliver { parcel: parcel.clone(), incarnation });
        }
        if let Some(at_ns) = first {
            self.queue.at(at_ns, Event::Deliver { parcel, incarnation });
        }
    }

    fn deliver(&mut self, parcel: Parcel<Content>, incarnation: u32) {
        let to = parcel.to();
        if self.hosts[to.index()].incarnation != incarnation {
            return;
        }
        let now_ns = self.queue.now_ns();
        if let Arrival::Here(parcel) = self.net.arrive(parcel) {
            let from = parcel.from();
            let what = 0x100 | u64::from(from.0) << 4 | u64::from(to.0);
            match &parcel.content {
                Content::Peer(body) => {
                    self.trace.event(now_ns, what, body);
                    if self.trace.readable() {
                        let text = peers::shown(body);
                        self.say(format_args!("n{} -> n{} {text}", from.0, to.0));
                    }
                }
                Content::Requests(batch) | Content::Replies(batch) => {
                    self.trace.event(now_ns, what, batch);
                    let (kind, len) =
                        (if parcel.forth { "requests" } else { "replies" }, batch.len());
                    self.say(format_args!("n{} -> n{} {kind}, {len} bytes", from.0, to.0));
                }
                Content::Forward(request) => {
                    self.trace.event(now_ns, what, &request.serial.0.to_le_bytes());
                    let (serial, key) = (request.serial.0, &request.key);
                    self.say(format_args!("n{} -> n{} forward #{serial} of {key}", from.0, to.0));
                }
                Content::Back(serial, outcome) => {
                    self.trace.event(now_ns, what, &serial.0.to_le_bytes());
                    let serial = serial.0;
                    self.say(format_args!("n{} -> n{} back #{serial}: {outcome:?}", from.0, to.0));
                }
            }
            self.input(to, Input::Parcel(parcel));
        }
    }

    // Links.

    pub(crate) fn break_link(&mut self, dialler: Machine, acceptor: Machine, after_ns: u64) {
        let Some(link) = self.net.link(dialler, acceptor) else { return };
        self.net.break_link(dialler, acceptor);
        self.queue.after(after_ns, Event::LinkGone { link });
        let redial_ns = after_ns + self.rng.between(1, 60) * MS;
        self.queue.after(redial_ns, Event::Dial { dialler, acceptor });
    }

    fn dial(&mut self, dialler: Machine, acceptor: Machine) {
        if self.net.link(dialler, acceptor).is_some() || self.hosts[dialler.index()].node.is_none()
        {
            return;
        }
        let cut = self.net.cut(Plane::Data, dialler, acceptor)
            || self.net.cut(Plane::Data, acceptor, dialler);
        if cut || self.hosts[acceptor.index()].node.is_none() {
            let after_ns = self.rng.between(10, 60) * MS;
            self.queue.after(after_ns, Event::Dial { dialler, acceptor });
            return;
        }
        // Whatever an earlier process of the dialler left under way ends with its link.
        self.net.break_link(dialler, acceptor);
        self.net.connect(dialler, acceptor);
        self.say(format_args!("n{} has a link to n{}", dialler.0, acceptor.0));
        // The end of the last one may not have been noticed yet.
        self.input(dialler, Input::LinkDown(acceptor));
        self.input(dialler, Input::LinkUp(acceptor));
    }

    // Processes.

    pub(crate) fn kill(&mut self, machine: Machine, closes: bool) {
        let host = self.host(machine);
        if host.node.take().is_none() {
            return;
        }
        host.incarnation += 1;
        host.inbox.clear();
        host.turn_due = false;
        host.wake_ns = u64::MAX;
        for other in self.scenario.all().filter(|other| *other != machine) {
            // What it sent is under way; what was sent to it is lost.
            self.net.orphan(machine, other);
            if closes {
                let after_ns = self.net.delay_ns(machine, other);
                self.break_link(other, machine, after_ns);
            } else if let Some(link) = self.net.link(other, machine) {
                let after_ns = self.rng.between(200, 900) * MS;
                self.queue.after(after_ns, Event::GiveUp { link });
            }
        }
        if closes {
            for serial in self.clients.waiting_at(machine) {
                let after_ns = self.net.delay_ns(machine, machine);
                self.queue.after(after_ns, Event::Reply { serial, outcome: Outcome::Unknown });
            }
        }
    }

    fn restart(&mut self, machine: Machine) {
        if self.hosts[machine.index()].node.is_some() {
            return;
        }
        if self.hosts[machine.index()].lost > 0 {
            self.queue.after(50 * MS, Event::Restart { machine });
            return;
        }
        let fresh = BootId(self.rng.next_u64() >> 1);
        let (settings, planted, driven) = (self.scenario.settings, self.planted, self.driven);
        let (machines, now) = (self.scenario.machines, self.now_of(machine));
        let host = self.host(machine);
        if !planted.rule().keeps_identity_on_restart() || host.boot == BootId(0) {
            host.boot = fresh;
        }
        let boot = host.boot;
        let node: Box<dyn Node> = match driven {
            Driven::Copies => Box::new(SimNode::new(machine, boot, settings, planted)),
            Driven::Shard => Box::new(ShardNode::new(machine, machines, boot, settings, now)),
        };
        self.host(machine).node = Some(node);
        self.control.forget_told(machine);
        self.say(format_args!("n{} starts with boot {:x}", machine.0, boot.0));
        let others: Vec<Machine> = self.scenario.all().filter(|other| *other != machine).collect();
        for other in others {
            self.break_link(other, machine, 0);
            self.input(machine, Input::LinkDown(other));
            let after_ns = self.rng.between(1, 4) * MS;
            self.queue.after(after_ns, Event::Dial { dialler: machine, acceptor: other });
            self.queue.after(after_ns * 2, Event::Dial { dialler: other, acceptor: machine });
        }
        let after_ns = self.rng.below(3 * MS);
        self.queue.after(after_ns, Event::Register { machine, boot });
    }

    // The control path.

    /// Whether a machine and the managers that decide hear each other.
    fn control_path(&self, machine: Machine) -> bool {
        let host = &self.hosts[machine.index()];
        host.manager_away == 0 && host.lost == 0 && !self.net.cut(Plane::Control, machine, machine)
    }

    fn register(&mut self, machine: Machine, boot: BootId) {
        let host = &self.hosts[machine.index()];
        if host.boot != boot || host.node.is_none() {
            return;
        }
        if !self.control_path(machine) {
            self.queue.after(40 * MS, Event::Register { machine, boot });
            return;
        }
        let now_ns = self.queue.now_ns();
        let applied = self.control.node_up(now_ns, machine, boot);
        self.say(format_args!("n{} is registered: {:?}", machine.0, applied.outcome));
        self.applied(&applied);
    }

    fn report_dead(&mut self, machine: Machine, boot: BootId) {
        if !self.control_path(machine) {
            self.queue.after(40 * MS, Event::ReportDead { machine, boot });
            return;
        }
        let applied = self.control.dead(machine, boot);
        self.say(format_args!("n{} is reported dead: {:?}", machine.0, applied.outcome));
        self.applied(&applied);
    }

    fn asks(&mut self, machine: Machine, asks: &[ConfigAsk]) {
        let (applied, answers) = self.control.asks(asks.to_vec());
        for (ask, outcome) in asks.iter().zip(&applied.asks) {
            if self.trace.readable() {
                self.say(format_args!("the catalogue: {outcome:?} for {}", peers::ask(ask)));
            }
        }
        self.applied(&applied);
        self.send_news(machine, answers);
    }

    /// The catalogue has changed: everybody is told, and what must not happen is looked for.
    pub(crate) fn applied(&mut self, applied: &Applied) {
        let now_ns = self.queue.now_ns();
        for range in &applied.changed {
            self.changes += 1;
            let Some(config) = self.control.config(*range).cloned() else { continue };
            self.trace.event(now_ns, 0x30 + u64::from(range.0), &config.epoch.0.to_le_bytes());
            if self.trace.readable() {
                let placement = self.control.placement(*range);
                let text = peers::config(&config, &placement);
                self.say(format_args!("range {}: {text}", range.0));
            }
            self.look_at(*range, &config);
        }
        if applied.changed.is_empty() {
            return;
        }
        let news: Vec<RangeNews> =
            applied.changed.iter().filter_map(|range| self.control.news(*range)).collect();
        for machine in self.scenario.all() {
            self.send_news(machine, news.clone());
        }
    }

    fn send_news(&mut self, machine: Machine, news: Vec<RangeNews>) {
        if !self.control_path(machine) {
            return;
        }
        let incarnation = self.hosts[machine.index()].incarnation;
        let after_ns = MS / 10 + self.rng.delay(self.scenario.control_ns);
        self.queue.after(after_ns, Event::News { machine, incarnation, news });
    }

    fn news(&mut self, machine: Machine, incarnation: u32, news: Vec<RangeNews>) {
        let host = &self.hosts[machine.index()];
        let gone = host.incarnation != incarnation || host.node.is_none();
        if gone || host.manager_away > 0 {
            return;
        }
        for news in &news {
            self.control.told(machine, news);
        }
        self.trace.event(self.queue.now_ns(), 0x40 + u64::from(machine.0), &[news.len() as u8]);
        self.input(machine, Input::News(news));
    }

    // Clients.

    fn act(&mut self, client: ClientId) {
        let now_ns = self.queue.now_ns();
        let Some((machine, request)) = self.clients.next(now_ns, client, &mut self.history) else {
            return;
        };
        let serial = request.serial;
        self.trace.event(now_ns, 0x50 + u64::from(client.0), request.key.as_bytes());
        if self.trace.readable() {
            let ask = crate::model::ask_shown(&self.history.values, request.ask).to_string();
            let key = &request.key;
            self.trace.line(
                now_ns,
                format_args!("c{} -> n{} #{} {key} {ask:.60}", client.0, machine.0, serial.0),
            );
        }
        let incarnation = self.hosts[machine.index()].incarnation;
        let after_ns = self.net.delay_ns(machine, machine);
        self.queue.after(after_ns, Event::Request { machine, incarnation, request });
        let patience_ns = self.clients.patience_ns();
        self.queue.after(patience_ns, Event::Patience(serial));
    }

    fn request(&mut self, machine: Machine, incarnation: u32, request: Request) {
        let host = &self.hosts[machine.index()];
        if host.lost > 0 {
            return;
        }
        if host.node.is_none() || host.incarnation != incarnation {
            // Nobody listens there, or the connection was to a process that has ended.
            let outcome = Outcome::Refused("connection refused");
            self.over(request.serial, &outcome);
            return;
        }
        self.input(machine, Input::Request(request));
    }

    fn over(&mut self, serial: Serial, outcome: &Outcome) {
        let now_ns = self.queue.now_ns();
        let Some(client) = self.clients.over(now_ns, serial, outcome, &mut self.history) else {
            return;
        };
        let kind = match outcome {
            Outcome::Answer(_) => 0,
            Outcome::Refused(_) => 1,
            Outcome::Unknown => 2,
        };
        self.trace.event(now_ns, 0x60 + u64::from(client.0), &[kind]);
        self.say(format_args!("c{} #{}: {outcome:.80?}", client.0, serial.0));
        let mut pause_ns = self.clients.pause_ns();
        if kind != 0 {
            pause_ns += self.rng.below(10 * MS);
            // At the end a command is tried again until even slow managers have told everybody.
            if let Phase::Ending { .. } = self.phase {
                pause_ns += 50 * MS;
            }
        }
        self.queue.after(pause_ns, Event::Act(client));
    }
}
