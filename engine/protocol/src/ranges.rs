//! The configuration of a range: who leads it, who holds copies that count, and the commands that change it.
//!
//! It stands apart because three parties must read it alike: the data path, which obeys it; the catalogue of the managers,
//! which alone decides it by compare-and-set; and the control socket between a manager and its nodes, which carries it. It
//! knows neither how commands are agreed on nor what a copy holds.

use crate::ids::{BootId, Epoch, NodeIndex, RangeId, ShardAddr};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The identity of one copy of a range. A copy that lost its content comes back as another: a process start has a boot of
/// its own, and a copy that is cleared within one boot gets the next generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rid {
    /// Where it is.
    pub addr: ShardAddr,
    /// The start of its process.
    pub boot: BootId,
    /// Counts how often the copy was cleared within that start.
    pub generation: u32,
}

/// Whether a range can be served at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeState {
    /// It has a primary.
    Normal,
    /// The last copy that counted is gone. `in_sync` still names it; nobody serves the range until it is formed anew or
    /// that copy reclaims it.
    Offline,
}

/// The configuration of one range. Every change of it is one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeConfig {
    /// Grows by one with each change, over the whole life of the store.
    pub epoch: Epoch,
    /// Who leads: one of `in_sync`.
    pub primary: Rid,
    /// The copies that hold every answered write; never empty.
    pub in_sync: Vec<Rid>,
    /// See [`RangeState`].
    pub state: RangeState,
    /// The log position that all copies began with when the range was formed: nothing had been written up to it.
    pub first_index: u64,
    /// The epoch in which it was formed. A copy that is named in `in_sync` in this very epoch starts empty at `first_index`.
    pub formed: Epoch,
}

/// Where the copies of a range should be, the one that should lead first. Wishes, without an epoch: a primary brings the
/// copies there one after the other, and only then lets others go.
pub type Placement = Vec<ShardAddr>;

/// A change that a copy, or a manager for a dead one, asks for. Each is compare-and-set: it is granted only when the
/// epoch is still the one the caller knows and the caller has the part in it that the change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Change {
    /// The primary goes on without a member.
    Shrink {
        /// Who leaves; not the primary.
        remove: Rid,
    },
    /// The primary takes in a copy that has caught up.
    Expand {
        /// Who enters; not a member yet.
        add: Rid,
    },
    /// A member that is not the primary leads from now on; the old primary is removed.
    Take,
    /// The primary hands over to a member and stays one itself.
    Transfer {
        /// Who leads from now on.
        to: Rid,
    },
    /// The caller has discarded its copy: it leaves. When it was the last one the range is offline.
    Discarded,
    /// The caller does not count, should not be where it is, and wants to forget what it holds: it leaves for good. Before
    /// it knows that, it may be let in at any moment, and then it must not have forgotten anything.
    Leave,
}

/// A change of one range, as a copy asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigAsk {
    /// Which range.
    pub range: RangeId,
    /// The epoch that the caller knows. Not looked at for [`Change::Discarded`], which is true in any epoch.
    pub epoch: Epoch,
    /// Who asks.
    pub caller: Rid,
    /// What.
    #[serde(flatten)]
    pub change: Change,
}

/// When a write of a store with copies is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// When every copy in sync holds it.
    #[default]
    All,
    /// When the primary has it; a failover may lose the last moments.
    Async,
}

/// How a primary may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadMode {
    /// Under leases that the copies grant: no round trip, and clock rates must not differ by more than 2 %.
    #[default]
    Lease,
    /// Confirmed by the copies, a round trip for all reads of a turn together; no clock matters.
    Confirm,
}

/// What becomes of a range whose last copy is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTotalLoss {
    /// It is offline, says so, and waits for a human.
    Offline,
    /// It starts empty.
    #[default]
    Reinit,
}

/// How a store keeps copies, chosen when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replication {
    /// Copies besides the primary.
    pub replicas: u8,
    /// See [`Ack`].
    #[serde(default)]
    pub ack: Ack,
    /// With fewer copies in sync, the primary included, writes are refused; at least 1.
    #[serde(default = "one")]
    pub min_insync: u8,
    /// See [`ReadMode`].
    #[serde(default)]
    pub read: ReadMode,
    /// See [`OnTotalLoss`]. Where there are copies their loss is not the usual end of a cache, so nobody has to ask for
    /// what is safe.
    #[serde(default = "offline")]
    pub on_total_loss: OnTotalLoss,
}

fn one() -> u8 {
    1
}

fn offline() -> OnTotalLoss {
    OnTotalLoss::Offline
}

/// The three choices as words, for people and flags.
macro_rules! words {
    ($of:ty, $what:literal, $($variant:ident = $word:literal),+) => {
        impl fmt::Display for $of {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }

        impl core::str::FromStr for $of {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord(concat!($what, ":" $(, " ", $word)+))),
                }
            }
        }
    };
}

