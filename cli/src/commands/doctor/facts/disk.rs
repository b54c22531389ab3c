//! The disk under the data directory, and the calendar, which signed calls between machines need.

use super::read::{self, Fact};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Disk {
    /// The data directory and, when it cannot be written, why.
    pub(in super::super) data_dir: (PathBuf, Option<String>),
    /// Free bytes on the disk of the data directory.
    pub(in super::super) free: Option<u64>,
    /// Kind of the file system, as `ext4`.
    pub(in super::super) file_system: Fact<String>,
    /// The block device under it; absent: there is none (an overlay, a network).
    pub(in super::super) device: Fact<BlockDevice>,
    /// The calendar.
    pub(in super::super) calendar: Fact<dkv_node::Calendar>,
}

/// A block device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct BlockDevice {
    /// `vda`: the whole disk, for a partition.
    pub(in super::super) name: String,
    /// The chosen word of `queue/scheduler`.
    pub(in super::super) scheduler: Fact<String>,
    /// `queue/nomerges`.
    pub(in super::super) nomerges: Fact<u64>,
    /// `queue/write_cache`: `write back` or `write through`.
    pub(in super::super) write_cache: Fact<String>,
    /// `queue/rotational`.
    pub(in super::super) rotational: bool,
}

pub(super) fn read(data_dir: &Path) -> Disk {
    let here = existing(data_dir);
    Disk {
        data_dir: (data_dir.to_path_buf(), not_writable(data_dir)),
        free: here
            .and_then(|dir| rustix::fs::statvfs(dir).ok())
            .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        file_system: here.map_or(Fact::Absent, file_system),
        device: here.map_or(Fact::Absent, block_device),
        calendar: match dkv_node::calendar() {
            Ok(calendar) => Fact::Known(calendar),
            Err(error) => Fact::Unread(format!("adjtimex: {error}")),
        },
    }
}

/// The directory, or the nearest one above it that exists.
pub(in super::super) fn existing(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.is_dir())
}

fn not_writable(dir: &Path) -> Option<String> {
    let existing = existing(dir)?;
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(existing, access)
        .err()
        .map(|error| format!("{}: {error}", existing.display()))
}

fn file_system(dir: &Path) -> Fact<String> {
    const PATH: &str = "/proc/self/mountinfo";
    let Ok(real) = dir.canonicalize() else {
        return Fact::Unread(format!("{}: cannot be resolved", dir.display()));
    };
    read::text(PATH).and_then(|text| mounted(&text, &real), PATH)
}

/// The kind of the file system that a path lies on: of the mount points above it the longest, of equal ones the last.
fn mounted(mounts: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let (about, kind) = line.split_once(" - ")?;
        let point = about.split(' ').nth(4)?.replace("\\040", " ");
        if path.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind.split(' ').next()?));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

fn block_device(dir: &Path) -> Fact<BlockDevice> {
    let device = match std::fs::metadata(dir) {
        Ok(about) => about.dev(),
        Err(error) => return Fact::Unread(format!("{}: {error}", dir.display())),
    };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(mut real) = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return Fact::Absent;
    };
    if real.join("partition").exists() {
        real.pop();
    }
    let queue = real.join("queue");
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let nomerges = queue.join("nomerges").display().to_string();
    Fact::Known(BlockDevice {
        name,
        scheduler: read::choice(queue.join("scheduler")),
        nomerges: read::number(&nomerges),
        write_cache: read::text(queue.join("write_cache")),
        rotational: read::plain(queue.join("rotational")) == "1",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_mount_nearest_to_it() {
        let mounts = "\
22 1 254:0 / / rw - ext4 /dev/vda rw
23 22 0:21 / /var rw - tmpfs tmpfs rw
24 22 0:22 / /var/lib rw shared:1 - xfs /dev/vdb rw
25 22 0:23 / /a\\040b rw - btrfs /dev/vdc rw";
        for (path, kind) in [
            ("/var/lib/dkv", "xfs"),
            ("/var/libx", "tmpfs"),
            ("/home", "ext4"),
            ("/a b/c", "btrfs"),
        ] {
            assert_eq!(mounted(mounts, Path::new(path)).as_deref(), Some(kind), "{path}");
        }
    }
}
