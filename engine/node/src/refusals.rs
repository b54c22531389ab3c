//! Who was refused on the cluster port, said without letting a stranger fill the log.
//!
//! Anybody who reaches the port can cause a refusal as often as they like, so each reason is logged once a minute with
//! the number of times that it was left out in between, and the reasons that are remembered are few.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a reason stays quiet after it was logged.
const QUIET: Duration = Duration::from_mins(1);
/// Reasons remembered. What a stranger sends is part of some of them.
const REASONS_MAX: usize = 32;

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    said: RefCell<BTreeMap<String, Said>>,
}

impl Refusals {
    /// Logs a refusal unless the same was logged a moment ago.
    pub(crate) fn log(&self, from: Option<SocketAddr>, reason: &str) {
        if let Some(left_out) = self.due(reason, Instant::now()) {
            let from = from.map(tracing::field::display);
            tracing::warn!(from, left_out, "cluster port: refused: {reason}");
        }
    }

    /// Whether to log this reason now, and how often it was left out since the last time.
    fn due(&self, reason: &str, now: Instant) -> Option<u64> {
        let mut said = self.said.borrow_mut();
        said.retain(|_, entry| entry.left_out > 0 || now.duration_since(entry.at) < QUIET);
        // When there are too many reasons the rest share one.
        let key = if said.len() < REASONS_MAX || said.contains_key(reason) { reason } else { "" };
        match said.get_mut(key) {
            Some(entry) if now.duration_since(entry.at) < QUIET => {
                entry.left_out += 1;
                None
            }
            Some(entry) => {
                entry.at = now;
                Some(std::mem::take(&mut entry.left_out))
            }
            None => {
                said.insert(key.to_owned(), Said { at: now, left_out: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_a_minute_with_what_was_left_out() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.due("HTTP", start), Some(0));
        assert_eq!(refusals.due("TLS", start), Some(0));
        for _ in 0..5 {
            assert_eq!(refusals.due("HTTP", start + Duration::from_secs(1)), None);
        }
        assert_eq!(refusals.due("HTTP", start + QUIET), Some(5));
        assert_eq!(refusals.due("HTTP", start + QUIET), None);
    }

    #[test]
    fn reasons_without_end_are_neither_remembered_nor_logged() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let logged =
            (0..10_000).filter(|n| refusals.due(&format!("reason {n}"), now).is_some()).count();
        assert_eq!(logged, REASONS_MAX + 1);
        assert!(refusals.said.borrow().len() <= REASONS_MAX + 1);
    }
}
