//! A log of commands that a group agrees on, as the manager drives it: time and messages in, bytes to keep, messages and
//! agreed commands out. Whoever drives it owns the file, the clock and the network.

use crate::catalog::{Applied, Catalog};
use crate::command::Command;
use crate::group::{Group, GroupChange, MemberId};
use crate::wire::Malformed;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What can be agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposal {
    /// A change of the catalogue.
    Command(Command),
    /// A change of the group itself.
    Group(GroupChange),
}

/// Most bytes of a proposal as JSON.
pub const PROPOSAL_BYTES_MAX: usize = 1 << 20;

/// What must be kept on disk before [`ConfigLog::persisted`] is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Nothing.
    Nothing,
    /// Append this to the file and fsync it.
    Append(Vec<u8>),
    /// This is the whole file from now on: write another, fsync it, rename it over the old one, fsync the directory.
    Replace(Vec<u8>),
}

/// A message for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// For whom.
    pub to: MemberId,
    /// The bytes. It may be lost, delayed, doubled or reordered.
    pub bytes: Vec<u8>,
}

/// What there is to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// May be sent at once.
    pub messages: Vec<Envelope>,
    /// Then this is kept, and then [`ConfigLog::persisted`] called.
    pub persist: Persist,
}

/// What follows once it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// To be sent.
    pub messages: Vec<Envelope>,
    /// Agreed on and applied, in order. After a restart those behind the last snapshot come once more.
    pub committed: Vec<Committed>,
    /// Whether the catalogue was replaced as a whole, by the snapshot of another member.
    pub restored: bool,
}

/// A proposal that was agreed on, and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its position in the log.
    pub index: u64,
    /// Who proposed it.
    pub by: MemberId,
    /// The number that the proposer gave it.
    pub number: u64,
    /// What.
    pub proposal: Proposal,
    /// What it did.
    pub applied: Applied,
}

/// Why nothing is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProposed {
    /// No leader is known, or it is about to change, or too much waits already. Later, or at another manager.
    NotNow,
    /// More than [`PROPOSAL_BYTES_MAX`].
    TooLarge,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It makes no sense.
    Malformed,
    /// It is of another group; ours or theirs was founded anew by force.
    OtherGroup,
    /// It is for another member.
    OtherMember,
    /// Something is being kept: as good as lost on the way.
    Busy,
    /// The leader knows that this member held more than it does: its disk forgot. It must join under another number.
    Forgotten,
}

/// Why this member cannot go on: it would differ from the others. The manager must be upgraded or join anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// What was agreed on at this position is not understood, which a newer manager's command may be.
    NotUnderstood {
        /// Where.
        index: u64,
    },
    /// What the library gave cannot be written.
    NotWritable,
}

impl From<Malformed> for Halted {
    fn from(_: Malformed) -> Self {
        Self::NotWritable
    }
}

impl From<Malformed> for NotTaken {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// See the module. After any of the first three comes `while let Some(ready) = log.ready()? { … log.persisted()? … }`, and
/// nothing else between those two.
pub trait ConfigLog {
    /// A tick of time has passed.
    fn tick(&mut self);

    /// A message of another member.
    fn step(&mut self, message: &[u8]) -> Result<(), NotTaken>;

    /// Proposes. It may be lost even so: whoever does not see it among the committed proposes it again, which does no
    /// harm because every command says what it takes for granted.
    fn propose(&mut self, number: u64, proposal: &Proposal) -> Result<(), NotProposed>;

    /// What there is to do, if anything. None while something waits for [`ConfigLog::persisted`].
    fn ready(&mut self) -> Result<Option<Ready>, Halted>;

    /// What the last [`Ready`] asked for is kept.
    fn persisted(&mut self) -> Result<After, Halted>;

    /// A message to this member may have been lost: its connection broke.
    fn unreachable(&mut self, member: MemberId);

    /// The catalogue as far as it is known here; only the leader's is current.
    fn catalog(&self) -> &Catalog;

    /// The managers as far as they are known here.
    fn group(&self) -> &Group;

    /// Who leads, as far as known.
    fn leader(&self) -> Option<MemberId>;
}
