//! The network between machines: what arrives, when, in which order, and what does not.
//!
//! In its first mode it is what nodes really see, TCP: each ordered pair of machines has a link that one of them dialled,
//! with a stream each way. A stream keeps order and loses nothing while the link lives; a cut makes it stall, and a link
//! that breaks takes everything under way with it. In the second mode every parcel goes alone: it may be lost, come
//! twice or be overtaken, which no node has to live with but the protocol claims to survive.
//!
//! Cuts are counted for each direction of each pair and plane, because faults overlap.

use crate::rng::Rng;
use std::collections::VecDeque;

/// A machine of the store, from 0: it has a node and a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine(pub u8);

impl Machine {
    /// For lists that have an entry for each machine.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Who talks: links between nodes and what managers say to each other may be cut apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Nodes.
    Data,
    /// Managers.
    Control,
}

/// One link as one dial made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who dialled.
    pub dialler: Machine,
    /// To whom.
    pub acceptor: Machine,
    /// Counts the dials.
    pub generation: u32,
}

/// Something under way on a link.
#[derive(Clone, Debug)]
pub struct Parcel<C> {
    /// On which link.
    pub link: Link,
    /// From the dialler, or back to it.
    pub forth: bool,
    /// What.
    pub content: C,
}

impl<C> Parcel<C> {
    /// Who sent it.
    pub fn from(&self) -> Machine {
        if self.forth { self.link.dialler } else { self.link.acceptor }
    }

    /// Who is to get it.
    pub fn to(&self) -> Machine {
        if self.forth { self.link.acceptor } else { self.link.dialler }
    }
}

/// How the network is in a run.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Parcels go alone.
    pub raw: bool,
    /// Delay of a parcel, its mean.
    pub delay_ns: u64,
    /// In raw mode: how many of 1000 are lost.
    pub lost_permille: u64,
    /// In raw mode: how many of 1000 come twice.
    pub twice_permille: u64,
    /// In raw mode: how many of 1000 are held back for ten delays.
    pub late_permille: u64,
}

struct Stream<C> {
    last_arrival_ns: u64,
    stalled: VecDeque<Parcel<C>>,
}

impl<C> Default for Stream<C> {
    fn default() -> Self {
        Self { last_arrival_ns: 0, stalled: VecDeque::new() }
    }
}

/// What becomes of a parcel at the end of its way.
#[derive(Debug)]
pub enum Arrival<C> {
    /// It is there.
    Here(Parcel<C>),
    /// It waits for a cut to end.
    Stalled,
    /// Its link is gone, or it was lost.
    Lost,
}

/// All links and cuts.
pub struct Net<C> {
    machines: usize,
    weather: Weather,
    rng: Rng,
    cuts: [Vec<u8>; 2],
    slow_ns: Vec<u64>,
    generations: Vec<u32>,
    up: Vec<bool>,
    streams: Vec<Stream<C>>,
}

impl<C: Clone> Net<C> {
    /// A network without a link or a cut.
    pub fn new(machines: usize, weather: Weather, rng: Rng) -> Self {
        let pairs = machines * machines;
        Self {
            machines,
            weather,
            rng,
            cuts: [vec![0; pairs], vec![0; pairs]],
            slow_ns: vec![0; pairs],
            generations: vec![0; pairs],
            up: vec![false; pairs],
            streams: (0..pairs * 2).map(|_| Stream::default()).collect(),
        }
    }

    fn pair(&self, from: Machine, to: Machine) -> usize {
        from.index() * self.machines + to.index()
    }

    /// Whether nothing gets from one to the other.
    pub fn cut(&self, plane: Plane, from: Machine, to: Machine) -> bool {
        self.cuts[plane as usize][self.pair(from, to)] > 0
    }

    /// Begins or ends a cut of one direction.
    pub fn set_cut(&mut self, plane: Plane, from: Machine, to: Machine, begins: bool) {
        let pair = self.pair(from, to);
        let count = &mut self.cuts[plane as usize][pair];
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
    }

    /// Everything between two machines takes that much longer, one way.
    pub fn set_slow(&mut self, from: Machine, to: Machine, slow_ns: u64) {
        let pair = self.pair(from, to);
        self.slow_ns[pair] = slow_ns;
    }

