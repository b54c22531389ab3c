//! Why a node could not start, each with the exit code that its manager acts on.

use dkv_io::sockets::BindError;
use dkv_protocol::launch::exit;

/// See the module. Every text says what, why and what to do; it is logged once, where the process ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The manager that wrote it must be fixed.
    #[error("the launch document is refused: {0}")]
    BadDocument(String),
    /// Whoever holds the address must leave it, or the store needs other ports.
    #[error("the {role} port of this node: {cause}")]
    Address {
        /// cluster, client or shard.
        role: &'static str,
        /// Which address, why, and what to do.
        cause: BindError,
    },
    /// The operator of the host must allow it; the text says how.
    #[error("{0}")]
    IoUnavailable(String),
    /// Nobody has to do anything: the node is there.
    #[error("{0}")]
    AlreadyRunning(String),
    /// The manager's configuration of this node must change.
    #[error("{0}")]
    BadConfiguration(String),
    /// The log lines before it say more.
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    /// See [`exit`].
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BadDocument(_) => exit::BAD_LAUNCH_DOCUMENT,
            // An address that is not this machine's is a mistake of the configuration, not somebody else's port.
            Self::Address { cause: BindError::InUse { .. }, .. } => exit::ADDRESS_IN_USE,
            Self::Address { .. } | Self::BadConfiguration(_) => exit::BAD_CONFIGURATION,
            Self::IoUnavailable(_) => exit::IO_URING_UNAVAILABLE,
            Self::AlreadyRunning(_) => exit::ALREADY_RUNNING,
            Self::Failed(_) => exit::FAILED,
        }
    }
}
