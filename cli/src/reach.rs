//! Where the managers are and how to talk to them: `-m`, else `DKV_MANAGERS`, else the context; and the token that
//! proves who asks. What a report of several managers looks like on the terminal stands here too.

use crate::clustron::Spelling;
use crate::contexts::{self, Context, Contexts};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use dkv_agent::auth::Token;
use dkv_agent::client::{AddressError, AdminError, parse_address};
use dkv_agent::coordinate::{ActionResult, ActionRow, Group, Outcome, Report, Settings};
use dkv_protocol::limits::MANAGER_PORT;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for somebody to open when it is only about who is there.
const KNOCK: Duration = Duration::from_secs(3);

/// The options of every command that talks to managers.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReachArgs {
    /// Managers, as HOST or HOST:PORT, with commas between them [default: those of the context]
    #[arg(short, long, env = "DKV_MANAGERS", value_delimiter = ',', value_name = "HOST:PORT")]
    pub(crate) managers: Vec<String>,
    /// Port of the managers that are named without one
    #[arg(long, env = "DKV_PORT", default_value_t = MANAGER_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// File with the token of the managers [default: that of the context, or DATA_DIR/token]
    #[arg(long, env = "DKV_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Data directory of the manager of this machine [default: $XDG_DATA_HOME/dkv or ~/.local/share/dkv]
    #[arg(long, env = "DKV_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Context to use in place of the current one
    #[arg(long, env = "DKV_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Most seconds for one call to one manager
    #[arg(long, env = "DKV_TIMEOUT_SEC", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout_sec: u64,
}

/// How to go about several managers.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FanoutArgs {
    /// Ask all machines at once instead of one after the other
    #[arg(long, env = "DKV_PARALLEL", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) parallel: bool,
    /// Stop at the first failure
    #[arg(long, env = "DKV_FAIL_FAST", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) fail_fast: bool,
}

/// The managers that were found.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// The whole group.
    pub(crate) group: Group,
    /// The context that named them; none when they were named otherwise.
    pub(crate) context: Option<Context>,
}

