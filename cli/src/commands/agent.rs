//! `dkv agent`: the manager of this machine, in the foreground. Its exit codes are the manager's own.

use crate::contexts;
use crate::failure::Failure;
use crate::local_manager;
use dkv_agent::AgentOptions;
use dkv_agent::client::parse_address;
use std::path::PathBuf;

/// The flags of `dkv agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv agent
  dkv agent --listen 10.0.0.11:7801 --data-dir /var/lib/dkv --token-file /etc/dkv/token
  dkv agent --witness --listen 10.0.0.13:7801 --token-file /etc/dkv/token

Exit codes: 0 stopped on request, 1 failed, 69 another manager runs or the address is in use, 74 the catalogue is \
damaged, 78 the configuration is refused. Nodes outlive their manager and are found again by the next one.")]
pub(crate) struct Args {
    /// Address and port of the admin API; also the name of this machine
    #[arg(long, env = "DKV_LISTEN", default_value = "127.0.0.1:7801", value_name = "HOST:PORT")]
    listen: String,
    /// Directory of the catalogue, the token and the logs [default: $XDG_DATA_HOME/dkv or ~/.local/share/dkv]
    #[arg(long, env = "DKV_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File with the token of the group; needed when listening elsewhere than on loopback
    #[arg(long, env = "DKV_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Only help the other managers of the group to decide, and run no nodes: the third beside two machines with nodes
    #[arg(long, env = "DKV_WITNESS", value_parser = clap::builder::FalseyValueParser::new())]
    witness: bool,
    /// In a session of its own, as `dkv up` starts it
    #[arg(long, env = "DKV_OWN_SESSION", hide = true, value_parser = clap::builder::FalseyValueParser::new())]
    own_session: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    if args.own_session {
        local_manager::own_session()?;
    }
    let listen = parse_address(&args.listen, None)
        .map_err(|error| Failure::usage(error.to_string(), "dkv agent --listen 127.0.0.1:7801"))?;
    let mut options = AgentOptions::new(listen, contexts::data_dir(args.data_dir.as_deref())?);
    options.token_file.clone_from(&args.token_file);
    options.witness = args.witness;
    Ok(dkv_agent::run(options))
}
