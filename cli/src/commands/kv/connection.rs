//! The store connection that is remembered between commands: connect, disconnect, connection, ping.

use super::Shared;
use crate::clustron::Spelling;
use crate::contexts::{Connection, Contexts, Login};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::store_link::{endpoints, open};
use dkv_client::Options;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The flags of `kv connect`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Name of the store
    store: String,
    /// Client ports of its nodes, as HOST or HOST:PORT; the first that answers is used
    #[arg(required = true, value_name = "HOST:PORT")]
    endpoints: Vec<String>,
    /// User of the store to be [default: the default user, whose password is the store's]
    #[arg(long, env = "DKV_USER", value_name = "NAME")]
    user: Option<String>,
    /// File with the password of the store, or of the user
    #[arg(long, env = "DKV_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Most seconds to wait for a node
    #[arg(long, env = "DKV_TIMEOUT_SEC", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    timeout_sec: u64,
    /// Replace the connection to another store
    #[arg(long, env = "DKV_CONNECT_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    force: bool,
    /// How results are shown
    #[arg(short = 'o', long, env = "DKV_OUTPUT", value_enum, default_value = "table")]
    output: Format,
}

/// Runs `kv connect`.
pub(super) fn connect(args: &ConnectArgs, spelling: Spelling) -> Result<u8, Failure> {
    let endpoints = endpoints(&args.endpoints)?;
    let known = Contexts::load()?.connection;
    let other = known.filter(|known| known.store != args.store || known.endpoints != endpoints);
    if let (Some(known), false) = (other, args.force) {
        let force = if spelling == Spelling::Clustron { "-Force" } else { "--force" };
        let what = format!(
            "already connected to the store {} at {}",
            known.store,
            known.endpoints.join(", ")
        );
        return Err(Failure::failed(
            what,
            format!("replace it with {force}, or end it with: dkv kv disconnect"),
        ));
    }
    let password_file = args.password_file.as_deref().map(std::path::absolute).transpose();
    let password_file = password_file.map_err(|error| Failure::failed(error.to_string(), ""))?;
    let login = Login { user: args.user.clone(), password_file };
    let link = open(Options {
        user: login.user.clone(),
        endpoints: endpoints.clone(),
        password: login.password()?,
        store: Some(args.store.clone()),
        timeout: Duration::from_secs(args.timeout_sec),
        ..Options::default()
    })?;
    let connected_at = unix_s();
    let connection = Connection { store: link.store, endpoints, connected_at, login };
    Contexts::update(|contexts| contexts.connection = Some(connection.clone()))?;
    let head = ["StoreName", "Endpoints", "ConnectedAtUtc", "LogFile", "Success", "Error"];
    let row = [
        json!(connection.store),
        json!(connection.endpoints),
        json!(utc(connected_at)),
        Value::Null,
        json!(true),
        Value::Null,
    ];
    output::record(args.output, &head, &row);
    Ok(0)
}

/// Runs `kv disconnect`.
pub(super) fn disconnect(format: Format) -> Result<u8, Failure> {
    let mut was = None;
    Contexts::update(|contexts| was = contexts.connection.take())?;
    let head = ["StoreName", "WasConnected", "DisconnectedAt", "Success", "Error"];
    let store = was.as_ref().map(|connection| connection.store.clone());
    let row = [json!(store), json!(was.is_some()), json!(utc(unix_s())), json!(true), Value::Null];
    output::record(format, &head, &row);
    Ok(0)
}

/// Runs `kv connection`.
pub(super) fn show(format: Format) -> Result<u8, Failure> {
    let connection = Contexts::load()?.connection;
    let head =
        ["IsConnected", "StoreName", "Endpoints", "ClientId", "ConnectedAtUtc", "Success", "Error"];
    let row = [
        json!(connection.is_some()),
        json!(connection.as_ref().map(|c| &c.store)),
        json!(connection.as_ref().map(|c| &c.endpoints)),
        // Each command is a client of its own; none is connected between two of them.
        Value::Null,
        json!(connection.as_ref().map(|c| utc(c.connected_at))),
        json!(true),
        Value::Null,
    ];
    output::record(format, &head, &row);
    Ok(0)
}

/// Runs `kv ping`.
pub(super) fn ping(shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let start = Instant::now();
    let answer = || -> Result<(String, usize), Failure> {
        let mut link = shared.link.open(spelling)?;
        link.client.ping().map_err(|error| crate::store_link::client_failure(&error))?;
        let info =
            link.client.call(&[b"CLUSTER", b"INFO"]).ok().and_then(dkv_client::Value::into_bytes);
        let info = String::from_utf8_lossy(&info.unwrap_or_default()).into_owned();
        let known = info
            .lines()
            .find_map(|line| line.strip_prefix("cluster_known_nodes:")?.trim().parse().ok());
        Ok((link.store, known.unwrap_or(1)))
    };
    let answer = answer();
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    let Some(format) = shared.output else {
        let (store, _) = answer?;
        output::line(&format!("PONG from {store} in {ms:.1} ms"));
        return Ok(0);
    };
    let head = ["StoreName", "Connected", "ServerCount", "DurationMs", "TimestampUtc", "Error"];
    let (store, count, error) = match &answer {
        Ok((store, count)) => (json!(store), json!(count), Value::Null),
        Err(failure) => (json!(shared.link.store), json!(0), json!(failure.what)),
    };
    let row = [
        store,
        json!(answer.is_ok()),
        count,
        json!((ms * 10.0).round() / 10.0),
        json!(utc(unix_s())),
        error,
    ];
    output::record(format, &head, &row);
    Ok(answer.map_or_else(|failure| failure.exit as u8, |_| 0))
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `2026-01-31T12:00:00Z`. Days to a date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn utc(unix_s: u64) -> String {
    let (days, seconds) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_right() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(super::utc(seconds), text);
        }
    }
}