impl ReachArgs {
    /// The addresses that `-m` or the variable name.
    pub(crate) fn named(&self) -> Result<Vec<SocketAddr>, Failure> {
        let mut addresses = Vec::new();
        for name in self.managers.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            let address =
                parse_address(name, Some(self.port)).map_err(|error| address_failure(&error))?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// The group to talk to, completed by the members that the managers themselves name.
    pub(crate) fn group(
        &self,
        fanout: Option<FanoutArgs>,
        spelling: Spelling,
    ) -> Result<Reached, Failure> {
        let mut reached = self.group_as_named(fanout, spelling)?;
        reached.group.complete();
        Ok(reached)
    }

    fn group_as_named(
        &self,
        fanout: Option<FanoutArgs>,
        spelling: Spelling,
    ) -> Result<Reached, Failure> {
        let contexts = Contexts::load()?;
        let context = contexts.pick(self.context.as_deref())?.map(|(_, context)| context);
        let named = self.named()?;
        let (addresses, context) = match (named.is_empty(), context) {
            // Managers that were named have nothing to do with the context.
            (false, _) => (named, None),
            (true, None) => return Err(nobody_connected(spelling)),
            (true, Some(context)) => {
                let parse = |text: &String| {
                    parse_address(text, None).map_err(|error| address_failure(&error))
                };
                (context.managers.iter().map(parse).collect::<Result<Vec<_>, _>>()?, Some(context))
            }
        };
        if addresses.is_empty() {
            return Err(nobody_connected(spelling));
        }
        let token_file =
            self.token_path(context.and_then(|context| context.token_file.as_deref()))?;
        let token = read_token(&token_file)
            .map_err(|failure| nobody_there(&addresses).unwrap_or(failure))?;
        let group = Group::new(&addresses, &token, self.settings(fanout));
        Ok(Reached { group, context: context.cloned() })
    }

    /// How long and in which way.
    pub(crate) fn settings(&self, fanout: Option<FanoutArgs>) -> Settings {
        Settings {
            timeout: Duration::from_secs(self.timeout_sec),
            parallel: fanout.is_some_and(|fanout| fanout.parallel),
            fail_fast: fanout.is_some_and(|fanout| fanout.fail_fast),
        }
    }

    /// Where the token is: `--token-file`, else the context's, else the data directory's.
    pub(crate) fn token_path(&self, of_context: Option<&Path>) -> Result<PathBuf, Failure> {
        match self.token_file.as_deref().or(of_context) {
            Some(path) => std::path::absolute(path).map_err(|error| Failure::file(path, &error)),
            None => Ok(contexts::data_dir(self.data_dir.as_deref())?.join("token")),
        }
    }
}

/// The failure that comes before a missing token: nothing listens at any of the addresses.
pub(crate) fn nobody_there(addresses: &[SocketAddr]) -> Option<Failure> {
    let connect = |address: &SocketAddr| std::net::TcpStream::connect_timeout(address, KNOCK);
    let errors: Vec<_> = addresses
        .iter()
        .map_while(|address| connect(address).err().map(|e| (address, e)))
        .collect();
    let (address, error) = errors.first().filter(|_| errors.len() == addresses.len())?;
    let hint = format!(
        "start it on that machine with: dkv agent --listen {address}, or a local one with: dkv up"
    );
    Some(Failure::not_connected(format!("cannot connect to the manager {address}: {error}"), hint))
}

/// The token of the managers that the flags or the context name.
pub(crate) fn token(reach: &ReachArgs) -> Result<Token, Failure> {
    let contexts = Contexts::load()?;
    let context = contexts.pick(reach.context.as_deref())?.map(|(_, context)| context);
    let context = context.filter(|_| reach.managers.is_empty());
    read_token(&reach.token_path(context.and_then(|context| context.token_file.as_deref()))?)
}

/// Reads a token file; the failure says how to get one.
pub(crate) fn read_token(path: &Path) -> Result<Token, Failure> {
    Token::read(path).map_err(|error| {
        let hint = "--token-file FILE or --data-dir DIR of the manager; the manager writes DIR/token at its first start";
        Failure::failed(error.to_string(), hint)
    })
}

fn address_failure(error: &AddressError) -> Failure {
    let exit = if matches!(error, AddressError::Unknown { .. }) {
        Exit::NotConnected
    } else {
        Exit::Usage
    };
    Failure::new(exit, error.to_string(), "-m 10.0.0.11:7801,10.0.0.12:7801")
}

fn nobody_connected(spelling: Spelling) -> Failure {
    match spelling {
        Spelling::Clustron => {
            let literal = "No managers connected. Use Connect-DkvManager or specify -Managers.";
            Failure::not_connected(literal, "dkv Connect-DkvManager -Managers 127.0.0.1:7801")
        }
        Spelling::Native => Failure::not_connected(
            "No managers connected. Use dkv connect or specify -m.",
            "dkv connect -m 127.0.0.1:7801, or dkv up for a local store",
        ),
    }
}

/// A failure of one call to one manager.
pub(crate) fn admin_failure(error: &AdminError) -> Failure {
    let exit = match error {
        AdminError::NotConnected { .. } | AdminError::Broken { .. } => Exit::NotConnected,
        AdminError::TimedOut { .. } => Exit::TimedOut,
        AdminError::Refused { status: 400, .. } => Exit::Usage,
        AdminError::Refused { .. } | AdminError::BadAnswer { .. } => Exit::Failed,
    };
    Failure { exit, code: error.code().to_owned(), what: error.to_string(), hint: error.hint() }
}

/// Shows what a group of managers did, and gives the exit code.
pub(crate) fn show(format: Format, report: &Report) -> Result<u8, Failure> {
    let outcome = report.outcome();
    for warning in &report.warnings {
        output::warn(warning);
    }
    if format == Format::Json {
        let rows = serde_json::to_value(&report.rows).unwrap_or_default();
        output::json(&json!({"rows": rows, "warnings": report.warnings}));
        return Ok(outcome.exit_code());
    }
    // What one manager refuses as nonsense, or who is not there, is an error and not a result.
    if let ([row], Outcome::Usage | Outcome::NotConnected) = (&report.rows[..], outcome) {
        let exit = if outcome == Outcome::Usage { Exit::Usage } else { Exit::NotConnected };
        return Err(Failure {
            exit,
            code: row.code.clone(),
            what: row.message.clone(),
            hint: row.hint.clone(),
        });
    }
    output::rows(format, &["Manager", "Action", "Result", "Message"], &cells(&report.rows));
    hints(&report.rows);
    Ok(outcome.exit_code())
}

/// The rows of a table.
pub(crate) fn cells(rows: &[ActionRow]) -> Vec<Vec<serde_json::Value>> {
    let cell = |row: &ActionRow| {
        vec![json!(row.manager), json!(row.action), json!(row.result.word()), json!(row.message)]
    };
    rows.iter().map(cell).collect()
}

/// What to type next, once for each different thing; what failed stands in the rows.
pub(crate) fn hints(rows: &[ActionRow]) {
    let mut said = BTreeSet::new();
    for row in rows.iter().filter(|row| row.result == ActionResult::Failed && !row.hint.is_empty())
    {
        if said.insert(row.hint.as_str()) {
            output::note(&format!("hint ({}): {}", row.manager, row.hint));
        }
    }
}
