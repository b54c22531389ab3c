//! The catalogue on disk: one file, replaced as a whole, so that it is always either the old one or the new one.
//!
//! The first line names the format and the checksum of the rest; the rest is JSON that a human can read. A file that is
//! cut short or changed is found out and never half believed. Knows files; decides nothing.

use crate::auth::hex;
use crate::plan::steps::Wanted;
use dkv_protocol::admin::{DeletedStore, NodeState, StoreRecord};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &str = "dkv-catalogue";
const VERSION: u32 = 1;
/// A catalogue of this machine's stores is some kilobytes; a hundred megabytes is not one.
const BYTES_MAX: u64 = 100 * 1024 * 1024;

/// Everything that a manager must still know after it was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    /// This machine: the manager's address and port.
    pub(crate) machine: String,
    /// The machines of the group, this one included, in the order in which they joined.
    pub(crate) members: Vec<String>,
    /// Stores by name.
    pub(crate) stores: BTreeMap<String, StoreEntry>,
    /// The last stores that were deleted, for managers that were away then. Left out while there is none, as in the
    /// catalogues of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deleted: Vec<DeletedStore>,
}

/// A store that covers this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreEntry {
    /// The record, the same on all machines of the store.
    pub(crate) record: StoreRecord,
    /// It is being deleted; finished after a restart.
    pub(crate) deleting: bool,
    /// This machine's nodes by name.
    pub(crate) nodes: BTreeMap<String, NodeEntry>,
}

/// One node of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeEntry {
    /// What is wanted of it.
    pub(crate) wanted: Wanted,
    /// Its state when this was written.
    pub(crate) state: NodeState,
    /// Its process.
    pub(crate) process: Option<ProcessEntry>,
    /// Restarts since it was last started on request.
    pub(crate) restarts: u32,
    /// Why it failed.
    pub(crate) message: Option<String>,
}

/// A process, so that no other one can be taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessEntry {
    pub(crate) pid: u32,
    /// The machine's boot and the process' start time in it.
    pub(crate) born: String,
}

impl NodeEntry {
    /// A node that was never started.
    pub(crate) fn new() -> Self {
        Self {
            wanted: Wanted::Down,
            state: NodeState::Requested,
            process: None,
            restarts: 0,
            message: None,
        }
    }
}

/// Why a catalogue cannot be read. The operator recovers: a manager never guesses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("cannot read the catalogue {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error(
        "the catalogue {path} is damaged: {reason}. Put back a copy of it; or move it away (mv {path} {path}.damaged), stop \
         the nodes that still run (ps ax | grep 'dkv node'), and create the stores again"
    )]
    Damaged { path: String, reason: String },
    #[error(
        "the catalogue {path} has format {found}, this manager knows {VERSION}: start the newer dkv that wrote it"
    )]
    Newer { path: String, found: u32 },
}

/// The file, and the directory that holds it.
#[derive(Clone, Debug)]
pub(crate) struct LedgerFile {
    dir: PathBuf,
    path: PathBuf,
    part: PathBuf,
}

/// The steps of a replacement, in order. A crash after any of them leaves a whole catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum SaveStep {
    Written,
    Synced,
    Renamed,
    DirectorySynced,
}

impl LedgerFile {
    pub(crate) fn new(dir: &Path) -> Self {
        let path = dir.join("catalogue.json");
        Self { dir: dir.to_path_buf(), part: dir.join("catalogue.json.new"), path }
    }

    /// The catalogue, or none when there is no file yet.
    pub(crate) fn load(&self) -> Result<Option<Ledger>, LedgerError> {
        let path = self.path.display().to_string();
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|f| f.take(BYTES_MAX).read_to_end(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LedgerError::Unreadable { path, source }),
        }
        parse(&text, &path).map(Some)
    }

    /// Replaces the catalogue. When it returns, the new one is on the disk.
    pub(crate) fn save(&self, ledger: &Ledger) -> io::Result<()> {
        self.save_until(ledger, SaveStep::DirectorySynced)
    }

    fn save_until(&self, ledger: &Ledger, last: SaveStep) -> io::Result<()> {
        let mut part = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.part)?;
        part.write_all(&encode(ledger))?;
        if last == SaveStep::Written {
            return Ok(());
        }
        part.sync_all()?;
        if last == SaveStep::Synced {
            return Ok(());
        }
        std::fs::rename(&self.part, &self.path)?;
        if last == SaveStep::Renamed {
            return Ok(());
        }
        File::open(&self.dir)?.sync_all()
    }
}

