//! One manager a machine: an abstract Unix socket that only one process can hold.
//!
//! Its name space is that of the network, which is what a machine is here, and it ends with its process, so that there
//! is no stale lock to clean up. Whoever connects is told the holder's address; pid and user come from the kernel, so
//! that nobody can pretend.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// The name that every manager takes.
pub const NAME: &str = "dkv-manager";
/// Most time to wait for a holder to say its address.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The pause between two tries for a name whose holder is ending.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The manager that holds the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its address; none when it did not say.
    pub address: Option<SocketAddr>,
}

/// Why the name could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A manager of the same user (or of root) runs.
    #[error(
        "a manager already runs on this machine: pid {}, address {}. There is one manager a machine; use that one, or stop \
         it with: kill {}", .0.pid, address(.0), .0.pid
    )]
    Running(Holder),
    /// Another user holds the name.
    #[error(
        "the name that makes a manager the only one of its machine is held by a process of another user: pid {}, user {}. \
         Have that user (or root) stop it: kill {}", .0.pid, .0.uid, .0.pid
    )]
    AnotherUser(Holder),
    /// The kernel refused for another reason.
    #[error("cannot take the manager's name on this machine: {0}")]
    Failed(#[from] io::Error),
}

fn address(holder: &Holder) -> String {
    holder.address.map_or_else(|| "not known yet".to_string(), |address| address.to_string())
}

/// Takes the name. It is held for as long as the listener lives; [`answer`] must be called for each connection.
pub fn take(name: &str) -> Result<UnixListener, GuardError> {
    let begin = Instant::now();
    loop {
        match try_take(name) {
            // One that was killed holds the name until the kernel has cleared it away, and one that begins has no address
            // yet: neither is known by now.
            Err(GuardError::Running(holder) | GuardError::AnotherUser(holder))
                if holder.address.is_none() && begin.elapsed() < ANSWER_MAX =>
            {
                std::thread::park_timeout(TRY_AGAIN);
            }
            result => return result,
        }
    }
}

fn try_take(name: &str) -> Result<UnixListener, GuardError> {
    match UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(name)? {
            Some(holder) => {
                let me = rustix::process::geteuid().as_raw();
                if holder.uid == me || holder.uid == 0 {
                    Err(GuardError::Running(holder))
                } else {
                    Err(GuardError::AnotherUser(holder))
                }
            }
            // It ended between the two calls.
            None => Ok(UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?),
        },
        Err(error) => Err(error.into()),
    }
}

/// The manager of this machine, if one runs.
pub fn running() -> Option<Holder> {
    holder(NAME).ok().flatten()
}

fn holder(name: &str) -> io::Result<Option<Holder>> {
    let mut stream = match UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut text = [0; 64];
    let mut len = 0;
    while len < text.len() {
        match stream.read(&mut text[len..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => len += more,
        }
    }
    let address = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.trim().parse().ok());
    let pid = peer.pid.as_raw_nonzero().get() as u32;
    Ok(Some(Holder { pid, uid: peer.uid.as_raw(), address }))
}

/// What the holder of the name sends to whoever connects, before it closes the connection.
pub fn answer(address: SocketAddr) -> String {
    format!("{address}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_second_manager_is_refused_with_pid_and_address_of_the_first() {
        let name = format!("dkv-test-{}", crate::auth::random_hex(8));
        let first = take(&name).unwrap();
        let address: SocketAddr = "10.0.0.11:7801".parse().unwrap();
        let told = std::thread::spawn(move || {
            let (mut stream, _) = first.accept().unwrap();
            stream.write_all(answer(address).as_bytes()).unwrap();
            first
        });
        let refused = take(&name).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains("10.0.0.11:7801"), "{text}");
        drop(told.join().unwrap());
        assert!(take(&name).is_ok());
    }

    #[test]
    fn the_name_of_a_manager_that_is_ending_is_taken_when_it_is_gone() {
        let name = format!("dkv-test-{}", crate::auth::random_hex(8));
        let ending = take(&name).unwrap();
        let gone = std::thread::spawn(move || {
            // As one does that was killed: the connection ends without an address, then the name is free.
            drop(ending.accept().unwrap());
            drop(ending.accept().unwrap());
        });
        assert!(take(&name).is_ok());
        gone.join().unwrap();
    }
}
