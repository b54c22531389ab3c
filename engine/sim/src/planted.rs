//! The bugs that can be planted: each takes one rule of the protocol away, so that the simulator can prove that it would
//! notice.
//!
//! A rule that the copies keep is switched off in the code under test, which has a feature for it; one that the node
//! around them keeps is switched off in the simulated node; and one that concerns the world is broken by the world.

use dkv_cluster::Planted as Rule;

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// All are.
    #[default]
    Nothing,
    /// One that the code under test names.
    Rule(Rule),
    /// Clocks run up to 40 % fast or slow.
    WildClocks,
    /// R15: a key that is seen expired is not removed by an effect.
    ExpiryNotLogged,
    /// R15: a copy that does not lead removes by itself what has expired on its own clock.
    CopiesExpire,
}

/// All of them, each with its name and with what is taken away.
pub const ALL: &[(&str, Planted, &str)] = &[
    (
        "ack-before-held",
        Planted::Rule(Rule::AckBeforeHeld),
        "R2: writes are answered before copies hold them",
    ),
    (
        "truncate-on-epoch",
        Planted::Rule(Rule::TruncateOnEpoch),
        "R7: a new epoch truncates a log to its commit",
    ),
    (
        "shrink-when-sent",
        Planted::Rule(Rule::ShrinkWhenSent),
        "R2: a member is dropped when its shrink is sent",
    ),
    ("reads-ungated", Planted::Rule(Rule::ReadsUngated), "R3: reads show what is not committed"),
    ("no-lease-check", Planted::Rule(Rule::NoLeaseCheck), "R4: reads do not look at leases"),
    ("short-grace", Planted::Rule(Rule::ShortGrace), "R6: the grace is shorter than the lease"),
    (
        "restart-keeps-identity",
        Planted::Rule(Rule::RestartKeepsIdentity),
        "R8: a node restarts empty as the one it was",
    ),
    ("no-fencing", Planted::Rule(Rule::NoFencing), "R5: copies obey primaries of past epochs"),
    (
        "retries-unknown",
        Planted::Rule(Rule::RetriesUnknown),
        "R12: a forwarder sends an unknown write again",
    ),
    (
        "unknown-is-failure",
        Planted::Rule(Rule::UnknownIsFailure),
        "R12: what is unknown is told as refused",
    ),
    (
        "discard-keeps-generation",
        Planted::Rule(Rule::DiscardKeepsGeneration),
        "R8: a cleared copy keeps its generation",
    ),
    (
        "acks-after-promise",
        Planted::Rule(Rule::AcksAfterPromise),
        "R6: beacons are acknowledged after the promise",
    ),
    (
        "lease-from-arrival",
        Planted::Rule(Rule::LeaseFromArrival),
        "R4: a lease counts from the arrival of its echo",
    ),
    (
        "expand-when-confirmed",
        Planted::Rule(Rule::ExpandWhenConfirmed),
        "R2: a new member counts only once confirmed",
    ),
    (
        "split-transactions",
        Planted::Rule(Rule::SplitTransactions),
        "what a transaction writes is as many entries (of the shard alone)",
    ),
    (
        "wild-clocks",
        Planted::WildClocks,
        "clocks run up to 40 % fast or slow (stale reads, never a lost write)",
    ),
    (
        "expiry-not-logged",
        Planted::ExpiryNotLogged,
        "R15: a read of an expired key leaves no effect",
    ),
    (
        "copies-expire",
        Planted::CopiesExpire,
        "R15: a copy that does not lead removes what has expired on its own clock",
    ),
];

impl Planted {
    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, ..)| *known == name).map(|(_, planted, _)| *planted)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(_, planted, _)| *planted == self).map_or("nothing", |(name, ..)| name)
    }

    /// As the code under test is told.
    pub fn rule(self) -> Rule {
        if let Self::Rule(rule) = self { rule } else { Rule::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_the_code_can_leave_out_is_listed_once() {
        for rule in Rule::ALL {
            let listed = ALL.iter().filter(|(_, planted, _)| *planted == Planted::Rule(*rule));
            assert_eq!(listed.count(), 1, "{rule:?}");
        }
        for (name, planted, _) in ALL {
            assert_eq!((Planted::named(name), planted.name()), (Some(*planted), *name));
        }
    }
}
