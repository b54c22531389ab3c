//! Listening sockets, and what TCP knows of the other end of a connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// A port that could not be listened on. The text names the address, the reason, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there. The user recovers: another port, or stop the other process.
    #[error(
        "cannot listen on {address}: the address is in use; `ss -ltnp 'sport = :{port}'` shows by whom, or choose another port",
        port = address.port()
    )]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// This machine has no such address. The user recovers.
    #[error("cannot listen on {address}: this machine has no address {ip}; `ip addr` lists the ones it has", ip = address.ip())]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// A port below 1024 without the right to it. The user recovers.
    #[error(
        "cannot listen on {address}: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, choose one from 1024 up"
    )]
    Denied {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else the kernel says.
    #[error("cannot listen on {address}: {error}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            _ => Self::Other { address, error },
        }
    }
}

/// Gives a connection, by the addresses of its ends, the simplest congestion control when both are of this machine; others
/// keep what they have. Nothing within a machine can be congested, so what the system's default would measure and pace for
/// is only work: with bbr some hundredths of all that a request costs.
pub fn spare_congestion_control(socket: &impl AsFd, here: SocketAddr, there: SocketAddr) {
    // Of 127.0.0.0/8 all addresses are this machine's, and a socket of IPv6 may show them in its own form.
    let (here, there) = (here.ip().to_canonical(), there.ip().to_canonical());
    if there.is_loopback() || here == there {
        // Every kernel has it and lets anybody choose it; one that refuses keeps its default, which works as well.
        let _ = socket2::SockRef::from(socket).set_tcp_congestion(b"reno");
    }
}

/// Has the kernel send again after some milliseconds what a connection to a near machine lost, where the time from there to
/// here and back allows it. Its own least time is 200 ms, which is meant for the internet; a write that waits for a copy
/// would wait that long for each packet that is lost at the end of what there is to send. The other end has to say sooner
/// what it got, or much would be sent twice: so both ends are to do this. Whether the kernel can: Linux 6.15 does; on
/// others the connection is as it was.
pub fn recover_soon(socket: &impl AsFd) -> bool {
    /// `TCP_RTO_MIN_US` and `TCP_DELACK_MAX_US` of the kernel's `tcp.h`, which the libc crate does not have yet.
    const RTO_MIN_US: libc::c_int = 45;
    const DELACK_MAX_US: libc::c_int = 46;
    // Kernels that count 250 ticks in a second round up to 12 and 8 ms.
    let wanted: [(libc::c_int, libc::c_int); 2] = [(DELACK_MAX_US, 5_000), (RTO_MIN_US, 10_000)];
    // The second would do harm without the first.
    wanted.into_iter().all(|(option, microseconds)| {
        // SAFETY: setsockopt(2) reads one int at the pointer, which is one and lives over the call.
        let done = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw const microseconds).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        done == 0
    })
}

/// Has the kernel ask, after so many seconds of silence and then thrice as often, whether the other end is still there; after three
/// questions without an answer the connection ends with an error. An end of this machine needs none of it.
pub fn keep_alive(socket: &impl AsFd, here: SocketAddr, there: SocketAddr, after: Duration) {
    let (here, there) = (here.ip().to_canonical(), there.ip().to_canonical());
    if there.is_loopback() || here == there {
        return;
    }
    let interval = (after / 3).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(after).with_interval(interval).with_retries(3);
    // Without it a client that vanished is found out when something is sent to it.
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Binds and listens. Accepted connections inherit `TCP_NODELAY`.
///
/// `SO_REUSEADDR` is set, so that connections of an earlier process in TIME_WAIT do not block a restart; `SO_REUSEPORT` is
/// not, because then a second process would silently share the port instead of being told that it is taken.
///
/// # Errors
/// See [`BindError`].
pub fn bind_listener(address: SocketAddr, backlog: i32) -> Result<TcpListener, BindError> {
    let listen = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(socket.into())
    };
    listen().map_err(|error| BindError::new(address, error))
}

