//! One file a command: its flags, what it does with them, what it shows.

pub(crate) mod agent;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod connect;
pub(crate) mod context;
pub(crate) mod counter;
pub(crate) mod debug;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod generate;
pub(crate) mod kv;
pub(crate) mod manager;
pub(crate) mod store;
pub(crate) mod top;
pub(crate) mod up;

use crate::failure::Failure;
use std::path::Path;

/// The password in a file, as a client gives it.
pub(crate) fn store_password(path: &Path) -> Result<String, Failure> {
    String::from_utf8(store::read_password(path)?).map_err(|_| {
        let what = format!("the password in {} is not UTF-8", path.display());
        Failure::usage(what, "choose a password of printable characters")
    })
}
