//! The file itself: entries without secrets and within bounds, packed with gzip, written at once, never over another file.

use super::redact::Redactor;
use crate::failure::Failure;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most bytes of an entry: the end of a log, the metrics of a machine with some hundred shards.
const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of all entries, before they are packed.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What was collected.
pub(super) struct Archive {
    redactor: Redactor,
    entries: Vec<(String, Vec<u8>)>,
    bytes: usize,
    problems: Vec<String>,
}

impl Archive {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { redactor, entries: Vec::new(), bytes: 0, problems: Vec::new() }
    }

    /// Adds a text, without its secrets. Of one that is too long the end is kept.
    pub(super) fn text(&mut self, path: impl Into<String>, text: &str) {
        let path = path.into();
        let whole = self.redactor.text(text);
        let start = whole.len().saturating_sub(ENTRY_BYTES_MAX);
        let start = (start..=whole.len()).find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
        if start > 0 {
            self.problem(format!("{path}: the first {start} bytes are left out"));
        }
        let bytes = whole.as_bytes()[start..].to_vec();
        if self.bytes + bytes.len() > BYTES_MAX {
            self.problem(format!("{path}: left out, the bundle is full ({} MiB)", BYTES_MAX >> 20));
            return;
        }
        self.bytes += bytes.len();
        self.entries.push((path, bytes));
    }

    /// Adds a document, without its secrets.
    pub(super) fn json(&mut self, path: impl Into<String>, value: Value) {
        let value = self.redactor.json(value);
        self.text(path, &format!("{value:#}\n"));
    }

    /// Notes what is missing and why.
    pub(super) fn problem(&mut self, what: impl AsRef<str>) {
        self.problems.push(self.redactor.text(what.as_ref()));
    }

    /// What is in it, and what is not, for people.
    pub(super) fn contents(&self) -> String {
        let mut text = String::new();
        for (path, bytes) in &self.entries {
            let _ = writeln!(text, "{:>9}  {path}", bytes.len());
        }
        for problem in &self.problems {
            let _ = writeln!(text, "missing    {problem}");
        }
        text
    }

    /// Packs it. The list of its contents comes first.
    pub(super) fn pack(&self, seconds: u64) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let contents = self.contents();
        let first = ("CONTENTS.txt", contents.as_bytes());
        let entries = self.entries.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        for (path, bytes) in std::iter::once(first).chain(entries) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(seconds);
            tar.append_data(&mut header, Path::new("dkv-debug").join(path), bytes)?;
        }
        tar.into_inner()?.finish()
    }
}

/// Whether there is such a file already, which only `--force` replaces.
pub(super) fn check(path: &Path, force: bool) -> Result<(), Failure> {
    if force || fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let what = format!("{} exists already", path.display());
    Err(Failure::failed(what, "name another file: --output FILE, or replace it: --force"))
}

/// Writes the file for its owner alone; nothing is left when that fails.
pub(super) fn write(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failure> {
    check(path, force)?;
    // Beside it, so that what is replaced is whole until the new one is.
    let mut part = path.as_os_str().to_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let part = Path::new(&part);
    let target = if force { part } else { path };
    let done = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target).and_then(
        |mut file| {
            let written = file.write_all(bytes).and_then(|()| file.sync_all());
            let written =
                written.and_then(|()| if force { fs::rename(part, path) } else { Ok(()) });
            if written.is_err() {
                // The first error is the one to tell.
                let _ = fs::remove_file(target);
            }
            written
        },
    );
    done.map_err(|error| Failure::file(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    fn archive() -> Archive {
        Archive::new(Redactor::new(["opensesame1".to_owned()]))
    }

    /// Paths and texts of a packed archive.
    fn unpack(bytes: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
        let entry = |entry: io::Result<tar::Entry<'_, _>>| {
            let mut entry: tar::Entry<'_, flate2::read::GzDecoder<&[u8]>> = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        };
        archive.entries().unwrap().map(entry).collect()
    }

    #[test]
    fn what_is_packed_comes_out_again_without_secrets() {
        let mut archive = archive();
        archive.text("a/b.log", "hello opensesame1\n");
        archive.json("c.json", serde_json::json!({"password": "x", "n": 1}));
        archive.problem("10.0.0.9 said opensesame1");
        let found = unpack(&archive.pack(1).unwrap());
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["dkv-debug/CONTENTS.txt", "dkv-debug/a/b.log", "dkv-debug/c.json"]);
        assert_eq!(found[1].1, "hello [redacted]\n");
        let all: String = found.into_iter().map(|(_, text)| text).collect();
        assert!(!all.contains("opensesame1") && all.contains("missing    10.0.0.9 said"), "{all}");
    }

    #[test]
    fn a_bundle_has_a_bound() {
        let mut archive = archive();
        let long = "é".repeat(ENTRY_BYTES_MAX / 2 + 1);
        for number in 0..=BYTES_MAX / ENTRY_BYTES_MAX {
            archive.text(format!("{number}"), &long);
        }
        assert!(archive.bytes <= BYTES_MAX);
        let contents = archive.contents();
        assert!(contents.contains("16: left out, the bundle is full"), "{contents}");
        assert!(contents.contains("0: the first 2 bytes are left out"), "{contents}");
    }

    #[test]
    fn another_file_is_never_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar.gz");
        write(&path, b"one", false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let failure = write(&path, b"two", false).unwrap_err();
        assert!(failure.hint.contains("--force"), "{failure}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(write(&dir.path().join("no/such"), b"x", true).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
