//! What a seed means: how many machines, copies and clients, what the network and the clocks are like, which commands are
//! used, and which faults happen when.
//!
//! Each seed draws which kinds of faults it has at all, and then a few of those: runs with every fault at once are alike,
//! and hide in their noise what two faults alone would show.

use crate::net::{Machine, Weather};
use crate::planted::Planted;
use crate::rng::Rng;
use dkv_cluster::Settings;
use dkv_protocol::ids::{NodeIndex, RangeId, ShardAddr, ShardIndex};
use dkv_protocol::ranges::{Ack, OnTotalLoss, Placement, ReadMode, Replication};

/// A thousandth of a second.
pub const MS: u64 = 1_000_000;

/// How much of the real node is simulated around the real replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driven {
    /// The replication alone, over a plain table: it is judged by its own positions too, and links may do anything.
    #[default]
    Copies,
    /// The whole shard over its table, spoken to by clients' bytes.
    Shard,
}

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process ends and comes back empty. Its manager says so, or not before it is back.
    Crash {
        /// Whose.
        machine: Machine,
        /// How long until its manager has said so.
        reported_after_ns: Option<u64>,
        /// How long it is away.
        for_ns: u64,
    },
    /// A machine is gone with its manager: nothing is closed, nothing said. It comes back.
    MachineLoss {
        /// Which.
        machine: Machine,
        /// How long it is away.
        for_ns: u64,
    },
    /// Nothing gets from some machines to some others.
    Cut {
        /// From whom, to whom.
        pairs: Vec<(Machine, Machine)>,
        /// Between nodes.
        data: bool,
        /// The machines that are cut off from the managers that decide.
        control: Vec<Machine>,
        /// How long.
        for_ns: u64,
    },
    /// A process does not run.
    Pause {
        /// Whose.
        machine: Machine,
        /// How long.
        for_ns: u64,
    },
    /// The turns of a process come late.
    Slow {
        /// Whose.
        machine: Machine,
        /// How late.
        turn_ns: u64,
        /// How long.
        for_ns: u64,
    },
    /// What goes between two machines takes longer.
    Far {
        /// From whom.
        from: Machine,
        /// To whom.
        to: Machine,
        /// How much longer.
        extra_ns: u64,
        /// How long.
        for_ns: u64,
    },
    /// A link breaks.
    Break {
        /// Who dialled it.
        dialler: Machine,
        /// To whom.
        acceptor: Machine,
    },
    /// Boot time goes on at another rate.
    Rate {
        /// Where.
        machine: Machine,
        /// Millionths of a second in a second.
        rate_ppm: u64,
    },
    /// The calendar is set.
    Calendar {
        /// Where.
        machine: Machine,
        /// By how much.
        by_ms: i64,
    },
    /// A manager is away; its node is not.
    ManagerAway {
        /// Where.
        machine: Machine,
        /// How long.
        for_ns: u64,
    },
    /// Copies are to be elsewhere, or another is to lead.
    Place {
        /// Of which range.
        range: RangeId,
        /// Where.
        placement: Placement,
    },
    /// A machine is relieved of its copies and later takes part again.
    Drain {
        /// Which.
        machine: Machine,
        /// Until when.
        for_ns: u64,
    },
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How many.
    pub clients: u8,
    /// How many of these only read.
    pub readers: u8,
    /// Pause of a client between two commands, its mean.
    pub think_ns: u64,
    /// Keys in use at a time.
    pub keys: usize,
    /// Commands on a key before another takes its place.
    pub ops_per_key: usize,
    /// Of 1000 commands, how many read.
    pub reads_permille: u64,
    /// Of 1000 values, how many are long.
    pub long_permille: u64,
    /// The length of those.
    pub long_bytes: u64,
    /// Kinds of keys: registers, counters, lists, expiring ones; which of them are used.
    pub classes: [bool; 4],
    /// Life of an expiring key, its mean.
    pub ttl_ns: u64,
    /// How long a client waits for an answer.
    pub patience_ns: u64,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many machines.
    pub machines: u8,
    /// The ranges that are used.
    pub ranges: Vec<RangeId>,
    /// Where they begin.
    pub placements: Vec<Placement>,
    /// Copies and how reads and acknowledgements work.
    pub replication: Replication,
    /// The settings of the copies.
    pub settings: Settings,
    /// The network.
    pub weather: Weather,
    /// Each clock's rate and how long its machine has been up.
    pub clocks: Vec<(u64, u64)>,
    /// What clients do.
    pub workload: Workload,
    /// When what goes wrong.
    pub faults: Vec<(u64, Fault)>,
    /// When everything is mended.
    pub mended_ns: u64,
    /// Delay between a machine and the managers that decide, its mean.
    pub control_ns: u64,
    /// How late a turn comes at most.
    pub turn_ns: u64,
    /// How late a timer comes at most.
    pub timer_ns: u64,
    /// Whether the last copy may be lost.
    pub loses_all: bool,
}

