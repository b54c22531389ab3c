//! What can go wrong between a program and a store, in words for the person at the keyboard.

use dkv_protocol::resp::value::ReplyError;
use std::io;
use std::time::Duration;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one. The caller corrects it.
    #[error(
        "'{given}' is not an address of a store: {why}; write HOST:PORT or dkv://HOST:PORT/STORE"
    )]
    BadAddress {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The host's name is not known.
    #[error("cannot find the host of {endpoint}: {source}")]
    Unresolved {
        /// Where to.
        endpoint: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens there: the node is down, or it is another port.
    #[error("connection to {endpoint} refused: no node listens there; is the store started?")]
    Refused {
        /// Where to.
        endpoint: String,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer within {} ms while {doing}", after.as_millis())]
    TimedOut {
        /// Where to.
        endpoint: String,
        /// What was waited for.
        doing: &'static str,
        /// How long.
        after: Duration,
    },
    /// The node closed the connection.
    #[error("{endpoint} closed the connection")]
    Closed {
        /// Where to.
        endpoint: String,
    },
    /// The network failed in another way.
    #[error("connection to {endpoint} failed: {source}")]
    Io {
        /// Where to.
        endpoint: String,
        /// What the system said.
        source: io::Error,
    },
    /// None of several endpoints could be used; each says why.
    #[error("no node of the store can be reached: {}", list(causes))]
    Unreachable {
        /// One for each endpoint.
        causes: Vec<ClientError>,
    },
    /// The store has a password, or its default user is switched off, and no user or password was given.
    #[error("{endpoint} asks for a password (NOAUTH)")]
    PasswordRequired {
        /// Where to.
        endpoint: String,
    },
    /// The password is wrong, or there is no such user, or it is switched off; the store does not say which.
    #[error("{endpoint} does not take this user and password (WRONGPASS)")]
    WrongPassword {
        /// Where to.
        endpoint: String,
    },
    /// What answers there is no store: its bytes are not RESP3.
    #[error("{endpoint} is not the client port of a store: {why}")]
    NotAStore {
        /// Where to.
        endpoint: String,
        /// What it said instead.
        why: String,
    },
    /// Another store answers there.
    #[error("{endpoint} belongs to the store '{actual}', not to '{expected}'")]
    WrongStore {
        /// Where to.
        endpoint: String,
        /// The store that was asked for.
        expected: String,
        /// The store that answered.
        actual: String,
    },
    /// An error reply, in the store's own words, its code first.
    #[error("{0}")]
    Server(String),
    /// A write was sent and its answer was lost, or the store itself cannot know the outcome: it may have happened or
    /// not. The caller reads, and decides.
    #[error("the outcome of {command} is unknown, it may have happened or not: {why}")]
    Uncertain {
        /// The command.
        command: String,
        /// What happened instead of an answer.
        why: String,
    },
    /// A reply that does not fit the command.
    #[error("unexpected reply to {command}: {reply}")]
    UnexpectedReply {
        /// The command.
        command: String,
        /// The reply, shortened.
        reply: String,
    },
    /// Bytes that are no reply.
    #[error("{endpoint} sent a malformed reply: {source}")]
    Malformed {
        /// Where to.
        endpoint: String,
        /// What is wrong with it.
        source: ReplyError,
    },
    /// A reply above [`crate::Options::reply_bytes_max`].
    #[error("{endpoint} sent a reply of more than {bytes_max} bytes")]
    ReplyTooLarge {
        /// Where to.
        endpoint: String,
        /// The limit.
        bytes_max: usize,
    },
}

impl ClientError {
    /// Whether another node may do what this one could not: it could not be reached, or went away.
    pub const fn is_transport(&self) -> bool {
        matches!(
            self,
            Self::Unresolved { .. }
                | Self::Refused { .. }
                | Self::TimedOut { .. }
                | Self::Closed { .. }
                | Self::Io { .. }
                | Self::Unreachable { .. }
        )
    }

    /// The code word of an error reply, as `WRONGTYPE`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server(text) => text.split(' ').next(),
            _ => None,
        }
    }

    /// From what the system says about a socket.
    pub(crate) fn from_io(
        endpoint: &str,
        doing: &'static str,
        after: Duration,
        source: io::Error,
    ) -> Self {
        let endpoint = endpoint.to_owned();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { endpoint },
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Self::TimedOut { endpoint, doing, after }
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Closed { endpoint },
            _ => Self::Io { endpoint, source },
        }
    }
}

fn list(causes: &[ClientError]) -> String {
    let causes: Vec<String> = causes.iter().map(ToString::to_string).collect();
    causes.join("; ")
}
