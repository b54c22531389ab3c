//! What the world does when a fault of the scenario begins and when it ends.

use crate::control::Control;
use crate::net::{Machine, Plane};
use crate::scenario::{Fault, MS};
use crate::world::{Event, World};
use dkv_catalog::{Drain, Wish};
use dkv_protocol::ids::NodeIndex;

impl World {
    pub(crate) fn fault_begins(&mut self, index: usize) {
        let (_, fault) = self.scenario.faults[index].clone();
        self.say(format_args!("FAULT {fault:?}"));
        self.trace.event(self.queue.now_ns(), 0x70, &[index as u8]);
        let mut for_ns = None;
        match fault {
            Fault::Crash { machine, reported_after_ns, for_ns: away_ns } => {
                self.crash(machine, reported_after_ns, away_ns);
            }
            Fault::MachineLoss { machine, for_ns: away_ns } => {
                for_ns = Some(away_ns);
                self.host(machine).lost += 1;
                self.set_cuts(&self.around(machine), true);
                self.kill(machine, false);
            }
            Fault::Cut { pairs, data, control, for_ns: cut_ns } => {
                for_ns = Some(cut_ns);
                if data {
                    self.set_cuts(&pairs, true);
                    self.give_some_up(&pairs);
                }
                for machine in control {
                    self.net.set_cut(Plane::Control, machine, machine, true);
                }
            }
            Fault::Pause { machine, for_ns: pause_ns } => {
                let until_ns = self.queue.now_ns() + pause_ns;
                let host = self.host(machine);
                host.paused_until_ns = host.paused_until_ns.max(until_ns);
            }
            Fault::Slow { machine, turn_ns, for_ns: slow_ns } => {
                for_ns = Some(slow_ns);
                self.host(machine).slow_ns = turn_ns;
            }
            Fault::Far { from, to, extra_ns, for_ns: far_ns } => {
                for_ns = Some(far_ns);
                self.net.set_slow(from, to, extra_ns);
            }
            Fault::Break { dialler, acceptor } => {
                if !self.net.raw() {
                    let after_ns = self.rng.delay(10 * MS);
                    self.break_link(dialler, acceptor, after_ns);
                }
            }
            Fault::Rate { machine, rate_ppm } => {
                let now_ns = self.queue.now_ns();
                self.host(machine).clock.set_rate(now_ns, rate_ppm);
            }
            Fault::Calendar { machine, by_ms } => self.host(machine).clock.jump_calendar(by_ms),
            Fault::ManagerAway { machine, for_ns: away_ns } => {
                for_ns = Some(away_ns);
                self.host(machine).manager_away += 1;
            }
            Fault::Place { range, placement } => {
                self.wish(Wish::Explicit { placements: vec![(range, placement)] });
            }
            Fault::Drain { machine, for_ns: drain_ns } => {
                for_ns = Some(drain_ns);
                let how = if self.rng.chance(500) { Drain::Copies } else { Drain::Leadership };
                self.wish(Wish::Drain { node: node_of(machine), how });
            }
        }
        if let Some(for_ns) = for_ns {
            let end_ns = (self.queue.now_ns() + for_ns).min(self.scenario.mended_ns);
            self.queue.at(end_ns, Event::FaultEnds(index));
        }
    }

    pub(crate) fn fault_ends(&mut self, index: usize) {
        let (_, fault) = self.scenario.faults[index].clone();
        self.say(format_args!("ENDS {fault:?}"));
        match fault {
            Fault::MachineLoss { machine, .. } => {
                self.set_cuts(&self.around(machine), false);
                self.host(machine).lost -= 1;
                self.queue.after(MS, Event::Restart { machine });
            }
            Fault::Cut { pairs, data, control, .. } => {
                if data {
                    self.set_cuts(&pairs, false);
                }
                for machine in control {
                    self.net.set_cut(Plane::Control, machine, machine, false);
                }
            }
            Fault::Slow { machine, .. } => self.host(machine).slow_ns = 0,
            Fault::Far { from, to, .. } => self.net.set_slow(from, to, 0),
            Fault::ManagerAway { machine, .. } => self.host(machine).manager_away -= 1,
            Fault::Drain { machine, .. } => self.wish(Wish::Undrain { node: node_of(machine) }),
            _ => {}
        }
    }

    fn wish(&mut self, wish: Wish) {
        let applied = self.control.wish(wish);
        if Control::granted(&applied.outcome) {
            self.applied(&applied);
        }
    }

    fn crash(&mut self, machine: Machine, reported_after_ns: Option<u64>, away_ns: u64) {
        if self.hosts[machine.index()].node.is_none() {
            return;
        }
        let boot = self.hosts[machine.index()].boot;
        self.kill(machine, true);
        let reported_after_ns =
            reported_after_ns.filter(|_| !self.planted.rule().keeps_identity_on_restart());
        if let Some(after_ns) = reported_after_ns {
            self.queue.after(after_ns, Event::ReportDead { machine, boot });
        }
        let back_ns = (self.queue.now_ns() + away_ns).min(self.scenario.mended_ns);
        self.queue.at(back_ns, Event::Restart { machine });
    }

    /// Every direction between a machine and all others.
    fn around(&self, machine: Machine) -> Vec<(Machine, Machine)> {
        let others = self.scenario.all().filter(|other| *other != machine);
        others.flat_map(|other| [(machine, other), (other, machine)]).collect()
    }

    fn set_cuts(&mut self, pairs: &[(Machine, Machine)], begins: bool) {
        for (from, to) in pairs {
            self.net.set_cut(Plane::Data, *from, *to, begins);
        }
        if !begins {
            for (at_ns, parcel) in self.net.resume(self.queue.now_ns()) {
                let incarnation = self.hosts[parcel.to().index()].incarnation;
                self.queue.at(at_ns, Event::Deliver { parcel, incarnation });
            }
        }
    }

    /// Some of the links that a cut stalls are given up before it ends, others outlive it.
    fn give_some_up(&mut self, pairs: &[(Machine, Machine)]) {
        for (from, to) in pairs {
            for link in [self.net.link(*from, *to), self.net.link(*to, *from)].into_iter().flatten()
            {
                if self.rng.chance(500) && !self.net.raw() {
                    let after_ns = self.rng.between(50, 900) * MS;
                    self.queue.after(after_ns, Event::GiveUp { link });
                }
            }
        }
    }
}

fn node_of(machine: Machine) -> NodeIndex {
    NodeIndex(u16::from(machine.0))
}
