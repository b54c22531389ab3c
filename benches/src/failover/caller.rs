//! One client of the load: one operation after the other, at its share of the rate.

use super::keys::Keys;
use super::ledger::{Held, Reading, Written};
use super::routes::Way;
use super::{Shared, lock};
use crate::generator::{Random, count_error};
use dkv_client::{ClientError, Value};
use dkv_io::clock::monotonic_ns;
use dkv_protocol::limits::RANGES;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The rest after something that did not go well, so that a node that is away is not asked in a frenzy.
const AFTER_ERROR: Duration = Duration::from_millis(2);
/// So far a client that was held up may be behind its schedule, and catches up.
const BEHIND_MAX: Duration = Duration::from_millis(100);

pub(super) struct Caller<'a> {
    shared: &'a Shared,
    number: usize,
    way: Way,
    random: Random,
}

impl<'a> Caller<'a> {
    pub(super) fn new(shared: &'a Shared, number: usize, way: Way) -> Self {
        let random = Random::new(shared.plan.seed.wrapping_mul(1021).wrapping_add(number as u64));
        Self { shared, number, way, random }
    }

    pub(super) fn run(mut self) {
        let gap =
            Duration::from_secs_f64(self.shared.plan.clients as f64 / self.shared.plan.per_second);
        let mut due =
            Instant::now() + gap.mul_f64(self.number as f64 / self.shared.plan.clients as f64);
        while !self.shared.stop.load(Relaxed) {
            let now = Instant::now();
            if let Some(early) = due.checked_duration_since(now).filter(|early| !early.is_zero()) {
                std::thread::park_timeout(early);
                continue;
            }
            due = due.max(now.checked_sub(BEHIND_MAX).unwrap_or(now)) + gap;
            if !self.operation() {
                std::thread::park_timeout(AFTER_ERROR);
            }
        }
    }

    /// One operation; whether it was answered.
    fn operation(&mut self) -> bool {
        let Shared { plan, own, .. } = self.shared;
        // All clients together go round, so that each range is asked for as often as the rate allows, whoever is held up.
        let range = self.shared.turn.fetch_add(1, Relaxed) % RANGES;
        let write = self.random.below(100) >= u64::from(plan.reads_percent);
        let lane = if write {
            self.random.below(*own as u64) as usize * plan.clients + self.number
        } else {
            self.random.below((own * plan.clients) as u64) as usize
        };
        let slot = lane * RANGES + range;
        if write { self.write(slot) } else { self.read(slot) }
    }

    fn write(&mut self, slot: usize) -> bool {
        let Some(write) = self.shared.ledger.write(slot) else { return self.read(slot) };
        let key = self.shared.keys.key(slot, write.generation);
        let value = self.shared.keys.value(self.number, slot, write.generation, write.number);
        let args: &[&[u8]] = &[b"SET", key.as_bytes(), value.as_bytes(), b"GET"];
        let (result, redirected) = self.way.call(self.shared.keys.slot(Keys::range(slot)), args);
        let how = match &result {
            Ok(before) => Written::Answered(held(slot, write.generation, before)),
            Err(ClientError::Uncertain { .. }) => Written::Uncertain,
            Err(_) => Written::Refused,
        };
        let fault = self.shared.ledger.written(write, how);
        let mut counts = lock(&self.shared.counts[self.number]);
        counts.redirected += u64::from(redirected);
        counts.writes += u64::from(result.is_ok());
        counts.uncertain += u64::from(how == Written::Uncertain);
        if let (Some(fault), Ok(before)) = (fault, &result) {
            counts.fault(fault, || {
                format!("{key} held {} before write {}", shown(before), write.number)
            });
        }
        drop(counts);
        self.ended(slot, result)
    }

    fn read(&mut self, slot: usize) -> bool {
        let read: Reading = self.shared.ledger.read(slot);
        let key = self.shared.keys.key(slot, read.generation);
        let args: &[&[u8]] = &[b"GET", key.as_bytes()];
        let (result, redirected) = self.way.call(self.shared.keys.slot(Keys::range(slot)), args);
        let mut counts = lock(&self.shared.counts[self.number]);
        counts.redirected += u64::from(redirected);
        if let Ok(value) = &result {
            counts.reads += 1;
            let fault = self.shared.ledger.seen(read, held(slot, read.generation, value));
            if let Some(fault) = fault {
                counts.fault(fault, || format!("{key} was read as {}", shown(value)));
            }
        }
        drop(counts);
        self.ended(slot, result)
    }

    fn ended(&self, slot: usize, result: Result<Value, ClientError>) -> bool {
        let Err(error) = result else {
            self.shared.gaps.served(Keys::range(slot), monotonic_ns());
            return true;
        };
        let text = error_text(&error);
        count_error(&mut lock(&self.shared.counts[self.number]).errors, &text, 1);
        false
    }
}

/// What a reply says that a key holds.
pub(super) fn held(slot: usize, generation: u32, value: &Value) -> Held {
    match value {
        Value::Null => Some(0),
        value => Keys::held(slot, generation, Some(value.as_bytes().unwrap_or_default())),
    }
}

/// The beginning of a value, for people.
pub(super) fn shown(value: &Value) -> String {
    match value.as_bytes() {
        Some(bytes) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(48)]).into_owned();
            format!("{:?}", text.trim_end_matches('.'))
        }
        None => "nothing".into(),
    }
}

/// An error with a first word that says its kind: that of an error reply, or what became of the connection.
pub(super) fn error_text(error: &ClientError) -> String {
    let word = match error {
        ClientError::Server(text) => return text.clone(),
        ClientError::Uncertain { why, .. } if why.starts_with("UNCERTAIN") => return why.clone(),
        ClientError::Uncertain { why, .. } if why.contains("did not answer") => "SILENT",
        ClientError::TimedOut { .. } => "SILENT",
        ClientError::Uncertain { .. } | ClientError::Closed { .. } | ClientError::Io { .. } => {
            "CLOSED"
        }
        ClientError::Refused { .. } | ClientError::Unreachable { .. } => "REFUSED",
        _ => "FAILED",
    };
    format!("{word} {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_what_became_of_the_connection() {
        let uncertain =
            |why: &str| ClientError::Uncertain { command: "SET".into(), why: why.into() };
        let endpoint = || "a:1".to_owned();
        let cases = [
            (ClientError::Server("TRYAGAIN no leader".into()), "TRYAGAIN"),
            (uncertain("UNCERTAIN the link broke"), "UNCERTAIN"),
            (uncertain("a:1 closed the connection"), "CLOSED"),
            (uncertain("a:1 did not answer within 5 ms while sending a reply"), "SILENT"),
            (ClientError::Closed { endpoint: endpoint() }, "CLOSED"),
            (ClientError::Refused { endpoint: endpoint() }, "REFUSED"),
            (ClientError::PasswordRequired { endpoint: endpoint() }, "FAILED"),
        ];
        for (error, word) in cases {
            assert_eq!(error_text(&error).split(' ').next(), Some(word), "{error}");
        }
    }
}
