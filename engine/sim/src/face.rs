//! What the world and a simulated node say to each other.
//!
//! The world knows true time, all machines and everything under way; a node gets its own clock's readings and what has
//! come in, and says what it sends. Nothing else passes between them, so that a node cannot know what no node could.

use crate::model::{Answer, Ask};
use crate::net::{Link, Machine, Parcel};
use dkv_protocol::ids::RangeId;
use dkv_protocol::ranges::{ConfigAsk, RangeNews};
use std::collections::VecDeque;
use std::rc::Rc;

/// A client of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u8);

/// A request, by a number that no other request of the run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(pub u64);

/// One command of a client.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number.
    pub serial: Serial,
    /// The key.
    pub key: Rc<str>,
    /// Where the key lives.
    pub range: RangeId,
    /// What is asked.
    pub ask: Ask,
    /// The bytes of the value that the ask names, if it names one.
    pub value: Rc<[u8]>,
    /// The bytes of the value that a comparison expects; none: no value.
    pub expected: Option<Rc<[u8]>>,
}

/// What became of a command, as its client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took place.
    Answer(Told),
    /// It did not, for certain.
    Refused(&'static str),
    /// Nobody knows.
    Unknown,
}

/// An answer before its value has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A value or nil.
    Value(Option<Rc<[u8]>>),
    /// All others.
    Other(Answer),
}

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub enum Content {
    /// Messages of the copies: bytes that the code under test made and reads.
    Peer(Vec<u8>),
    /// Requests for another shard, as a shard made them.
    Requests(Vec<u8>),
    /// The replies to them.
    Replies(Vec<u8>),
    /// A request that is passed on.
    Forward(Request),
    /// What became of it; none: it is not done here, and nothing was.
    Back(Serial, Option<Outcome>),
}

/// What comes to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's command.
    Request(Request),
    /// From another node.
    Parcel(Parcel<Content>),
    /// From its manager.
    News(Vec<RangeNews>),
    /// The link it dials to another node is up.
    LinkUp(Machine),
    /// That link is down.
    LinkDown(Machine),
}

/// What a node sends.
#[derive(Clone, Debug)]
pub enum Sent {
    /// Over the link that it dialled.
    Forth(Machine, Content),
    /// Over a link that was dialled to it.
    Back(Link, Content),
}

/// A node's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// The calendar.
    pub calendar_ms: u64,
}

/// What a turn of a node brings forth.
#[derive(Debug, Default)]
pub struct Out {
    /// For other nodes, in order.
    pub sent: Vec<Sent>,
    /// For clients.
    pub replies: Vec<(Serial, Outcome)>,
    /// For the manager.
    pub asks: Vec<ConfigAsk>,
    /// Effects that this node holds for committed: range, position, and a number that stands for the effect.
    pub committed: Vec<(RangeId, u64, u64)>,
    /// Writes that were answered: range and position.
    pub acknowledged: Vec<(RangeId, u64)>,
    /// A breach that the node itself noticed.
    pub breach: Option<String>,
    /// Whether notes are wanted.
    pub readable: bool,
    /// What a reader of the trace wants to know.
    pub notes: Vec<String>,
}

/// A record of a copy, as copies are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its version.
    pub version: u64,
    /// Whether it expires.
    pub expires: bool,
}

/// A node as the world drives it.
pub trait Node {
    /// Works on what has come in, and on what is due.
    fn turn(&mut self, now: Now, inputs: &mut VecDeque<Input>, out: &mut Out);
    /// The reading of its boot time at which it wants a turn without an input.
    fn wake_ns(&self) -> u64;
    /// The position of its copy of a range, and everything the copy holds that has not expired, in order.
    fn held(&self, now: Now, range: RangeId) -> (u64, Vec<Held>);
    /// A line about its copy of a range.
    fn shown(&self, range: RangeId) -> String;
}