fn encode(ledger: &Ledger) -> Vec<u8> {
    let body = serde_json::to_vec_pretty(ledger).expect("a catalogue is plain data");
    let sum = hex(&Sha256::digest(&body));
    let mut text = format!("{MAGIC} {VERSION} bytes={} sha256={sum}\n", body.len()).into_bytes();
    text.extend_from_slice(&body);
    text.push(b'\n');
    text
}

fn parse(text: &[u8], path: &str) -> Result<Ledger, LedgerError> {
    let damaged =
        |reason: &str| LedgerError::Damaged { path: path.to_string(), reason: reason.to_string() };
    let end =
        text.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("it has no first line"))?;
    let head =
        std::str::from_utf8(&text[..end]).map_err(|_| damaged("its first line is garbage"))?;
    let mut words = head.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(damaged("its first line is not that of a catalogue"));
    }
    let version: u32 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| damaged("its first line names no format"))?;
    if version != VERSION {
        return Err(LedgerError::Newer { path: path.to_string(), found: version });
    }
    let field = |word: Option<&str>, name: &str| {
        word.and_then(|word| word.strip_prefix(name)).map(str::to_string)
    };
    let bytes: usize = field(words.next(), "bytes=")
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| damaged("its first line names no length"))?;
    let sum = field(words.next(), "sha256=").ok_or_else(|| damaged("it has no checksum"))?;
    let rest = &text[end + 1..];
    let body = rest.get(..bytes).ok_or_else(|| {
        damaged(&format!("it is cut short, {} of {bytes} bytes after the first line", rest.len()))
    })?;
    if rest.get(bytes..) != Some(b"\n") {
        return Err(damaged("bytes follow after its end"));
    }
    if hex(&Sha256::digest(body)) != sum {
        return Err(damaged("its bytes do not match its checksum"));
    }
    serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(machine: &str) -> Ledger {
        Ledger {
            machine: machine.to_string(),
            members: vec![machine.to_string()],
            stores: BTreeMap::new(),
            deleted: Vec::new(),
        }
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_catalogue_or_the_new_one() {
        use SaveStep::{DirectorySynced, Renamed, Synced, Written};
        for (last, survives) in
            [(Written, "old"), (Synced, "old"), (Renamed, "new"), (DirectorySynced, "new")]
        {
            let dir = tempfile::tempdir().unwrap();
            let file = LedgerFile::new(dir.path());
            assert_eq!(file.load().unwrap(), None);
            file.save(&ledger("old")).unwrap();
            file.save_until(&ledger("new"), last).unwrap();
            assert_eq!(file.load().unwrap(), Some(ledger(survives)), "{last:?}");
            // What a crash left over does not disturb the next one.
            file.save(&ledger("next")).unwrap();
            assert_eq!(file.load().unwrap(), Some(ledger("next")));
        }
    }

    #[test]
    fn torn_and_flipped_files_are_found_at_every_byte() {
        let whole = encode(&ledger("10.0.0.11:7801"));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut], "catalogue.json").is_err(), "cut at {cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            assert!(parse(&flipped, "catalogue.json").is_err(), "flipped at {cut}");
        }
        assert_eq!(parse(&whole, "catalogue.json").unwrap(), ledger("10.0.0.11:7801"));
    }

    #[test]
    fn damage_is_said_with_the_file_and_what_to_do() {
        for (text, word) in [
            (&b"garbage\n"[..], "damaged"),
            (b"\0\0\0\0", "no first line"),
            (b"dkv-catalogue 2 bytes=0 sha256=\n", "format 2"),
            (b"dkv-catalogue 1 bytes=9 sha256=00\n{}\n", "cut short"),
        ] {
            let told = parse(text, "/d/catalogue.json").unwrap_err().to_string();
            assert!(told.contains(word) && told.contains("/d/catalogue.json"), "{told}");
        }
    }
}
