//! The life of a manager: data directory, guard, token, catalogue, listener, nodes; until it is told to stop.
//!
//! Everything that can be refused is refused before anything is written or started.

use crate::auth::{Token, TokenError};
use crate::catalogue::Agent;
use crate::guard::{self, GuardError};
use crate::ledger::{Ledger, LedgerError, LedgerFile};
use crate::ranges::{self, Keeper, Peers};
use crate::{AgentOptions, api, catchup, exit};
use rustix::fs::{FlockOperation, Mode};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Longest path of a node's control socket: the kernel's limit of 107 less `/run/` and the longest file name there.
const DATA_DIR_BYTES_MAX: usize = 107 - "/run/01234567-65535.sock".len();

/// Why a manager does not start. Each text says what to type.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Address, data directory or token file do not fit.
    #[error("{0}")]
    Configuration(String),
    /// See [`TokenError`].
    #[error("{0}")]
    Token(#[from] TokenError),
    /// See [`GuardError`].
    #[error("{0}")]
    Guard(#[from] GuardError),
    /// Its address or its data directory is in use.
    #[error("{0}")]
    InUse(String),
    /// The catalogue cannot be read, or belongs to another machine.
    #[error("{0}")]
    Catalogue(String),
}

impl StartError {
    /// The exit code of the manager.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Token(_) => exit::BAD_CONFIGURATION,
            Self::Guard(_) | Self::InUse(_) => exit::ALREADY_RUNNING,
            Self::Catalogue(_) => exit::CATALOGUE,
        }
    }
}

/// A manager that listens.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Where; the port that was really taken when 0 was asked for.
    pub address: SocketAddr,
}

pub(crate) fn run(mut options: AgentOptions) -> u8 {
    if let Ok(absolute) = std::path::absolute(&options.data_dir) {
        options.data_dir = absolute;
    }
    let filter = EnvFilter::try_from_env("DKV_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // A program that has set up its own log keeps it.
    let _ = log.try_init();
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return exit::FAILED;
        }
    };
    let data_dir = options.data_dir.display().to_string();
    let token = match &options.token_file {
        Some(path) => path.display().to_string(),
        None => options.data_dir.join("token").display().to_string(),
    };
    let served = runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
                (Err(error), _) | (_, Err(error)) => {
                    return Err(StartError::Configuration(format!("cannot take signals: {error}")));
                }
            };
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let told = |ready: Ready| {
            let mut out = io::stdout().lock();
            let pid = std::process::id();
            // Whoever started it may have closed its end.
            let _ = writeln!(
                out,
                "DKV manager listens at http://{}  (pid {pid}, data in {data_dir})\nWeb console: http://{}/  (log in with: cat {token})",
                ready.address, ready.address
            );
            let _ = out.flush();
        };
        serve(options, told, stop).await
    });
    match served {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(format_args!("{error}"));
            error.exit_code()
        }
    }
}

/// Says on standard error why the manager ends. What cannot be written there (a log on a full disk) must not change the
/// exit code, as `eprintln!` would by a panic.
fn complain(why: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "dkv agent: {why}");
}

/// Runs a manager on the current runtime until `stop` ends; `ready` is called once it listens. Its nodes outlive it.
pub async fn serve(
    options: AgentOptions,
    ready: impl FnOnce(Ready),
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    check_options(&options)?;
    let guard = guard::take(&options.guard_name)?;
    make_directories(&options.data_dir)?;
    let _lock = lock_directory(&options.data_dir)?;
    let token = match &options.token_file {
        Some(path) => Token::read(path)?,
        None => Token::read_or_create(&options.data_dir.join("token"))?,
    };
    let file = LedgerFile::new(&options.data_dir);
    let ledger =
        file.load().map_err(|error: LedgerError| StartError::Catalogue(error.to_string()))?;
    let listener =
        TcpListener::bind(options.listen).await.map_err(|error| refused(&options, &error))?;
    let address = listener.local_addr().map_err(|error| refused(&options, &error))?;
    let ledger = own_ledger(ledger, &address.to_string(), &options)?;
    file.save(&ledger).map_err(|error| {
        StartError::Catalogue(format!(
            "cannot write the catalogue in {}: {error}",
            options.data_dir.display()
        ))
    })?;
    let others = ledger.members.len() > 1;
    let peers = Peers::new(token.clone());
    let (keeper, ranges) = Keeper::open(&options.data_dir, &ledger.machine, others, peers)
        .map_err(|error| StartError::Catalogue(error.to_string()))?;
    let agent = Agent::new(options, address, token, file, ledger, ranges);
    {
        let mut inner = agent.lock();
        for entry in inner.ledger.stores.values().filter(|entry| !entry.deleting) {
            agent.keep_ranges(&entry.record);
        }
        agent.supervise_all(&mut inner);
    }
    let keeping = tokio::spawn(keeper.run());
    let seeking = tokio::spawn(ranges::seek(Arc::clone(&agent)));
    let catching_up = tokio::spawn(catchup::keep_up(Arc::clone(&agent)));
    agent.finish_deletions();
    let told = tokio::spawn(answer_guard(guard, address));
    let serving = tokio::spawn(api::serve(Arc::clone(&agent), listener));
    tracing::info!(%address, pid = std::process::id(), "listening");
    ready(Ready { address });
    stop.await;
    tracing::info!("stopping; the nodes go on");
    serving.abort();
    told.abort();
    keeping.abort();
    seeking.abort();
    catching_up.abort();
    Ok(())
}

