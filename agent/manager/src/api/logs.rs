//! The logs of this machine, for whoever looks for the cause of something from another one: their names, and the end of each.
//!
//! Only files that the listing names are opened, whatever a call asks for.

use super::routes::{Shared, query};
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use dkv_protocol::admin::{LogFile, LogsView};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path as FilePath, PathBuf};

/// Bytes that are given where nobody says.
const BYTES: u64 = 1024 * 1024;
/// Most bytes of one answer.
pub(super) const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most logs in a listing: two of each node that a machine can hold.
const LOGS_MAX: usize = 2048;

pub(super) async fn list(State(api): Shared, uri: Uri) -> Result<Json<LogsView>, Refusal> {
    query(&uri, &[])?;
    let files = found(&api.agent.options().data_dir);
    let log =
        |(name, path): (String, PathBuf)| LogFile { name, bytes: crate::process::log_len(&path) };
    Ok(Json(LogsView { logs: files.into_iter().map(log).collect() }))
}

pub(super) async fn tail(
    State(api): Shared,
    Path(log): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut most = BYTES;
    for (_, value) in query(&uri, &["bytes"])? {
        most = value.parse().ok().filter(|bytes| (1..=BYTES_MAX).contains(bytes)).ok_or_else(
            || {
                Refusal::bad(
                    "bad_query",
                    format!("bytes is a number from 1 to {BYTES_MAX}, not {value:?}"),
                    "?bytes=65536",
                )
            },
        )?;
    }
    let files = found(&api.agent.options().data_dir);
    let Some((_, path)) = files.into_iter().find(|(name, _)| *name == log) else {
        let shown: String = log.chars().take(80).flat_map(char::escape_default).collect();
        return Err(Refusal::absent(
            "no_such_log",
            format!("this machine has no log {shown}"),
            "see those there are at /admin/v1/logs",
        ));
    };
    // Up to some MiB from a disk: not on the thread that everything else waits for.
    let read = tokio::task::spawn_blocking(move || end_of(&path, most)).await;
    let text = read.map_err(io::Error::other).and_then(|read| read).map_err(|error| {
        Refusal::of(
            500,
            "failed",
            format!("the log cannot be read: {error}"),
            "look at it on its machine",
        )
    })?;
    Ok(([("content-type", "text/plain; charset=utf-8")], text).into_response())
}

/// Logs by the names that they go by: the manager's own, where it writes one, and those of nodes.
fn found(data_dir: &FilePath) -> Vec<(String, PathBuf)> {
    let own = ("manager.log".to_owned(), data_dir.join("manager.log"));
    let entries = fs::read_dir(data_dir.join("logs")).into_iter().flatten().flatten();
    let nodes =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let is_log = |(name, path): &(String, PathBuf)| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        name.strip_suffix(".1").unwrap_or(name).strip_suffix(".log").is_some()
            && name.bytes().all(plain)
            // A link to somewhere else is nobody's log.
            && fs::symlink_metadata(path).is_ok_and(|about| about.is_file())
    };
    let mut files: Vec<_> =
        std::iter::once(own).chain(nodes).filter(is_log).take(LOGS_MAX).collect();
    files.sort();
    files
}

/// The last bytes of a file, from the beginning of a line where there is one.
fn end_of(path: &FilePath, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let first = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) if start > 0 && end + 1 < bytes.len() => end + 1,
        _ => 0,
    };
    Ok(String::from_utf8_lossy(&bytes[first..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_found_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        for name in
            ["manager.log", "token", "logs/s.node1.log", "logs/s.node1.log.1", "logs/key.pem"]
        {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("logs/evil.log")).unwrap();
        let names: Vec<_> = found(dir.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["manager.log", "s.node1.log", "s.node1.log.1"]);
        assert!(found(&dir.path().join("gone")).is_empty());
    }

    #[test]
    fn the_end_of_a_log_begins_with_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, b"first line\nsecond\nthird \xff\n").unwrap();
        assert_eq!(end_of(&path, 1000).unwrap(), "first line\nsecond\nthird \u{fffd}\n");
        assert_eq!(end_of(&path, 18).unwrap(), "second\nthird \u{fffd}\n");
        assert_eq!(end_of(&path, 3).unwrap(), " \u{fffd}\n");
        assert_eq!(end_of(&path, 1).unwrap(), "\n");
    }
}
