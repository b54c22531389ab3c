//! What the command line remembers between two commands: which managers to talk to, by name, and the one store
//! connection of `kv connect`. One JSON file, `$XDG_CONFIG_HOME/dkv/contexts.json`, replaced atomically.
//!
//! It holds no secret: a token and a password are named by the paths of their files.

use crate::commands::store_password;
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_field_names,
    reason = "it is the word for what the field holds, in the file too"
)]
pub(crate) struct Contexts {
    /// Name of the context in use.
    #[serde(default)]
    pub(crate) current: Option<String>,
    /// Contexts by name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
    /// What `kv connect` connected to.
    #[serde(default)]
    pub(crate) connection: Option<Connection>,
}

/// One group of managers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// Managers, as `host:port`.
    pub(crate) managers: Vec<String>,
    /// Where their token is, when it is not where the data directory says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// The store that `kv` means when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// Client ports of that store's nodes, for the time when no manager answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<String>,
}

/// A remembered store connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// The store.
    pub(crate) store: String,
    /// `host:port` of nodes; the first that answers is used.
    pub(crate) endpoints: Vec<String>,
    /// Seconds since 1970 when it was made.
    pub(crate) connected_at: u64,
    /// As whom.
    #[serde(flatten)]
    pub(crate) login: Login,
}

/// Who a client of a store is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    /// The user; none: the default user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// Where the password is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
}

impl Login {
    /// What was not given is that of the remembered login, but never the password of somebody else.
    pub(crate) fn or(self, remembered: Login) -> Self {
        if self.user.is_some() && self.user != remembered.user {
            return self;
        }
        Self {
            user: remembered.user,
            password_file: self.password_file.or(remembered.password_file),
        }
    }

    /// What is in the file.
    pub(crate) fn password(&self) -> Result<Option<String>, Failure> {
        self.password_file.as_deref().map(store_password).transpose()
    }
}

/// `$XDG_CONFIG_HOME/dkv/contexts.json`, else `~/.config/dkv/contexts.json`.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    Ok(base("XDG_CONFIG_HOME", ".config")?.join("dkv/contexts.json"))
}

/// `--data-dir`, else `DKV_DATA_DIR` (clap reads both), else `$XDG_DATA_HOME/dkv`, else `~/.local/share/dkv`.
pub(crate) fn data_dir(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = match given {
        Some(dir) => dir.to_path_buf(),
        None => base("XDG_DATA_HOME", ".local/share")?.join("dkv"),
    };
    std::path::absolute(&dir).map_err(|error| Failure::file(&dir, &error))
}

/// The directory that an XDG variable names; relative ones are ignored, as that specification asks.
fn base(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(path) = set {
        return Ok(path);
    }
    std::env::home_dir()
        .filter(|home| home.is_absolute())
        .map(|home| home.join(below_home))
        .ok_or_else(|| {
            let hint = format!("set HOME or {variable}");
            Failure::failed("there is no home directory to keep files in", hint)
        })
}

impl Contexts {
    /// Reads the file; none is empty.
    pub(crate) fn load() -> Result<Self, Failure> {
        Self::load_from(&path()?)
    }

    fn load_from(path: &Path) -> Result<Self, Failure> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let hint = format!("mend or remove it: rm {}", path.display());
                Failure::failed(format!("{} cannot be read: {error}", path.display()), hint)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(Failure::file(path, &error)),
        }
    }

    /// Reads the file, changes it and writes it back, with no other `dkv` in between.
    pub(crate) fn update(change: impl FnOnce(&mut Contexts)) -> Result<(), Failure> {
        Self::update_at(&path()?, change)
    }

    fn update_at(path: &Path, change: impl FnOnce(&mut Contexts)) -> Result<(), Failure> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let failed = |error: io::Error| Failure::file(path, &error);
        fs::create_dir_all(dir).map_err(failed)?;
        // The lock goes with its descriptor, whatever happens.
        let lock = File::create(dir.join(".contexts.lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut contexts = Self::load_from(path)?;
        let before = contexts.clone();
        change(&mut contexts);
        if contexts == before && path.exists() {
            return Ok(());
        }
        let text =
            serde_json::to_string_pretty(&contexts).expect("strings and maps of strings are JSON");
        let new = dir.join(".contexts.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|error| Failure::file(path, &error))
    }

    /// The context to use: the one named, else the current one.
    pub(crate) fn pick(&self, named: Option<&str>) -> Result<Option<(&str, &Context)>, Failure> {
        let Some(name) = named.or(self.current.as_deref()) else { return Ok(None) };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok(Some((name, context))),
            None if named.is_some() => {
                let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
                let known =
                    if known.is_empty() { "there are none yet".into() } else { known.join(", ") };
                Err(Failure::usage(
                    format!("there is no context {name:?}; known: {known}"),
                    "dkv context list",
                ))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_completed_but_never_with_the_password_of_another_user() {
        let login = |user: Option<&str>, file: Option<&str>| Login {
            user: user.map(str::to_owned),
            password_file: file.map(PathBuf::from),
        };
        let (bob, none) = (login(Some("bob"), Some("b")), login(None, None));
        assert_eq!(none.clone().or(bob.clone()), bob);
        assert_eq!(login(Some("bob"), None).or(bob.clone()), bob);
        assert_eq!(login(None, Some("c")).or(bob.clone()), login(Some("bob"), Some("c")));
        for other in [login(Some("eve"), None), login(Some("eve"), Some("e"))] {
            assert_eq!(other.clone().or(bob.clone()), other);
        }
        assert_eq!(login(Some("bob"), None).or(none), login(Some("bob"), None));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/contexts.json");
        assert_eq!(Contexts::load_from(&path).unwrap(), Contexts::default());
        Contexts::update_at(&path, |contexts| {
            let context = Context { managers: vec!["127.0.0.1:7801".into()], ..Context::default() };
            contexts.contexts.insert("local".into(), context);
            contexts.current = Some("local".into());
        })
        .unwrap();
        let read = Contexts::load_from(&path).unwrap();
        let (name, context) = read.pick(None).unwrap().unwrap();
        assert_eq!((name, context.managers[0].as_str()), ("local", "127.0.0.1:7801"));
        assert!(read.pick(Some("other")).unwrap_err().what.contains("known: local"));
    }

    #[test]
    fn a_torn_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts.json");
        fs::write(&path, "{\"current\": \"lo").unwrap();
        let failure = Contexts::update_at(&path, |contexts| contexts.current = None).unwrap_err();
        assert!(failure.what.contains("contexts.json cannot be read"), "{failure}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"current\": \"lo");
    }

    #[test]
    fn many_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts.json");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let change = |contexts: &mut Contexts| {
                        contexts.contexts.insert(format!("c{n}"), Context::default());
                    };
                    Contexts::update_at(path, change).unwrap();
                });
            }
        });
        assert_eq!(Contexts::load_from(&path).unwrap().contexts.len(), 8);
    }
}
