//! Whether a process that is not DKV's holds a port: found out by binding it for a moment on each address that a node
//! would bind, and named as far as the kernel tells.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

/// Who or what keeps a node from binding `port`, in words; none when nothing does.
pub(crate) fn holder(addresses: &[IpAddr], port: u16) -> Option<String> {
    addresses.iter().find_map(|address| {
        let error = TcpListener::bind(SocketAddr::new(*address, port)).err()?;
        Some(match error.kind() {
            io::ErrorKind::AddrInUse => listener(port).map_or_else(
                || format!("another process on {address}"),
                |(pid, name)| format!("another process on {address}: {name}, pid {pid}"),
            ),
            io::ErrorKind::PermissionDenied => {
                format!("the kernel on {address}: ports below 1024 need a privilege")
            }
            _ => format!("the kernel on {address}: {error}"),
        })
    })
}

/// The process that listens on a port of this machine, when we may see it.
fn listener(port: u16) -> Option<(u32, String)> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).ok());
    let inodes: Vec<String> = tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, local) = words.get(1)?.rsplit_once(':')?;
            let fits = u16::from_str_radix(local, 16).ok()? == port && *words.get(3)? == LISTEN;
            fits.then(|| format!("socket:[{}]", words.get(9).copied().unwrap_or_default()))
        })
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find_map(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.find(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some((pid, name.trim().to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_port_that_is_held_is_found_with_its_process() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let taken = TcpListener::bind((loopback, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let told = holder(&[loopback], port).unwrap();
        assert!(told.contains(&std::process::id().to_string()), "{told}");
        drop(taken);
        assert_eq!(holder(&[loopback], port), None);
    }
}
