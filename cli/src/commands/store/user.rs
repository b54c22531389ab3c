//! `store user`: who may do what in a store, through the managers, so that it works whether the store runs or not, and also
//! for an operator whom the users of the store would not let in.

use super::{Shared, read_password};
use crate::clustron::Spelling;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::reach::admin_failure;
use dkv_agent::client::AdminError;
use dkv_agent::coordinate::Group;
use dkv_protocol::users::{UserChanges, UserLine, Users};
use serde_json::json;
use std::path::PathBuf;

/// How often a change is made anew because somebody else changed the same user meanwhile.
const TRIES: usize = 20;
/// The user that every client is before it says otherwise.
const DEFAULT: &str = "default";

/// The subcommands of `dkv store user`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The users of a store and what each may do, as ACL LIST shows it
    #[command(after_help = "\
Examples:
  dkv store user list TestStore
  dkv store user list TestStore -o json

A store whose default user nobody has changed lets that one do everything, with the password of the store if it has one.
Passwords are shown as their SHA-256.")]
    List {
        /// Name of the store
        name: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// Makes a user, or changes what it may do: rules as ACL SETUSER takes them, applied to those it has
    #[command(after_help = "\
Examples:
  dkv store user set TestStore bob on nopass '~app:*' +@read
  dkv store user set --user-password-file bob.password TestStore bob on '~app:*' '&*' +@all -@dangerous
  dkv store user set TestStore bob resetpass off
  dkv store user set TestStore default off

Flags come before the name of the store: everything behind the user is a rule. A password that is typed as a rule (>secret) stays in
the history of the shell; one from a file does not. Rules that change the default user count for every client that does not say
who it is.")]
    Set {
        /// File with a password that the user has from now on, besides those that it has
        #[arg(long, env = "DKV_USER_PASSWORD_FILE", value_name = "FILE")]
        user_password_file: Option<PathBuf>,
        #[command(flatten)]
        shared: Shared,
        /// Name of the store
        name: String,
        /// The user
        user: String,
        /// on, off, nopass, >password, <password, #sha256, ~pattern, %R~pattern, &channel, +command, -@category, reset, …
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "RULE")]
        rules: Vec<String>,
    },
    /// Removes a user from a store; its connections are closed
    #[command(after_help = "\
Examples:
  dkv store user remove TestStore bob
  dkv store user remove TestStore default

The default user cannot go: removing it makes it what it is in a new store, which lets in again who locked himself out.")]
    Remove {
        /// Name of the store
        name: String,
        /// The user
        user: String,
        #[command(flatten)]
        shared: Shared,
    },
}

/// Runs it.
pub(super) fn run(command: &Command, spelling: Spelling) -> Result<u8, Failure> {
    match command {
        Command::List { name, shared } => list(name, shared, spelling),
        Command::Set { user_password_file, shared, name, user, rules } => {
            let mut rules: Vec<Vec<u8>> =
                rules.iter().map(|rule| rule.clone().into_bytes()).collect();
            if let Some(file) = user_password_file {
                rules.push([b">", &read_password(file)?[..]].concat());
            }
            set(name, user, &rules, shared, spelling)
        }
        Command::Remove { name, user, shared } => remove(name, user, shared, spelling),
    }
}

/// The line of the default user of a store, if anybody changed that one.
pub(super) fn default_line(group: &Group, store: &str) -> Result<Option<String>, Failure> {
    Ok(ask(group, |client| client.users(store))?.line(DEFAULT).map(str::to_owned))
}

/// Asks the managers in turn until one answers; all of them have the same users. What one refuses the others would too.
fn ask<T>(
    group: &Group,
    mut call: impl FnMut(&dkv_agent::client::AdminClient) -> Result<T, AdminError>,
) -> Result<T, Failure> {
    let mut first: Option<AdminError> = None;
    for client in group.clients() {
        match call(client) {
            Ok(answer) => return Ok(answer),
            // A store without a node on a machine is not known there.
            Err(error @ AdminError::NotConnected { .. }) => {
                first.get_or_insert(error);
            }
            Err(error) if error.is_not_found() => {
                first = Some(error);
            }
            Err(error) => return Err(admin_failure(&error)),
        }
    }
    Err(match first {
        Some(error) => admin_failure(&error),
        None => Failure::not_connected("there is no manager to ask", "dkv connect -m HOST"),
    })
}

fn list(name: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let reached = shared.group(spelling)?;
    let users = ask(&reached.group, |client| client.users(name))?;
    let head = ["User", "Rules"];
    let rules = |user: &str, line: &str| {
        let behind = line.strip_prefix("user ").and_then(|line| line.strip_prefix(user));
        behind.unwrap_or(line).trim_start().to_owned()
    };
    let mut rows: Vec<_> =
        users.each().map(|(user, line)| vec![json!(user), json!(rules(user, line))]).collect();
    if users.line(DEFAULT).is_none() {
        let view = ask(&reached.group, |client| client.store(name))?;
        let password = view.record.definition.password_sha256.map(|hash| format!("#{hash}"));
        let password = password.unwrap_or_else(|| "nopass".into());
        rows.insert(0, vec![json!(DEFAULT), json!(format!("on {password} ~* &* +@all"))]);
    }
    output::rows(shared.output.output, &head, &rows);
    Ok(0)
}

fn set(
    name: &str,
    user: &str,
    rules: &[Vec<u8>],
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let reached = shared.group(spelling)?;
    let view = ask(&reached.group, |client| client.store(name))?;
    let password = view.record.definition.password_sha256.as_deref().and_then(store_hash);
    let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
    change(&reached.group, name, |users| {
        // The same rules as a node knows: it is of this very build.
        let line = dkv_node::user_line(users.line(user), user, password, &rules);
        let line = line.map_err(|why| Failure::usage(why, "dkv store user set --help"))?;
        let was = UserLine { name: user.to_owned(), line: users.line(user).map(str::to_owned) };
        let set = UserLine { name: user.to_owned(), line: Some(line) };
        Ok(UserChanges { given: vec![was], changes: vec![set] })
    })?;
    output::line(&format!("Set {user}"));
    Ok(0)
}

fn store_hash(hexadecimal: &str) -> Option<[u8; 32]> {
    dkv_protocol::hex::decode(hexadecimal)
}

fn remove(name: &str, user: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let reached = shared.group(spelling)?;
    change(&reached.group, name, |users| {
        if users.line(user).is_none() {
            let what = if user == DEFAULT {
                format!("the default user of {name} is what it is in a new store already")
            } else {
                format!("the store {name} has no user {user:?}")
            };
            return Err(Failure::failed(what, format!("dkv store user list {name}")));
        }
        // Whatever it may do by now.
        let removed = UserLine { name: user.to_owned(), line: None };
        Ok(UserChanges { given: Vec::new(), changes: vec![removed] })
    })?;
    output::line(&format!("Removed {user}"));
    Ok(0)
}

/// Has the managers change a user, made of the users as they are: anew when somebody else was faster.
fn change(
    group: &Group,
    store: &str,
    make: impl Fn(&Users) -> Result<UserChanges, Failure>,
) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        let users = ask(group, |client| client.users(store))?;
        let changes = make(&users)?;
        tries += 1;
        match ask(group, |client| client.change_users(store, &changes)) {
            Err(failure) if failure.code == "users_changed" && tries < TRIES => {}
            Err(failure) if failure.code == "not_decided" => {
                return Err(Failure { exit: Exit::TimedOut, ..failure });
            }
            result => return result.map(|_| ()),
        }
    }
}
