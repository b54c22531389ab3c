//! The project's text files, read once. Knows which directories hold text that people wrote; knows no rule.

use std::fs;
use std::path::{Path, PathBuf};

/// One file: its path from the root, with `/`, and its text.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// As `engine/io/src/lib.rs`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl Source {
    /// Whether it is a file of this ending.
    pub(crate) fn is(&self, ending: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == ending)
    }
}

/// What is made by tools or holds data, and so is nobody's prose.
const SKIPPED: &[&str] = &[".git", "target", "Cargo.lock", "__pycache__", "corpus", "artifacts"];
/// The endings of the files that people write.
const ENDINGS: &[&str] = &["rs", "md", "toml", "sh", "py", "yml", "yaml", "json", "service"];

/// The root of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the project is there")
}

/// Every text file under `root`, in order of paths.
pub(crate) fn read(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    walk(root, root, &mut files);
    files.sort_by(|a: &Source, b| a.path.cmp(&b.path));
    files
}

fn walk(root: &Path, at: &Path, files: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(at) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            walk(root, &path, files);
        } else if kind.is_file()
            && path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).expect("walked from the root");
            files.push(Source { path: path.to_string_lossy().into_owned(), text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_finds_the_project() {
        let files = read(&root());
        for path in ["Cargo.toml", "engine/protocol/src/limits.rs", "scripts/xtask/src/sources.rs"]
        {
            assert!(files.iter().any(|file| file.path == path), "{path} was not walked");
        }
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }
}