    /// Whether parcels go alone.
    pub fn raw(&self) -> bool {
        self.weather.raw
    }

    /// The link that one dialled to the other, when it is up as far as the dialler knows.
    pub fn link(&self, dialler: Machine, acceptor: Machine) -> Option<Link> {
        let pair = self.pair(dialler, acceptor);
        self.up[pair].then_some(Link { dialler, acceptor, generation: self.generations[pair] })
    }

    /// Whether this is still the link between its ends.
    pub fn lives(&self, link: Link) -> bool {
        self.link(link.dialler, link.acceptor) == Some(link)
    }

    /// A dial succeeds.
    pub fn connect(&mut self, dialler: Machine, acceptor: Machine) {
        let pair = self.pair(dialler, acceptor);
        self.up[pair] = true;
    }

    /// A link ends, and what is under way on it is lost. Whether there was one.
    pub fn break_link(&mut self, dialler: Machine, acceptor: Machine) -> bool {
        let pair = self.pair(dialler, acceptor);
        let was = std::mem::take(&mut self.up[pair]);
        self.generations[pair] += 1;
        for stream in &mut self.streams[pair * 2..pair * 2 + 2] {
            *stream = Stream::default();
        }
        was
    }

    /// The dialler of a link is gone: it sends no more, and what it sent is still under way.
    pub fn orphan(&mut self, dialler: Machine, acceptor: Machine) {
        let pair = self.pair(dialler, acceptor);
        self.up[pair] = false;
    }

    /// From now on nothing is lost, doubled or overtaken.
    pub fn calm(&mut self) {
        self.weather.raw = false;
        self.cuts.iter_mut().flatten().for_each(|cut| *cut = 0);
        self.slow_ns.fill(0);
    }

    fn stream(&self, link: Link, forth: bool) -> usize {
        self.pair(link.dialler, link.acceptor) * 2 + usize::from(forth)
    }

    /// A delay between two machines, for one that is not on a link.
    pub fn delay_ns(&mut self, from: Machine, to: Machine) -> u64 {
        self.rng.delay(self.weather.delay_ns) + self.slow_ns[self.pair(from, to)]
    }

    /// When a parcel that is sent now arrives: never, once or (in raw mode) twice.
    pub fn send(&mut self, now_ns: u64, link: Link, forth: bool) -> [Option<u64>; 2] {
        if !self.lives(link) {
            return [None, None];
        }
        let (from, to) =
            if forth { (link.dialler, link.acceptor) } else { (link.acceptor, link.dialler) };
        let slow_ns = self.slow_ns[self.pair(from, to)];
        let mut arrival_ns = now_ns + 1000 + self.rng.delay(self.weather.delay_ns) + slow_ns;
        if !self.weather.raw {
            let stream = self.stream(link, forth);
            arrival_ns = arrival_ns.max(self.streams[stream].last_arrival_ns);
            self.streams[stream].last_arrival_ns = arrival_ns;
            return [Some(arrival_ns), None];
        }
        if self.rng.chance(self.weather.lost_permille) {
            return [None, None];
        }
        if self.rng.chance(self.weather.late_permille) {
            arrival_ns += self.rng.delay(self.weather.delay_ns * 10);
        }
        let again = self.rng.chance(self.weather.twice_permille);
        let second_ns = again.then(|| arrival_ns + self.rng.delay(self.weather.delay_ns * 10));
        [Some(arrival_ns), second_ns]
    }

    /// A parcel comes to the end of its way.
    pub fn arrive(&mut self, parcel: Parcel<C>) -> Arrival<C> {
        let pair = self.pair(parcel.link.dialler, parcel.link.acceptor);
        if !self.weather.raw && self.generations[pair] != parcel.link.generation {
            return Arrival::Lost;
        }
        let cut = self.cut(Plane::Data, parcel.from(), parcel.to());
        if self.weather.raw {
            return if cut { Arrival::Lost } else { Arrival::Here(parcel) };
        }
        let stream = self.stream(parcel.link, parcel.forth);
        if cut || !self.streams[stream].stalled.is_empty() {
            self.streams[stream].stalled.push_back(parcel);
            return Arrival::Stalled;
        }
        Arrival::Here(parcel)
    }

