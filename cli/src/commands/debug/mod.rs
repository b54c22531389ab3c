//! `dkv debug bundle`: one file with all that somebody elsewhere needs to find the cause of something, and no secret.
//!
//! Who does not answer is noted in the file and on the screen; the rest is collected all the same.

mod archive;
mod redact;

use crate::clustron::Spelling;
use crate::commands::doctor;
use crate::contexts::{self, Contexts, Login};
use crate::failure::Failure;
use crate::output;
use crate::reach::ReachArgs;
use archive::Archive;
use dkv_agent::client::{AdminClient, AdminError};
use dkv_client::{Client, Options};
use dkv_protocol::admin::StoreView;
use redact::Redactor;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of each log the last so many bytes.
const LOG_BYTES: u64 = 1024 * 1024;
/// How often the metrics are taken, and how far apart.
const SAMPLES: u32 = 3;
const APART: Duration = Duration::from_secs(1);
/// Longest secret that is read from a file.
const SECRET_BYTES_MAX: u64 = 4096;

/// The subcommands of `dkv debug`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Packs what is needed to find the cause of something into one file, without secrets
    #[command(after_help = "\
Examples:
  dkv debug bundle
  dkv debug bundle Orders --password-file orders.password
  dkv debug bundle --output /tmp/dkv.tar.gz --force

In it: versions, dkv doctor of this machine, contexts; of each manager its state, its group, its stores with their configuration
and users, three samples of its metrics, and the last MiB of its log and of its nodes' logs; INFO of each node. Passwords, tokens,
their hashes and private keys are taken out; look into it before you send it. A machine that does not answer is noted.")]
    Bundle(Box<Bundle>),
}

/// The flags of `dkv debug bundle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Bundle {
    /// Only this store [default: all]
    name: Option<String>,
    /// The file to write [default: dkv-debug-SECONDS.tar.gz here, SECONDS since 1970]
    #[arg(short, long, env = "DKV_BUNDLE", value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(long, env = "DKV_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    force: bool,
    /// User of the stores, for INFO of their nodes
    #[arg(long, env = "DKV_USER", value_name = "NAME")]
    user: Option<String>,
    /// File with the password of the stores, or of the user
    #[arg(long, env = "DKV_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// See [`ReachArgs`].
    #[command(flatten)]
    reach: ReachArgs,
}

/// Runs it.
pub(crate) fn run(command: &Command, spelling: Spelling) -> Result<u8, Failure> {
    let Command::Bundle(args) = command;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let named = args.output.clone();
    let path = named.unwrap_or_else(|| PathBuf::from(format!("dkv-debug-{seconds}.tar.gz")));
    archive::check(&path, args.force)?;
    let data_dir = contexts::data_dir(args.reach.data_dir.as_deref())?;
    let login = Login { user: args.user.clone(), password_file: args.password_file.clone() };
    let password = login.password()?;

    // What the catalogue keeps secret is known before anything is added.
    let (managers, problem) = match args.reach.group(None, spelling) {
        Ok(reached) => (reached.group.clients().to_vec(), None),
        Err(failure) => (Vec::new(), Some(format!("managers: {}", failure.what))),
    };
    let answers: Vec<Answer> = managers.iter().map(Answer::ask).collect();
    check_name(args.name.as_deref(), &answers)?;
    let mut known = secrets(&args.reach, &data_dir);
    known.extend(password.clone());
    for store in answers.iter().flat_map(|answer| answer.stores.iter().flatten()) {
        known.push(store.record.hash_seed.clone());
        known.extend(store.record.definition.password_sha256.clone());
    }
    let mut archive = Archive::new(Redactor::new(known));
    if let Some(problem) = problem {
        archive.problem(problem);
    }

    archive.json("version.json", version(seconds));
    archive.json("doctor.json", doctor::findings(&data_dir));
    match Contexts::load() {
        Ok(contexts) => archive.json("contexts.json", json!(contexts)),
        Err(failure) => archive.problem(format!("contexts.json: {}", failure.what)),
    }
    let mut served = false;
    for (manager, answer) in managers.iter().zip(answers) {
        served |= add_manager(
            &mut archive,
            manager,
            answer,
            args.name.as_deref(),
            &login,
            password.as_deref(),
        );
    }
    sample(&mut archive, &managers);
    if !served {
        add_local_logs(&mut archive, &data_dir);
    }
    let packed = archive.pack(seconds).map_err(|error| Failure::file(&path, &error))?;
    archive::write(&path, &packed, args.force)?;
    output::write(archive.contents().as_bytes());
    output::line(&format!(
        "{} ({} KiB) is written; look into it before you send it",
        path.display(),
        packed.len().div_ceil(1024)
    ));
    Ok(0)
}