/// The address of a machine's only shard.
pub fn addr(machine: Machine) -> ShardAddr {
    ShardAddr { node: NodeIndex(u16::from(machine.0)), shard: ShardIndex(0) }
}

/// The machine of an address.
pub fn machine_of(addr: ShardAddr) -> Machine {
    Machine(addr.node.0 as u8)
}

/// Kinds of faults, for the drawing of lots. From the second number on they are sequences of several.
const KINDS: usize = 17;
const FIRST_SEQUENCE: usize = 13;

impl Scenario {
    /// What a seed means when that bug is planted, or none.
    pub fn of(seed: u64, planted: Planted, driven: Driven) -> Self {
        let mut rng = Rng::new(seed ^ 0x00d1_5ea5_ed5e_ed00);
        let machines = *rng.pick(&[3, 3, 3, 3, 3, 2, 2, 4]);
        let replicas = if machines > 2 && rng.chance(350) { 2 } else { 1 };
        let mut ranges = Vec::new();
        let count = rng.between(2, 4) as usize;
        while ranges.len() < count {
            let range = RangeId(rng.below(256) as u8);
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        let placements: Vec<Placement> =
            ranges.iter().map(|_| placement(&mut rng, machines, replicas)).collect();
        let loses_all = rng.chance(40);
        let replication = Replication {
            replicas,
            ack: Ack::All,
            min_insync: if rng.chance(100) { 2 } else { 1 },
            read: if rng.chance(150) { ReadMode::Confirm } else { ReadMode::Lease },
            on_total_loss: if rng.chance(500) { OnTotalLoss::Reinit } else { OnTotalLoss::Offline },
        };
        let settings = settings(&mut rng, replication, planted);
        let mut weather = weather(&mut rng);
        // A shard is promised that its links keep order.
        weather.raw &= driven == Driven::Copies;
        let wild = planted == Planted::WildClocks;
        let off_ppm = if wild { 400_000 } else { 20_000 };
        let clocks = (0..machines)
            .map(|_| {
                let rate_ppm = match rng.below(4) {
                    0 => 1_000_000 - off_ppm,
                    1 => 1_000_000 + off_ppm,
                    2 => rng.between(1_000_000 - off_ppm, 1_000_000 + off_ppm),
                    _ => 1_000_000,
                };
                (rng.between(1, 100_000) * 1_000 * MS, rate_ppm)
            })
            .collect();
        let mut workload = workload(&mut rng);
        if wild {
            // Deadlines are not what such clocks are to break.
            workload.classes = [true, true, false, false];
        }
        let mended_ns = rng.between(900, 2_400) * MS;
        let mut scenario = Self {
            machines,
            ranges,
            placements,
            replication,
            settings,
            weather,
            clocks,
            workload,
            faults: Vec::new(),
            mended_ns,
            control_ns: *rng.pick(&[200_000, 2 * MS, 20 * MS, 80 * MS]),
            turn_ns: *rng.pick(&[20_000, 200_000, 1_000_000]),
            timer_ns: *rng.pick(&[50_000, 1_000_000, 5_000_000]),
            loses_all,
        };
        scenario.draw_faults(&mut rng, off_ppm);
        scenario
    }

    fn draw_faults(&mut self, rng: &mut Rng, off_ppm: u64) {
        // About a third of the kinds is on in a run; a run without any is only slow.
        let mut on: Vec<usize> = (0..KINDS).filter(|_| rng.chance(350)).collect();
        if on.is_empty() {
            on.push(rng.index(KINDS));
        }
        let count = rng.between(1, 6);
        // Faults that meet each other on one machine, or within a short time, show more than scattered ones.
        let victim = rng.chance(500).then(|| Machine(rng.below(u64::from(self.machines)) as u8));
        let last_ns = self.mended_ns - 200 * MS;
        let first_ns = if rng.chance(500) { rng.between(100 * MS, last_ns) } else { 100 * MS };
        let last_ns = if first_ns > 100 * MS { last_ns.min(first_ns + 400 * MS) } else { last_ns };
        let mut last_death_ns = 0;
        for _ in 0..count {
            let kind = *rng.pick(&on);
            let mut at_ns = rng.between(first_ns, last_ns);
            let (shortest, longest) = *rng.pick(&[(20, 100), (200, 450), (100, 900)]);
            let for_ns = rng.between(shortest, longest) * MS;
            let deadly = kind == 0 || kind == 1 || kind == 2;
            if deadly && !self.loses_all {
                // Copies that one death took are made again before the next, so that no range loses its last one.
                at_ns = at_ns.max(last_death_ns + 900 * MS);
                if at_ns + 100 * MS > self.mended_ns {
                    continue;
                }
                last_death_ns = at_ns + for_ns;
            }
            let any = Machine(rng.below(u64::from(self.machines)) as u8);
            let machine = victim.filter(|_| rng.chance(800)).unwrap_or(any);
            if kind >= FIRST_SEQUENCE {
                if self.loses_all || last_death_ns == 0 {
                    last_death_ns = at_ns + 900 * MS;
                    self.draw_sequence(rng, kind, machine, at_ns);
                }
                continue;
            }
            let fault = self.draw_fault(rng, kind, machine, for_ns, off_ppm);
            if let Fault::Place { range, .. } = &fault {
                self.draw_moves(rng, at_ns, *range);
            }
            self.faults.push((at_ns, fault));
        }
        self.faults.sort_by_key(|(at_ns, _)| *at_ns);
    }

    /// Leadership goes round for a while.
    fn draw_moves(&mut self, rng: &mut Rng, from_ns: u64, range: RangeId) {
        let mut at_ns = from_ns;
        let mut placement = placement(rng, self.machines, self.replication.replicas);
        for _ in 0..rng.below(6) {
            at_ns += rng.between(20, 300) * MS;
            placement.rotate_left(1);
            if at_ns < self.mended_ns {
                self.faults.push((at_ns, Fault::Place { range, placement: placement.clone() }));
            }
        }
    }

    /// Nothing gets from a machine to the others, or to it, or both.
    fn isolated(&self, machine: Machine, outward: bool, inward: bool, for_ns: u64) -> Fault {
        let others = self.all().filter(|other| *other != machine);
        let pairs = others.flat_map(|other| {
            let (out, back) = ((machine, other), (other, machine));
            [outward.then_some(out), inward.then_some(back)].into_iter().flatten()
        });
        Fault::Cut { pairs: pairs.collect(), data: true, control: vec![machine], for_ns }
    }

    /// Faults that only in this order and at these distances bring a machine to where some rule matters.
    fn draw_sequence(&mut self, rng: &mut Rng, kind: usize, machine: Machine, at_ns: u64) {
        let far_ns = |rng: &mut Rng| rng.between(60, 250) * MS;
        let mut faults = Vec::new();
        match kind {
            // Alone for about as long as others wait, heard for a moment, alone again.
            13 => {
                let first_ns = rng.between(330, 430) * MS;
                let again_ns = at_ns + first_ns + rng.between(20, 150) * MS;
                let (pairs, control) = (Vec::new(), vec![machine]);
                let unheard = Fault::Cut { pairs, data: false, control, for_ns: 900 * MS };
                faults.push((at_ns, unheard));
                faults.push((at_ns, self.isolated(machine, true, true, first_ns)));
                faults.push((again_ns, self.isolated(machine, true, true, 600 * MS)));
            }
            // Another comes back, and is taken in again when the machine is cut off.
            14 => {
                let other = self.other(rng, machine);
                let reported_after_ns = Some(rng.delay(5 * MS));
                let for_ns = rng.between(20, 150) * MS;
                faults.push((at_ns, Fault::Crash { machine: other, reported_after_ns, for_ns }));
                let cut_ns = at_ns + for_ns + rng.between(10, 300) * MS;
                faults.push((cut_ns, self.isolated(machine, true, true, 800 * MS)));
            }
            // What the machine hears is old when it takes over from one that dies.
            15 => {
                let dies = self.other(rng, machine);
                for from in self.all().filter(|other| *other != machine) {
                    let (extra_ns, for_ns) = (far_ns(rng), 900 * MS);
                    faults.push((at_ns, Fault::Far { from, to: machine, extra_ns, for_ns }));
                }
                let for_ns = rng.between(200, 500) * MS;
                let crash = Fault::Crash { machine: dies, reported_after_ns: Some(MS), for_ns };
                faults.push((at_ns + rng.between(150, 600) * MS, crash));
            }
            // What the machine hears is old when it is cut off.
            _ => {
                for from in self.all().filter(|other| *other != machine) {
                    let (extra_ns, for_ns) = (far_ns(rng), 900 * MS);
                    faults.push((at_ns, Fault::Far { from, to: machine, extra_ns, for_ns }));
                }
                let cut_ns = at_ns + rng.between(100, 400) * MS;
                faults.push((cut_ns, self.isolated(machine, true, false, 700 * MS)));
            }
        }
        faults.retain(|(at_ns, _)| *at_ns + 50 * MS < self.mended_ns);
        self.faults.append(&mut faults);
    }

    fn draw_fault(
        &self,
        rng: &mut Rng,
        kind: usize,
        machine: Machine,
        for_ns: u64,
        off_ppm: u64,
    ) -> Fault {
        let other = self.other(rng, machine);
        match kind {
            0 => Fault::Crash { machine, reported_after_ns: Some(rng.delay(5 * MS)), for_ns },
            1 => Fault::Crash { machine, reported_after_ns: None, for_ns },
            2 => Fault::MachineLoss { machine, for_ns },
            3 => {
                // Alone against all, in one direction or both.
                let sides = [(true, true), (true, true), (true, false), (false, true)];
                let (outward, inward) = *rng.pick(&sides);
                let mut fault = self.isolated(machine, outward, inward, for_ns);
                if let Fault::Cut { control, .. } = &mut fault
                    && rng.chance(300)
                {
                    control.clear();
                }
                fault
            }
            4 => {
                let mut pairs = vec![(machine, other)];
                if rng.chance(500) {
                    pairs.push((other, machine));
                }
                Fault::Cut { pairs, data: true, control: Vec::new(), for_ns }
            }
            5 => {
                let control = self.all().filter(|_| rng.chance(500)).collect();
                Fault::Cut { pairs: Vec::new(), data: false, control, for_ns }
            }
            6 => Fault::Pause { machine, for_ns },
            7 => Fault::Slow { machine, turn_ns: rng.between(1, 60) * MS, for_ns },
            8 => {
                Fault::Far { from: machine, to: other, extra_ns: rng.between(5, 200) * MS, for_ns }
            }
            9 => Fault::Break { dialler: machine, acceptor: other },
            10 => {
                if rng.chance(500) {
                    let rate_ppm = rng.between(1_000_000 - off_ppm, 1_000_000 + off_ppm);
                    Fault::Rate { machine, rate_ppm }
                } else {
                    let by_ms = rng.between(0, 7_200_000) as i64 - 3_600_000;
                    Fault::Calendar { machine, by_ms }
                }
            }
            11 => {
                if rng.chance(700) {
                    Fault::ManagerAway { machine, for_ns }
                } else {
                    Fault::Drain { machine, for_ns }
                }
            }
            _ => {
                let range = *rng.pick(&self.ranges);
                let placement = placement(rng, self.machines, self.replication.replicas);
                Fault::Place { range, placement }
            }
        }
    }

    /// All machines.
    pub fn all(&self) -> impl Iterator<Item = Machine> + use<> {
        (0..self.machines).map(Machine)
    }

    fn other(&self, rng: &mut Rng, than: Machine) -> Machine {
        let step = rng.between(1, u64::from(self.machines) - 1) as u8;
        Machine((than.0 + step) % self.machines)
    }
}

fn placement(rng: &mut Rng, machines: u8, replicas: u8) -> Placement {
    let mut all: Vec<ShardAddr> = (0..machines).map(|machine| addr(Machine(machine))).collect();
    rng.shuffle(&mut all);
    all.truncate(usize::from(replicas) + 1);
    all
}

fn settings(rng: &mut Rng, replication: Replication, planted: Planted) -> Settings {
    let mut settings = Settings::of(&replication);
    settings.beacon_ns = 40 * MS;
    settings.lease_ns = 300 * MS;
    settings.grace_ns = 330 * MS;
    settings.ask_ns = 50 * MS;
    settings.probe_ns = 60 * MS;
    settings.retry_ns = 100 * MS;
    settings.unknown_ns = 1_500 * MS;
    settings.handover_ns = 50 * MS;
    settings.tick_ns = 10 * MS;
    // Small bounds now and then: a backlog that is soon left behind, a log that is soon full, slices of a few records.
    let bounds = [(1 << 20, 2 << 20), (1 << 20, 2 << 20), (4 << 10, 32 << 10), (512, 16 << 10)];
    (settings.backlog_bytes, settings.log_bytes_max) = *rng.pick(&bounds);
    settings.window_bytes = *rng.pick(&[1 << 20, 1 << 20, 8 << 10]);
    settings.batch_bytes_max = *rng.pick(&[64 << 10, 4 << 10, 1 << 10]);
    settings.slice_bytes = *rng.pick(&[64 << 10, 1 << 10, 64]);
    settings.planted = planted.rule();
    settings
}

fn weather(rng: &mut Rng) -> Weather {
    let raw = rng.chance(300);
    Weather {
        raw,
        delay_ns: *rng.pick(&[100_000, 500_000, 2_000_000, 8_000_000]),
        lost_permille: if raw { *rng.pick(&[0, 10, 50, 200]) } else { 0 },
        twice_permille: if raw { *rng.pick(&[0, 10, 100]) } else { 0 },
        late_permille: if raw { *rng.pick(&[0, 50, 300]) } else { 0 },
    }
}

fn workload(rng: &mut Rng) -> Workload {
    let mut classes = [rng.chance(700), rng.chance(500), rng.chance(400), rng.chance(350)];
    if classes == [false; 4] {
        classes[0] = true;
    }
    let clients = rng.between(2, 5) as u8;
    let readers = if rng.chance(600) { rng.between(1, u64::from(clients) - 1) as u8 } else { 0 };
    Workload {
        clients,
        readers,
        think_ns: *rng.pick(&[1, 5, 15]) * MS,
        keys: *rng.pick(&[1, 2, 2, 3, 5]),
        ops_per_key: *rng.pick(&[40, 100, 200]),
        reads_permille: *rng.pick(&[200, 400, 600]),
        long_permille: *rng.pick(&[0, 0, 50, 300]),
        long_bytes: *rng.pick(&[300, 2_000, 6_000]),
        classes,
        ttl_ns: *rng.pick(&[30, 150, 600]) * MS,
        patience_ns: *rng.pick(&[400, 1_000, 2_000]) * MS,
    }
}