words!(Ack, "not a way to answer writes; there are", All = "all", Async = "async");
words!(ReadMode, "not a way to read; there are", Lease = "lease", Confirm = "confirm");
words!(
    OnTotalLoss,
    "not what can become of a range that is lost; there are",
    Offline = "offline",
    Reinit = "reinit"
);

/// A word that is none of those there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord(&'static str);

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for UnknownWord {}

impl Replication {
    /// One copy of each range, and nothing to agree on.
    pub const NONE: Self = Self {
        replicas: 0,
        ack: Ack::All,
        min_insync: 1,
        read: ReadMode::Lease,
        on_total_loss: OnTotalLoss::Reinit,
    };
}

/// The process of a node is gone, certainly: its manager saw it exit. Every copy of that boot leaves every range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadBoot {
    /// The node.
    pub node: NodeIndex,
    /// The start of the process that is gone.
    pub boot: BootId,
}

/// News of one range for the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeNews {
    /// Which range.
    pub range: RangeId,
    /// Its configuration; none before the range was formed.
    pub config: Option<RangeConfig>,
    /// Where its copies should be.
    pub placement: Placement,
    /// Grows with each change of the placement of any range of the store.
    pub placement_version: u64,
    /// Whether this answers an ask of this node. When the epoch is still the asked one, it was refused.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub answer: bool,
    /// Copies that left for good, of processes that still run: each of these and every earlier generation of it never
    /// counts again, whatever configurations follow. At most one a shard; those with a member at their shard are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Rid>,
}

impl RangeConfig {
    /// Whether a copy is one of those that count.
    pub fn has(&self, rid: Rid) -> bool {
        self.in_sync.contains(&rid)
    }

    /// The member at a shard, whatever its boot.
    pub fn member_at(&self, addr: ShardAddr) -> Option<Rid> {
        self.in_sync.iter().copied().find(|rid| rid.addr == addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardIndex;
    use alloc::string::ToString;
    use alloc::vec;
    use serde_json::json;

    fn rid(node: u16) -> Rid {
        let addr = ShardAddr { node: NodeIndex(node), shard: ShardIndex(0) };
        Rid { addr, boot: BootId(7), generation: 1 }
    }

    #[test]
    fn copies_are_asked_for_by_their_number_alone() {
        let asked: Replication = serde_json::from_str(r#"{"replicas":1}"#).unwrap();
        let on_total_loss = OnTotalLoss::Offline;
        assert_eq!(asked, Replication { replicas: 1, on_total_loss, ..Replication::NONE });
        assert!(serde_json::from_str::<Replication>(r#"{"replicas":1,"acks":"all"}"#).is_err());
        assert_eq!("async".parse(), Ok(Ack::Async));
        assert_eq!(ReadMode::Confirm.to_string().parse(), Ok(ReadMode::Confirm));
        let refused = "never".parse::<OnTotalLoss>().unwrap_err().to_string();
        assert!(refused.ends_with("there are: offline reinit"), "{refused}");
    }

    #[test]
    fn news_and_asks_are_this_json() {
        let config = RangeConfig {
            epoch: Epoch(3),
            primary: rid(0),
            in_sync: vec![rid(0), rid(1)],
            state: RangeState::Normal,
            first_index: 9,
            formed: Epoch(1),
        };
        assert!(config.has(rid(1)) && !config.has(rid(2)));
        assert_eq!(config.member_at(rid(1).addr), Some(rid(1)));
        let json_of =
            |node| json!({"addr": {"node": node, "shard": 0}, "boot": 7, "generation": 1});
        let news = RangeNews {
            range: RangeId(5),
            config: Some(config),
            placement: vec![rid(0).addr],
            placement_version: 2,
            answer: false,
            left: vec![rid(2)],
        };
        let written = json!({
            "range": 5,
            "config": {
                "epoch": 3, "primary": json_of(0), "in_sync": [json_of(0), json_of(1)],
                "state": "normal", "first_index": 9, "formed": 1,
            },
            "placement": [{"node": 0, "shard": 0}],
            "placement_version": 2,
            "left": [json_of(2)],
        });
        assert_eq!(serde_json::to_value(&news).unwrap(), written);
        assert_eq!(serde_json::from_value::<RangeNews>(written).unwrap(), news);
        let ask = ConfigAsk {
            range: RangeId(5),
            epoch: Epoch(3),
            caller: rid(0),
            change: Change::Shrink { remove: rid(1) },
        };
        let written = json!({
            "range": 5, "epoch": 3, "caller": json_of(0), "do": "shrink", "remove": json_of(1),
        });
        assert_eq!(serde_json::to_value(ask).unwrap(), written);
        assert_eq!(serde_json::from_value::<ConfigAsk>(written).unwrap(), ask);
    }
}