/// What one manager says of its stores, asked before all else.
struct Answer {
    up: Result<Value, AdminError>,
    stores: Result<Vec<StoreView>, AdminError>,
}

impl Answer {
    fn ask(manager: &AdminClient) -> Self {
        let up = manager.health().map(|health| json!(health));
        // Who does not answer a word is not waited for again.
        let stores = match &up {
            Ok(_) => manager.stores(),
            Err(error) => Err(error.clone()),
        };
        Self { up, stores }
    }
}

/// A store that nobody has heard of is a slip of the finger; but who could not be asked might know it.
fn check_name(name: Option<&str>, answers: &[Answer]) -> Result<(), Failure> {
    let Some(name) = name else { return Ok(()) };
    let known: BTreeSet<&str> = answers
        .iter()
        .flat_map(|answer| answer.stores.iter().flatten())
        .map(|store| store.record.definition.name.as_str())
        .collect();
    if known.contains(name)
        || answers.is_empty()
        || answers.iter().any(|answer| answer.stores.is_err())
    {
        return Ok(());
    }
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none yet".to_owned() } else { known };
    Err(Failure::failed(
        format!("there is no store {name:?}; there are: {known}"),
        "dkv store list",
    ))
}

/// Secrets that this user's files hold, so that they are found by their text wherever they stand.
fn secrets(reach: &ReachArgs, data_dir: &Path) -> Vec<String> {
    let contexts = Contexts::load().unwrap_or_default();
    let mut files = vec![data_dir.join("token")];
    files.extend(reach.token_file.clone());
    files.extend(contexts.contexts.values().filter_map(|context| context.token_file.clone()));
    files.extend(contexts.connection.and_then(|connection| connection.login.password_file));
    let read = |path: PathBuf| {
        let mut text = Vec::new();
        File::open(path).ok()?.take(SECRET_BYTES_MAX).read_to_end(&mut text).ok()?;
        // The first line is the secret; what follows would be somebody's note.
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    files.into_iter().filter_map(read).collect()
}

fn version(seconds: u64) -> Value {
    json!({
        "dkv": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "architecture": std::env::consts::ARCH,
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "system": fs::read_to_string("/etc/os-release").ok().and_then(|text| {
            text.lines().find_map(|line| Some(line.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_owned()))
        }),
        "taken_at_seconds": seconds,
    })
}

/// Adds what one manager says, and INFO of its nodes; whether it gave its logs.
fn add_manager(
    archive: &mut Archive,
    manager: &AdminClient,
    answer: Answer,
    only: Option<&str>,
    login: &Login,
    password: Option<&str>,
) -> bool {
    let name = manager.manager();
    let dir = format!("managers/{}", file_name(name));
    match answer.up {
        Ok(health) => archive.json(format!("{dir}/health.json"), health),
        Err(error) => {
            archive.problem(format!("{dir}: {error}"));
            return false;
        }
    }
    add(archive, format!("{dir}/managers.json"), manager.managers());
    let meant = |store: &StoreView| only.is_none_or(|only| store.record.definition.name == only);
    let stores = answer.stores.map(|stores| stores.into_iter().filter(meant).collect::<Vec<_>>());
    for store in stores.iter().flatten() {
        let of = &store.record.definition.name;
        add(archive, format!("{dir}/users-{}.json", file_name(of)), manager.users(of));
    }
    for store in stores.iter().flatten() {
        add_nodes(archive, name, store, login, password);
    }
    add(archive, format!("{dir}/stores.json"), stores);
    let logs = match manager.logs() {
        Ok(logs) => logs,
        Err(error) => {
            archive.problem(format!("{dir}/logs: {error}"));
            return false;
        }
    };
    if logs.iter().all(|log| log.name != "manager.log") {
        archive.problem(format!("{dir}/logs/manager.log: it writes its log elsewhere: journalctl -u dkv-agent on its machine"));
    }
    for log in logs {
        let of =
            |store: &str| log.name.strip_prefix(store).is_some_and(|rest| rest.starts_with('.'));
        if log.name != "manager.log" && only.is_some_and(|only| !of(only)) {
            continue;
        }
        let path = format!("{dir}/logs/{}", file_name(&log.name));
        match manager.log_tail(&log.name, LOG_BYTES) {
            Ok(text) => archive.text(path, &text),
            Err(error) => archive.problem(format!("{path}: {error}")),
        }
    }
    true
}

/// Adds INFO of the nodes of a machine.
fn add_nodes(
    archive: &mut Archive,
    machine: &str,
    store: &StoreView,
    login: &Login,
    password: Option<&str>,
) {
    let host = machine.rsplit_once(':').map_or(machine, |(host, _)| host);
    let of = &store.record.definition.name;
    for node in store.nodes.iter().filter(|node| node.record.machine == machine) {
        let path = format!("nodes/{}.{}.info", file_name(of), file_name(&node.record.name));
        let options = Options {
            endpoints: vec![format!("{host}:{}", node.record.client_port)],
            store: Some(of.clone()),
            user: login.user.clone(),
            password: password.map(str::to_owned),
            ..Options::default()
        };
        let info = Client::connect(options).and_then(|mut client| client.info(Some("everything")));
        match info {
            Ok(info) => archive.text(path, &info),
            Err(error) => archive.problem(format!("{path}: {error}")),
        }
    }
}

fn add<T: Serialize>(archive: &mut Archive, path: String, answer: Result<T, AdminError>) {
    match answer {
        Ok(document) => archive.json(path, json!(document)),
        Err(error) => archive.problem(format!("{path}: {error}")),
    }
}

/// Adds the metrics of all managers, some times, a second apart, so that rates can be made of them.
fn sample(archive: &mut Archive, managers: &[AdminClient]) {
    let mut silent = BTreeSet::new();
    for number in 1..=SAMPLES {
        let next = Instant::now() + APART;
        for manager in managers.iter().filter(|manager| manager.health().is_ok()) {
            let path = format!("managers/{}/metrics-{number}.txt", file_name(manager.manager()));
            match manager.get_text("/metrics") {
                Ok(text) => archive.text(path, &text),
                Err(error) if silent.insert(manager.manager()) => {
                    archive.problem(format!("{path}: {error}"));
                }
                Err(_) => {}
            }
        }
        if number < SAMPLES && !managers.is_empty() {
            let rest = next.saturating_duration_since(Instant::now());
            let rest = rustix::time::Timespec {
                tv_sec: rest.as_secs() as i64,
                tv_nsec: i64::from(rest.subsec_nanos()),
            };
            // A signal only brings a sample closer to the one before it, and each says its own time.
            let _ = rustix::thread::nanosleep(&rest);
        }
    }
}

/// The logs of this machine as files, where no manager gave any: it may be the one that does not start.
fn add_local_logs(archive: &mut Archive, data_dir: &Path) {
    let logs = fs::read_dir(data_dir.join("logs")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = logs.map(|entry| entry.path()).collect();
    paths.push(data_dir.join("manager.log"));
    paths.sort();
    let is_log = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|about| about.is_file());
    for path in paths.iter().filter(|path| is_log(path)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match tail(path) {
            Ok(text) => archive.text(format!("local/logs/{}", file_name(&name)), &text),
            Err(error) => archive.problem(format!("{}: {error}", path.display())),
        }
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A name as that of a file: nothing in it leads elsewhere.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-:[]".contains(c) { c } else { '_' };
    let name: String = name.chars().take(120).map(plain).collect();
    if name.trim_matches('.').is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries_lead_nowhere_else() {
        for (name, wanted) in [
            ("10.0.0.11:7801", "10.0.0.11:7801"),
            ("../../etc/passwd", ".._.._etc_passwd"),
            ("..", "_"),
            ("", "_"),
            ("[::1]:7801", "[::1]:7801"),
        ] {
            assert_eq!(file_name(name), wanted);
        }
    }
}
