//! The file in which a manager keeps its part of what the managers agree on. What it holds, and what of it counts, is the
//! log's business; that it is on the disk when a call returns is this one's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file, and the directory that holds it.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    path: PathBuf,
    part: PathBuf,
    /// None before the first [`Disk::replace`].
    file: Option<File>,
    /// Bytes that are known to be on the disk.
    bytes: u64,
    /// Whether a write failed, so that what stands behind those bytes is not known.
    broken: bool,
}

impl Disk {
    /// Opens it. Gives what it holds; none when there is no file.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Option<Vec<u8>>)> {
        let path = dir.join("ranges.log");
        let mut text = Vec::new();
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(mut file) => {
                file.read_to_end(&mut text)?;
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (there, bytes) = (file.is_some(), text.len() as u64);
        let part = dir.join("ranges.log.new");
        let disk = Self { dir: dir.to_path_buf(), path, part, file, bytes, broken: false };
        Ok((disk, there.then_some(text)))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts off what a crash left of a write that nobody was told of.
    pub(crate) fn cut(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| self.bytes > bytes as u64) {
            tracing::warn!(path = %self.path.display(), at = bytes, "a record that was cut short by a crash is left out");
            file.set_len(bytes as u64)?;
            file.sync_all()?;
            self.bytes = bytes as u64;
        }
        Ok(())
    }

    /// Adds to its end.
    pub(crate) fn append(&mut self, more: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return self.replace(more);
        };
        if self.broken {
            // A write that failed is not tried again at its place: nobody knows what the kernel still takes for written.
            let mut whole = self.read()?;
            whole.extend_from_slice(more);
            return self.replace(&whole);
        }
        let written = file.write_all_at(more, self.bytes).and_then(|()| file.sync_data());
        match written {
            Ok(()) => self.bytes += more.len() as u64,
            Err(_) => self.broken = true,
        }
        written
    }

    /// What is known to be on the disk.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut text = vec![0; self.bytes as usize];
        if let Some(file) = &self.file {
            file.read_exact_at(&mut text, 0)?;
        }
        Ok(text)
    }

    /// Puts another file in the same directory, or in the place of one that is there: whole, or not at all.
    pub(crate) fn replace_beside(&self, name: &str, whole: &[u8]) -> io::Result<()> {
        self.put(&self.dir.join(name), whole).map(|_| ())
    }

    /// Puts a file in its place that holds this.
    pub(crate) fn replace(&mut self, whole: &[u8]) -> io::Result<()> {
        self.file = Some(self.put(&self.path, whole)?);
        self.bytes = whole.len() as u64;
        self.broken = false;
        Ok(())
    }

    fn put(&self, path: &Path, whole: &[u8]) -> io::Result<File> {
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = open.open(&self.part)?;
        file.write_all(whole)?;
        file.sync_all()?;
        std::fs::rename(&self.part, path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(dir: &Path) -> Option<Vec<u8>> {
        Disk::open(dir).unwrap().1
    }

    #[test]
    fn what_was_added_is_there_and_what_was_torn_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, nothing) = Disk::open(dir.path()).unwrap();
        assert_eq!(nothing, None);
        disk.append(b"one").unwrap();
        disk.append(b" two").unwrap();
        assert_eq!(there(dir.path()).unwrap(), b"one two");
        let (mut disk, _) = Disk::open(dir.path()).unwrap();
        disk.cut(3).unwrap();
        disk.append(b" and").unwrap();
        assert_eq!(there(dir.path()).unwrap(), b"one and");
        disk.replace(b"all").unwrap();
        disk.append(b" of it").unwrap();
        assert_eq!(there(dir.path()).unwrap(), b"all of it");
        // Another file beside it leaves it as it is.
        disk.replace_beside("other", b"first").unwrap();
        disk.replace_beside("other", b"2nd").unwrap();
        disk.append(b"!").unwrap();
        assert_eq!(std::fs::read(dir.path().join("other")).unwrap(), b"2nd");
        assert_eq!(there(dir.path()).unwrap(), b"all of it!");
    }

    #[test]
    fn after_a_failed_write_a_whole_new_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = Disk::open(dir.path()).unwrap();
        disk.replace(b"first").unwrap();
        disk.file = Some(File::open(&disk.path).unwrap());
        disk.append(b" lost").unwrap_err();
        disk.append(b" second").unwrap();
        assert_eq!(there(dir.path()).unwrap(), b"first second");
        disk.append(b" third").unwrap();
        assert_eq!(there(dir.path()).unwrap(), b"first second third");
    }
}
