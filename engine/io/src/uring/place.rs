//! The place of a connection: what the kernel holds of it, and what was told about it.

use std::os::fd::OwnedFd;

use super::send::Sending;
use crate::Conn;

/// Where the receive of a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Receiving {
    /// Not in the kernel.
    #[default]
    Idle,
    /// In the kernel.
    Armed,
    /// In the kernel, but its end was asked for.
    Cancelling,
}

/// Through which buffers a connection receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lane {
    /// The many small ones.
    #[default]
    Small,
    /// The few great ones.
    Great,
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) generation: u32,
    /// `None`: the place is free.
    pub(super) socket: Option<OwnedFd>,
    pub(super) receiving: Receiving,
    /// Through which buffers the receive in the kernel goes.
    pub(super) armed: Lane,
    /// Through which the next one is to go.
    pub(super) lane: Lane,
    /// Bytes of great arguments that are still to come, as far as it was told.
    pub(super) expecting: usize,
    /// Receives through the great buffers since the last expected byte.
    pub(super) unexpected: u8,
    /// Whether the receive got anything since it was armed: tells who may go to the end of the queue for buffers.
    pub(super) received_since_armed: bool,
    /// In the queue for buffers.
    pub(super) queued: bool,
    pub(super) cancel_tries: u8,
    /// The driver wants nothing now.
    pub(super) paused: bool,
    /// The end of the stream was told.
    pub(super) ended: bool,
    /// A failure was told.
    pub(super) failed: bool,
    /// The driver gave the connection up.
    pub(super) closing: bool,
    pub(super) sending: Option<Sending>,
}

impl Place {
    pub(super) fn occupy(&mut self, index: u32, socket: OwnedFd) -> Conn {
        debug_assert!(self.socket.is_none() && self.sending.is_none());
        *self = Self { generation: self.generation, socket: Some(socket), ..Self::default() };
        Conn { index, generation: self.generation }
    }

    pub(super) fn wants_to_receive(&self) -> bool {
        !self.paused && !self.ended && !self.failed && !self.closing
    }

    /// Whether the kernel holds nothing of it.
    pub(super) fn is_idle(&self) -> bool {
        self.receiving == Receiving::Idle && self.sending.is_none()
    }

    /// Frees the place; the socket is closed and the next use has another name.
    pub(super) fn vacate(&mut self) {
        debug_assert!(self.is_idle());
        self.socket = None;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Keeps a buffer that the kernel would not let go of for good.
    pub(super) fn leak(&mut self) {
        if let Some(sending) = self.sending.take() {
            sending.leak();
        }
    }
}
