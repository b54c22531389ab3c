//! What the managers agreed on, on the disk of one of them: one file that begins with a whole state and goes on with what
//! was added to it.
//!
//! Each addition is one record with its own checksum, on the disk before `append` returns. A crash can tear the last one
//! only, which nobody was told of; it is cut off. Anything else that does not read back is damage and refused. The file is
//! replaced as a whole when it has grown. Knows records, not what is in them.

use crc::{CRC_32_ISCSI, Crc, Table};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 16] = b"dkv-ranges 1\n\0\0\0";
/// Length and checksum of a record, and the checksum of those two.
const HEAD_BYTES: usize = 12;
/// Longest record, in bytes: the state of a thousand stores fits.
const RECORD_BYTES_MAX: usize = 1 << 30;
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Why the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("cannot read or write {path}: {source}")]
    Failed { path: String, source: io::Error },
    #[error(
        "{path} is damaged at byte {at}: it says which copies of each range hold all answered writes, and cannot be guessed. \
         With other managers that keep it: move it away (mv {path} {path}.damaged) and start this manager again, it gets \
         theirs. Without: stop the nodes of its stores with copies first, they start empty then"
    )]
    Damaged { path: String, at: usize },
}

/// The file.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    path: PathBuf,
    part: PathBuf,
    file: File,
    bytes: u64,
    /// Whether what is on the disk is not known any more, and only a whole new file helps.
    broken: bool,
}

impl Disk {
    /// Opens the file, or makes one that begins with `first`. Gives its records; there is one at least.
    pub(crate) fn open(dir: &Path, first: &[u8]) -> Result<(Self, Vec<Vec<u8>>), DiskError> {
        let path = dir.join("ranges.log");
        let failed = |source| DiskError::Failed { path: path.display().to_string(), source };
        let mut text = Vec::new();
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = match opened.and_then(|mut file| file.read_to_end(&mut text).map(|_| file)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let part = dir.join("ranges.log.new");
        let Some(file) = file else {
            let (file, bytes) = replace(dir, &path, &part, first).map_err(failed)?;
            let disk = Self { dir: dir.to_path_buf(), path, part, file, bytes, broken: false };
            return Ok((disk, vec![first.to_vec()]));
        };
        let damaged = |at| DiskError::Damaged { path: path.display().to_string(), at };
        let (records, end) = parse(&text).map_err(damaged)?;
        if end < text.len() {
            tracing::warn!(path = %path.display(), at = end, "a record that was cut short by a crash is left out");
            file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        let bytes = end as u64;
        let disk = Self { dir: dir.to_path_buf(), path, part, file, bytes, broken: false };
        Ok((disk, records))
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a record. When it fails, nothing may be said of what is on the disk until [`Disk::replace`] went well.
    pub(crate) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        let framed = frame(record);
        let written =
            self.file.write_all_at(&framed, self.bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.bytes += framed.len() as u64,
            Err(_) => self.broken = true,
        }
        written
    }

    /// Puts a file in its place that holds `first` alone.
    pub(crate) fn replace(&mut self, first: &[u8]) -> io::Result<()> {
        (self.file, self.bytes) = replace(&self.dir, &self.path, &self.part, first)?;
        self.broken = false;
        Ok(())
    }
}

fn replace(dir: &Path, path: &Path, part: &Path, first: &[u8]) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)?;
    let mut text = MAGIC.to_vec();
    text.extend_from_slice(&frame(first));
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(part, path)?;
    File::open(dir)?.sync_all()?;
    Ok((file, text.len() as u64))
}

fn frame(record: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(HEAD_BYTES + record.len());
    framed.extend_from_slice(&(record.len() as u32).to_le_bytes());
    framed.extend_from_slice(&CRC.checksum(record).to_le_bytes());
    let sum = CRC.checksum(&framed);
    framed.extend_from_slice(&sum.to_le_bytes());
    framed.extend_from_slice(record);
    framed
}

/// The length and checksum of the record at a place, when its head is whole.
fn head(text: &[u8]) -> Option<(usize, u32)> {
    let head = text.get(..HEAD_BYTES)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = word(0) as usize;
    (CRC.checksum(&head[..8]) == word(8) && length <= RECORD_BYTES_MAX).then_some((length, word(4)))
}

fn record(text: &[u8]) -> Option<&[u8]> {
    let (length, sum) = head(text)?;
    let body = text.get(HEAD_BYTES..HEAD_BYTES + length)?;
    (CRC.checksum(body) == sum).then_some(body)
}

/// The records and where they end; or where damage is.
fn parse(text: &[u8]) -> Result<(Vec<Vec<u8>>, usize), usize> {
    if text.get(..MAGIC.len()) != Some(MAGIC) {
        return Err(0);
    }
    let mut at = MAGIC.len();
    let mut records = Vec::new();
    while at < text.len() {
        let rest = &text[at..];
        if let Some(body) = record(rest) {
            records.push(body.to_vec());
            at += HEAD_BYTES + body.len();
            continue;
        }
        // Torn is only what nothing follows: a whole record behind it was written after it had been acknowledged.
        let torn = match head(rest) {
            Some((length, _)) => HEAD_BYTES + length >= rest.len(),
            None => {
                !(1..rest.len()).any(|skip| record(&rest[skip..]).is_some_and(|r| !r.is_empty()))
            }
        };
        if !torn || records.is_empty() {
            return Err(at);
        }
        break;
    }
    if records.is_empty() { Err(at) } else { Ok((records, at)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Result<(Disk, Vec<Vec<u8>>), DiskError> {
        Disk::open(dir, b"first")
    }

    #[test]
    fn what_was_added_is_there_after_a_restart_and_a_replacement() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, records) = open(dir.path()).unwrap();
        assert_eq!(records, [b"first"]);
        disk.append(b"second").unwrap();
        disk.append(b"third").unwrap();
        let (mut disk, records) = open(dir.path()).unwrap();
        assert_eq!(records, [&b"first"[..], b"second", b"third"]);
        disk.replace(b"all of it").unwrap();
        disk.append(b"more").unwrap();
        assert_eq!(open(dir.path()).unwrap().1, [&b"all of it"[..], b"more"]);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_a_flipped_byte_is_damage() {
        let mut whole = MAGIC.to_vec();
        let mut ends = Vec::new();
        for text in [&b"state"[..], b"one", b"another"] {
            whole.extend_from_slice(&frame(text));
            ends.push(whole.len());
        }
        let complete = |bytes: usize| ends.iter().filter(|end| **end <= bytes).count();
        for cut in 0..whole.len() {
            match parse(&whole[..cut]) {
                Ok((records, end)) => {
                    assert_eq!(records.len(), complete(cut), "cut at {cut}");
                    assert_eq!(end, ends[records.len() - 1], "cut at {cut}");
                }
                Err(_) => assert_eq!(complete(cut), 0, "cut at {cut}"),
            }
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            // Of the last record nobody can tell a flip from a torn write; all others must be found.
            match parse(&flipped) {
                Ok((records, _)) => assert!(at >= ends[1] && records.len() == 2, "flipped at {at}"),
                Err(_) => assert!(at < ends[1], "flipped at {at}"),
            }
        }
    }

    #[test]
    fn after_a_failed_write_only_a_whole_new_file_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path()).unwrap();
        disk.file = File::open(&disk.path).unwrap();
        disk.append(b"cannot be written to").unwrap_err();
        disk.append(b"nor this").unwrap_err();
        disk.replace(b"anew").unwrap();
        disk.append(b"goes on").unwrap();
        assert_eq!(open(dir.path()).unwrap().1, [&b"anew"[..], b"goes on"]);
    }
}
