//! RESP2 and RESP3: requests in ([`request`]), replies out ([`reply`]), replies in ([`value`], for clients and for
//! merging the replies of several shards).

pub mod reply;
pub mod request;
pub mod value;

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proto {
    /// RESP2, until HELLO says otherwise.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}