fn check_options(options: &AgentOptions) -> Result<(), StartError> {
    let bad = |text: String| Err(StartError::Configuration(text));
    let listen = options.listen;
    if listen.ip().is_unspecified() {
        return bad(format!(
            "{listen} stands for every address of the machine; a manager is known by one. Give the machine's own: --listen \
             10.0.0.11:{}",
            listen.port()
        ));
    }
    if !listen.ip().is_loopback() && options.token_file.is_none() {
        return bad(format!(
            "a manager that listens at {listen} can be reached by other hosts and needs a token that the group shares. Type: \
             (umask 077; openssl rand -hex 32 > group.token), copy that file to every machine, and add --token-file group.token"
        ));
    }
    let length = options.data_dir.as_os_str().len();
    if length > DATA_DIR_BYTES_MAX {
        return bad(format!(
            "the data directory {} is too deep: {length} bytes, and the sockets in it leave room for {DATA_DIR_BYTES_MAX}. \
             Give a shorter --data-dir",
            options.data_dir.display()
        ));
    }
    if !options.data_dir.is_absolute() {
        return bad(format!(
            "the data directory {} is not an absolute path. Give it from / on",
            options.data_dir.display()
        ));
    }
    Ok(())
}

pub(crate) fn make_directories(data_dir: &Path) -> Result<(), StartError> {
    let failed = |path: &Path, error: io::Error| {
        StartError::Configuration(format!(
            "cannot make the data directory {}: {error}. Give another with --data-dir",
            path.display()
        ))
    };
    check_directory(data_dir)?;
    for dir in [data_dir.to_path_buf(), data_dir.join("run"), data_dir.join("logs")] {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&dir).map_err(|error| failed(&dir, error))?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&dir, private).map_err(|error| failed(&dir, error))?;
    }
    Ok(())
}

/// A directory that is there already becomes private only when it is plainly meant for this: nobody wants his home
/// directory, or /tmp, closed to others by a mistyped flag.
fn check_directory(data_dir: &Path) -> Result<(), StartError> {
    let Ok(about) = std::fs::metadata(data_dir) else { return Ok(()) };
    let shown = data_dir.display();
    if !about.is_dir() {
        return Err(StartError::Configuration(format!(
            "{shown} is not a directory. Give another with --data-dir"
        )));
    }
    let user = rustix::process::geteuid().as_raw();
    if about.uid() != user {
        return Err(StartError::Configuration(format!(
            "the data directory {shown} belongs to user {}, this is user {user}. Give one of your own with --data-dir",
            about.uid()
        )));
    }
    let open_to_others = about.mode() & 0o077;
    if open_to_others == 0 {
        return Ok(());
    }
    let own = ["token", "catalogue.json", "run"].iter().any(|name| data_dir.join(name).exists());
    let empty = std::fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_none());
    if own || empty {
        return Ok(());
    }
    Err(StartError::Configuration(format!(
        "the data directory {shown} is open to others and holds other files. Give a directory of its own with --data-dir, or \
         type: chmod 700 {shown}"
    )))
}

/// Two managers of two network name spaces may see one file system: each needs a directory of its own.
fn lock_directory(data_dir: &Path) -> Result<File, StartError> {
    let path = data_dir.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(|error| {
        StartError::Configuration(format!("cannot open {}: {error}", path.display()))
    })?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        StartError::InUse(format!(
            "another manager uses the data directory {} ({error}). Give this one its own with --data-dir",
            data_dir.display()
        ))
    })?;
    Ok(file)
}

fn refused(options: &AgentOptions, error: &io::Error) -> StartError {
    let listen = options.listen;
    match error.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse(format!(
            "{listen} is in use by another process (see: ss -ltnp 'sport = :{}'). Give another with --listen",
            listen.port()
        )),
        io::ErrorKind::AddrNotAvailable => StartError::Configuration(format!(
            "{} is not an address of this machine (see: ip -br address). Give one with --listen",
            listen.ip()
        )),
        _ => StartError::Configuration(format!("cannot listen at {listen}: {error}")),
    }
}

/// The catalogue for this address. A machine is known by its manager's address, so that one with stores keeps it.
fn own_ledger(
    ledger: Option<Ledger>,
    machine: &str,
    options: &AgentOptions,
) -> Result<Ledger, StartError> {
    let mut ledger = ledger.unwrap_or_default();
    if ledger.machine != machine && !ledger.stores.is_empty() {
        let names: Vec<&str> = ledger.stores.keys().map(String::as_str).collect();
        return Err(StartError::Catalogue(format!(
            "the catalogue in {} is that of the machine {}, and has stores ({}); it cannot become {machine}. Start it with \
             --listen {}, or delete the stores there first",
            options.data_dir.display(),
            ledger.machine,
            names.join(", "),
            ledger.machine
        )));
    }
    let before = std::mem::replace(&mut ledger.machine, machine.to_string());
    ledger.members.retain(|member| *member != before || before == machine);
    if !ledger.members.iter().any(|member| member == machine) {
        ledger.members.push(machine.to_string());
    }
    Ok(ledger)
}

async fn answer_guard(guard: StdUnixListener, address: SocketAddr) {
    let listener = guard.set_nonblocking(true).and_then(|()| UnixListener::from_std(guard));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot answer who asks for the manager of this machine");
            return;
        }
    };
    loop {
        if let Ok((mut stream, _)) = listener.accept().await {
            // A few bytes always fit into a new socket.
            let _ = stream.write_all(guard::answer(address).as_bytes()).await;
        } else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}
