//! Moments that took longer than `latency-monitor-threshold`, by what the shard was doing, as LATENCY shows them.

use crate::command::Now;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use dkv_protocol::resp::{reply, value};

/// Samples kept of each event (Redis' own).
const SAMPLES_MAX: usize = 160;

/// The longest moment of a second: unix time, and milliseconds.
pub(crate) type Sample = (u64, u64);

/// One kind of moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: Vec<u8>,
    pub(crate) samples: VecDeque<Sample>,
    /// The longest ever, milliseconds.
    pub(crate) max_ms: u64,
}

impl Event {
    fn add(&mut self, (unix_s, ms): Sample) {
        self.max_ms = self.max_ms.max(ms);
        match self.samples.back_mut() {
            Some((last, longest)) if *last == unix_s => *longest = ms.max(*longest),
            _ => self.samples.push_back((unix_s, ms)),
        }
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }
}

/// See the module. There are a handful of kinds.
#[derive(Debug, Default)]
pub(crate) struct Spikes {
    events: Vec<Event>,
}

impl Spikes {
    /// Something took so long.
    pub(crate) fn add(&mut self, name: &'static str, now: Now, ns: u64) {
        let sample = (now.unix_ms / 1000, ns / 1_000_000);
        let known = self.events.iter().position(|event| event.name == name.as_bytes());
        let at = known.unwrap_or_else(|| {
            self.events.push(Event { name: name.into(), ..Event::default() });
            self.events.len() - 1
        });
        self.events[at].add(sample);
    }

    /// Forgets the events of these names, or all when none is given; writes the names of those that there were.
    pub(crate) fn reset(&mut self, names: &[&[u8]], out: &mut Vec<u8>) {
        let wanted = |event: &Event| {
            names.is_empty() || names.iter().any(|name| event.name.eq_ignore_ascii_case(name))
        };
        let (gone, stay): (Vec<Event>, Vec<Event>) =
            self.events.drain(..).partition(|event| wanted(event));
        self.events = stay;
        reply::array(out, gone.len());
        for event in gone {
            reply::bulk(out, &event.name);
        }
    }

    /// Writes all that there is, for [`gathered`].
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        reply::array(out, self.events.len());
        for event in &self.events {
            reply::array(out, 2 + 2 * event.samples.len());
            reply::bulk(out, &event.name);
            reply::integer(out, event.max_ms as i64);
            for (unix_s, ms) in &event.samples {
                reply::integer(out, *unix_s as i64);
                reply::integer(out, *ms as i64);
            }
        }
    }
}

/// The events of several shards as those of one node.
pub(crate) fn gathered<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut all: Vec<(Vec<u8>, u64, Vec<Sample>)> = Vec::new();
    for event in parts.filter_map(|part| value::elements(part).ok()).flatten().flatten() {
        let Ok(mut fields) = value::elements(event) else { continue };
        let name = fields.next().and_then(Result::ok).and_then(text).unwrap_or_default();
        let mut numbers = fields.filter_map(|n| value::integer(n.ok()?)).map(|n| n as u64);
        let max_ms = numbers.next().unwrap_or(0);
        let mut samples = Vec::new();
        while let (Some(unix_s), Some(ms)) = (numbers.next(), numbers.next()) {
            samples.push((unix_s, ms));
        }
        match all.iter_mut().find(|(known, ..)| known == name) {
            Some((_, max, known)) => {
                *max = max_ms.max(*max);
                known.extend(samples);
            }
            None => all.push((name.to_vec(), max_ms, samples)),
        }
    }
    let event = |(name, max_ms, mut samples): (Vec<u8>, u64, Vec<Sample>)| {
        samples.sort_unstable();
        let mut event = Event { name, max_ms, ..Event::default() };
        for sample in samples {
            event.add(sample);
        }
        event
    };
    all.into_iter().map(event).collect()
}

/// What a bulk string holds.
fn text(bulk: &[u8]) -> Option<&[u8]> {
    let head = bulk.iter().position(|b| *b == b'\n')? + 1;
    bulk.get(head..)?.strip_suffix(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now { boot_ns: 0, unix_ms: second * 1000 }
    }

    #[test]
    fn samples_of_several_shards_are_one_series() {
        let (mut one, mut other) = (Spikes::default(), Spikes::default());
        one.add("command", at(5), 7_000_000);
        one.add("command", at(5), 9_000_000);
        one.add("command", at(8), 2_000_000);
        other.add("command", at(6), 30_000_000);
        other.add("command", at(8), 3_000_000);
        other.add("expire-cycle", at(8), 4_000_000);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        one.write(&mut a);
        other.write(&mut b);
        let events = gathered([&a[..], &b[..]].into_iter());
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].samples, [(5, 9), (6, 30), (8, 3)]);
        assert_eq!((events[0].max_ms, events[1].max_ms), (30, 4));
        let mut gone = Vec::new();
        other.reset(&[b"Command"], &mut gone);
        assert_eq!(gone, b"*1\r\n$7\r\ncommand\r\n");
        assert_eq!(other.events.len(), 1);
    }

    #[test]
    fn an_event_keeps_its_last_samples() {
        let mut spikes = Spikes::default();
        (0..1000).for_each(|second| spikes.add("command", at(second), (1000 - second) * 1_000_000));
        let event = &spikes.events[0];
        assert_eq!((event.samples.len(), event.max_ms), (SAMPLES_MAX, 1000));
        assert_eq!(event.samples.back(), Some(&(999, 1)));
    }
}