/// What a machine says of a connection by its acknowledgements alone, whatever the process on it does: a process that is
/// busy or stopped says nothing while its kernel goes on acknowledging; behind a cut cable both are silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Whether all that was sent has been acknowledged and the other end has no room for what waits here. It is then asked
    /// for room at growing intervals, and acknowledges no more often than that.
    pub full: bool,
    /// How long ago the last acknowledgement came.
    pub last: Duration,
}

/// Reads [`Acknowledged`] of a connected TCP socket.
///
/// # Errors
/// It is not one.
pub fn acknowledged(socket: BorrowedFd<'_>) -> io::Result<Acknowledged> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `length` bytes to `info`, which has that many and lives over the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `tcp_info` is integers only, so the zeroes that the kernel left are values too.
    let info = unsafe { info.assume_init() };
    let last = Duration::from_millis(info.tcpi_last_ack_recv.into());
    let full = info.tcpi_unacked == 0 && info.tcpi_notsent_bytes > info.tcpi_snd_wnd;
    Ok(Acknowledged { full, last })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::fd::AsFd;

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn lost_packets_are_sent_again_soon_where_the_kernel_can() {
        let listener = bind_listener(loopback(0), 1).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let kernel = crate::probe::kernel();
        let mut numbers = kernel.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap(), numbers.next().unwrap_or(0));
        assert_eq!(recover_soon(&stream), version >= (6, 15), "{kernel}");
        assert!(!recover_soon(&std::os::unix::net::UnixStream::pair().unwrap().0));
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = bind_listener(loopback(0), 16).expect("a free port");
        let address = first.local_addr().expect("bound");
        let error = bind_listener(address, 16).expect_err("taken");
        assert!(matches!(error, BindError::InUse { .. }));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        // TEST-NET-1: reserved for documentation, so no machine has it.
        let error = bind_listener(([192, 0, 2, 1], 0).into(), 16).expect_err("not ours");
        assert!(matches!(error, BindError::NotHere { .. }), "{error}");
    }

    #[test]
    fn within_a_machine_congestion_control_is_the_simplest() {
        for (here, there, within) in [
            ("127.0.0.1:1", "127.0.0.1:2", true),
            ("127.0.0.1:1", "127.9.9.9:2", true),
            ("[::ffff:127.0.0.1]:1", "127.9.9.9:2", true),
            ("192.0.2.1:1", "192.0.2.1:2", true),
            ("192.0.2.1:1", "[::ffff:192.0.2.1]:2", true),
            ("192.0.2.1:1", "192.0.2.2:1", false),
            ("[2001:db8::1]:1", "[2001:db8::2]:1", false),
        ] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
            let before = socket.tcp_congestion().expect("readable");
            let address = |text: &str| text.parse().expect("an address");
            spare_congestion_control(&socket, address(here), address(there));
            let after = socket.tcp_congestion().expect("readable");
            let expected = if within { b"reno" } else { &before[..] };
            assert!(after.starts_with(expected), "{here} {there} {after:?}");
        }
    }

    #[test]
    fn accepted_connections_inherit_nodelay() {
        let listener = bind_listener(loopback(0), 16).expect("a free port");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        assert!(listener.accept().expect("accepts").0.nodelay().expect("readable"));
    }

    #[test]
    fn a_machine_acknowledges_what_its_process_does_not_read() {
        let listener = bind_listener(loopback(0), 16).expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let _silent = listener.accept().expect("accepts");
        client.set_nonblocking(true).expect("settable");
        let piece = vec![0; 65536];
        while std::io::Write::write(&mut &client, &piece).is_ok() {}
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !acknowledged(client.as_fd()).expect("TCP").full {
            assert!(std::time::Instant::now() < deadline, "never acknowledged");
            std::thread::yield_now();
        }
        assert!(acknowledged(client.as_fd()).expect("TCP").last < Duration::from_secs(10));
        let (unix, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(acknowledged(unix.as_fd()).is_err());
    }
}
