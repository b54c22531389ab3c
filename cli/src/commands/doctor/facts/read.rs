//! Reading `/proc` and `/sys`: what is there, what is not, and what may not be read are three different facts.

use std::fs;
use std::io;
use std::path::Path;

/// Something that was looked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) enum Fact<T> {
    /// It is this.
    Known(T),
    /// This kernel, or this container, has no such thing.
    #[default]
    Absent,
    /// It may be there; why it could not be read, with its path.
    Unread(String),
}

impl<T> Fact<T> {
    /// What is known.
    pub(in super::super) fn known(&self) -> Option<&T> {
        if let Fact::Known(value) = self { Some(value) } else { None }
    }

    /// The same fact about something made of it; what cannot be made sense of is unread.
    pub(super) fn and_then<U>(self, make: impl FnOnce(T) -> Option<U>, path: &str) -> Fact<U> {
        match self {
            Fact::Known(value) => make(value)
                .map_or_else(|| Fact::Unread(format!("{path}: not understood")), Fact::Known),
            Fact::Absent => Fact::Absent,
            Fact::Unread(why) => Fact::Unread(why),
        }
    }
}

/// A file without the blanks around it.
pub(super) fn text(path: impl AsRef<Path>) -> Fact<String> {
    let path = path.as_ref();
    match fs::read_to_string(path) {
        Ok(text) => Fact::Known(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Fact::Absent,
        Err(error) => Fact::Unread(format!("{}: {error}", path.display())),
    }
}

/// A file, or nothing: for what only adds to a fact.
pub(super) fn plain(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The number that a file begins with.
pub(super) fn number(path: &str) -> Fact<u64> {
    text(path).and_then(|text| first_number(&text), path)
}

/// A file of `/proc/sys` that holds a number.
pub(super) fn sysctl(name: &str) -> Fact<u64> {
    number(&format!("/proc/sys/{name}"))
}

/// The number that a text begins with.
pub(super) fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The value of `key: value` in a file of such lines.
pub(super) fn field<'a>(file: &'a str, key: &str) -> Option<&'a str> {
    file.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
}

/// The word in brackets.
pub(super) fn chosen(choices: &str) -> Option<String> {
    let (_, rest) = choices.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// The word in brackets of a file; a file with a single word has no choice.
pub(super) fn choice(path: impl AsRef<Path>) -> Fact<String> {
    let path = path.as_ref();
    text(path).and_then(
        |text| chosen(&text).or_else(|| (!text.contains(' ')).then_some(text)),
        &path.display().to_string(),
    )
}

/// The numbers of a list as `0-3,8`; of at most [`LIST_MAX`].
pub(super) fn list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        numbers.extend((from..=to).take(LIST_MAX - numbers.len().min(LIST_MAX)));
    }
    Some(numbers)
}

/// More CPUs than a kernel can have.
const LIST_MAX: usize = 16 * 1024;

/// Names in a directory, in order.
pub(super) fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_read() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(field("Seccomp:\t2\nSeccomp_filters:\t1\n", "Seccomp"), Some("\t2"));
        assert_eq!(list("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(list("0-x"), None);
        assert_eq!(list("").unwrap(), [0_u32; 0]);
        assert_eq!(list("0-4294967295").unwrap().len(), LIST_MAX);
    }

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_read() {
        assert_eq!(text("/nonexistent/file"), Fact::Absent);
        assert!(matches!(text("/proc"), Fact::Unread(why) if why.starts_with("/proc: ")));
        let odd = Fact::Known("x".to_owned()).and_then(|text| first_number(&text), "/a");
        assert_eq!(odd, Fact::Unread("/a: not understood".into()));
    }
}