    /// What had stalled and goes on, now that cuts have ended, in its order.
    pub fn resume(&mut self, now_ns: u64) -> Vec<(u64, Parcel<C>)> {
        let mut going = Vec::new();
        for index in 0..self.streams.len() {
            let Some(front) = self.streams[index].stalled.front() else { continue };
            let (from, to) = (front.from(), front.to());
            if self.cut(Plane::Data, from, to) {
                continue;
            }
            let mut at_ns = now_ns;
            for parcel in std::mem::take(&mut self.streams[index].stalled) {
                at_ns += 1 + self.rng.below(2000);
                going.push((at_ns, parcel));
            }
            let stream = &mut self.streams[index];
            stream.last_arrival_ns = stream.last_arrival_ns.max(at_ns);
        }
        going
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Machine = Machine(0);
    const B: Machine = Machine(1);

    fn net(raw: bool) -> Net<u32> {
        let weather = Weather {
            raw,
            delay_ns: 1_000_000,
            lost_permille: 200,
            twice_permille: 200,
            late_permille: 200,
        };
        Net::new(2, weather, Rng::new(3))
    }

    fn send_all(net: &mut Net<u32>, count: u32) -> Vec<(u64, Parcel<u32>)> {
        let link = net.link(A, B).unwrap();
        let mut under_way = Vec::new();
        for content in 0..count {
            let arrivals = net.send(u64::from(content), link, true);
            for at_ns in arrivals.into_iter().flatten() {
                under_way.push((at_ns, Parcel { link, forth: true, content }));
            }
        }
        under_way.sort_by_key(|(at_ns, _)| *at_ns);
        under_way
    }

    fn arrived(net: &mut Net<u32>, under_way: Vec<(u64, Parcel<u32>)>) -> Vec<u32> {
        under_way
            .into_iter()
            .filter_map(|(_, parcel)| match net.arrive(parcel) {
                Arrival::Here(parcel) => Some(parcel.content),
                Arrival::Stalled | Arrival::Lost => None,
            })
            .collect()
    }

    #[test]
    fn a_link_keeps_order_and_loses_nothing() {
        let mut net = net(false);
        assert_eq!(net.link(A, B), None);
        net.connect(A, B);
        let sent = send_all(&mut net, 500);
        assert_eq!(arrived(&mut net, sent), (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_stalls_a_link_and_its_end_lets_everything_go_on_in_order() {
        let mut net = net(false);
        net.connect(A, B);
        let sent = send_all(&mut net, 100);
        net.set_cut(Plane::Data, A, B, true);
        net.set_cut(Plane::Data, A, B, true);
        assert!(arrived(&mut net, sent).is_empty());
        net.set_cut(Plane::Data, A, B, false);
        assert!(net.resume(9_000_000_000).is_empty(), "one of two cuts still holds");
        net.set_cut(Plane::Data, A, B, false);
        let going = net.resume(9_000_000_000);
        assert_eq!(arrived(&mut net, going), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_broken_link_takes_what_is_under_way_with_it() {
        let mut net = net(false);
        net.connect(A, B);
        let sent = send_all(&mut net, 100);
        assert!(net.break_link(A, B) && !net.break_link(A, B));
        net.connect(A, B);
        assert!(arrived(&mut net, sent).is_empty());
        let sent = send_all(&mut net, 3);
        assert_eq!(arrived(&mut net, sent), [0, 1, 2]);
    }

    #[test]
    fn alone_parcels_are_lost_doubled_and_overtaken() {
        let mut net = net(true);
        net.connect(A, B);
        let sent = send_all(&mut net, 1000);
        let got = arrived(&mut net, sent);
        let lost = (0..1000).filter(|content| !got.contains(content)).count();
        assert!((100..300).contains(&lost), "{lost} lost");
        assert!(got.len() + lost > 1100, "{} came, {lost} lost", got.len());
        assert!(!got.is_sorted());
        net.set_cut(Plane::Data, A, B, true);
        let sent = send_all(&mut net, 100);
        assert!(arrived(&mut net, sent).is_empty());
        net.set_cut(Plane::Data, A, B, false);
        assert!(net.resume(0).is_empty(), "what a cut lost came back");
    }
}
