//! Items: get, set, del, exists, metadata. Each as a bare value, or as an object with the fields of the original.

use super::{Shared, read_value};
use crate::amounts;
use crate::clustron::Spelling;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::store_link::{Link, client_failure, server_failure};
use dkv_client::{ClientError, Value as Reply};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;

/// The flags of `kv set`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// The key
    key: String,
    /// The value
    #[arg(allow_hyphen_values = true, required_unless_present_any = ["stdin", "value_file"])]
    value: Option<String>,
    /// Take the value from standard input, to its end
    #[arg(short = 'x', long, env = "DKV_STDIN", conflicts_with_all = ["value", "value_file"],
        value_parser = clap::builder::FalseyValueParser::new())]
    stdin: bool,
    /// Take the value from a file, all of it
    #[arg(long, env = "DKV_VALUE_FILE", value_name = "FILE", conflicts_with = "value")]
    value_file: Option<PathBuf>,
    /// Time to live: seconds, or as 90s, 5m, 1h30m, 00:01:30
    #[arg(long, env = "DKV_TTL", value_name = "TIME", value_parser = amounts::duration_ms)]
    ttl: Option<u64>,
    /// Say what would be done and do nothing
    #[arg(long, env = "DKV_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    dry_run: bool,
    #[command(flatten)]
    shared: Shared,
}

/// Fields of an item.
const ITEM: [&str; 9] =
    ["StoreName", "Key", "Exists", "Value", "Revision", "Version", "TtlSec", "Success", "Error"];
/// Fields of an item that was set.
const SET: [&str; 9] = [
    "StoreName",
    "Key",
    "IsUpdate",
    "Revision",
    "Version",
    "TimeToLiveSec",
    "LeaseId",
    "Success",
    "Error",
];
/// Fields of each of several items that were set.
const SET_MANY: [&str; 7] =
    ["StoreName", "Key", "IsUpdate", "Revision", "Version", "Success", "Error"];
/// Fields of an item that was removed.
const REMOVED: [&str; 7] =
    ["StoreName", "Key", "Deleted", "Revision", "Version", "Success", "Error"];
/// Fields of an item that was looked for.
const EXISTS: [&str; 5] = ["StoreName", "Key", "Exists", "Success", "Error"];
/// Fields of what is known beside the value.
const METADATA: [&str; 9] = [
    "StoreName",
    "Key",
    "Exists",
    "Revision",
    "Version",
    "TimeToLive",
    "Metadata",
    "Success",
    "Error",
];

/// Sends commands in a pipeline; a failure of the connection ends the command, an error reply does not.
pub(super) fn pipeline(
    link: &mut Link,
    commands: &[&[&[u8]]],
) -> Result<Vec<Result<Reply, String>>, Failure> {
    let replies = link.client.call_many(commands).map_err(|error| client_failure(&error))?;
    let sorted = replies.into_iter().map(|reply| match reply {
        Reply::Error(text) => Err(String::from_utf8_lossy(&text).into_owned()),
        reply => Ok(reply),
    });
    Ok(sorted.collect())
}

/// Shows one object, and gives 1 when it holds an error.
pub(super) fn show_one(format: Format, head: &[&str], row: &[Value]) -> u8 {
    output::record(format, head, row);
    u8::from(failed(row))
}

fn show_many(format: Format, head: &[&str], rows: &[Vec<Value>]) -> u8 {
    output::rows(format, head, rows);
    match rows.iter().filter(|row| failed(row)).count() {
        0 => 0,
        all if all == rows.len() => Exit::Failed as u8,
        _ => Exit::Partly as u8,
    }
}

/// `Success` and `Error` are the last two fields of every object.
fn failed(row: &[Value]) -> bool {
    row.len() >= 2 && row[row.len() - 2] == json!(false)
}

/// Bytes as JSON: text, or hexadecimal digits after `0x` for what is not UTF-8.
pub(crate) fn bytes_value(bytes: &[u8]) -> Value {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return json!(text);
    }
    let digit = |n: u8| char::from_digit(n.into(), 16).expect("a half byte is a digit");
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    json!(text)
}

/// Prints bytes as they are and ends the line; on a terminal, with nothing in them that could steer it.
pub(super) fn print_bytes(bytes: &[u8]) {
    let mut line = if std::io::stdout().is_terminal() {
        let text = String::from_utf8_lossy(bytes);
        text.split('\n').map(output::printable).collect::<Vec<_>>().join("\n").into_bytes()
    } else {
        bytes.to_vec()
    };
    line.push(b'\n');
    output::write(&line);
}

/// Value and version from the reply of `DKV.GETV`.
pub(super) fn versioned(reply: Reply) -> Option<(Vec<u8>, i64)> {
    let [value, version] = <[Reply; 2]>::try_from(reply.into_elements()?).ok()?;
    Some((value.into_bytes()?, version.as_integer()?))
}

/// The version of a key after a write; null when it cannot be had any more.
pub(super) fn version_of(reply: Result<Reply, String>) -> Value {
    reply.ok().and_then(versioned).map_or(Value::Null, |(_, version)| json!(version))
}

/// Seconds of a PTTL reply, begun ones counted; null when the key does not expire.
fn ttl_seconds(reply: &Result<Reply, String>) -> Value {
    let ms = reply.as_ref().ok().and_then(Reply::as_integer).filter(|ms| *ms >= 0);
    ms.map_or(Value::Null, |ms| json!((ms + 999) / 1000))
}

/// A time span as the original writes it: `00:05:00`.
pub(super) fn time_span(ms: i64) -> String {
    let (seconds, days) = (ms / 1000 % 86_400, ms / 86_400_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if ms % 1000 == 0 { String::new() } else { format!(".{:03}", ms % 1000) };
    if days > 0 { format!("{days}.{clock}{fraction}") } else { format!("{clock}{fraction}") }
}

fn item_rows(link: &mut Link, keys: &[String]) -> Result<Vec<Vec<Value>>, Failure> {
    let commands: Vec<[&[u8]; 2]> = keys
        .iter()
        .flat_map(|key| [[&b"DKV.GETV"[..], key.as_bytes()], [b"PTTL", key.as_bytes()]])
        .collect();
    let commands: Vec<&[&[u8]]> = commands.iter().map(|command| &command[..]).collect();
    let mut replies = pipeline(link, &commands)?.into_iter();
    let mut rows = Vec::new();
    for key in keys {
        let (Some(item), Some(ttl)) = (replies.next(), replies.next()) else { break };
        let (success, error) = (json!(item.is_ok()), json!(item.as_ref().err()));
        let found = item.ok().and_then(versioned);
        let exists = json!(found.is_some());
        let (value, version) = match found {
            Some((value, version)) => (bytes_value(&value), json!(version)),
            None => (Value::Null, Value::Null),
        };
        let store = json!(link.store);
        rows.push(vec![
            store,
            json!(key),
            exists,
            value,
            version.clone(),
            version,
            ttl_seconds(&ttl),
            success,
            error,
        ]);
    }
    Ok(rows)
}

/// Runs `kv get`.
pub(super) fn get(
    key: &str,
    no_newline: bool,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    if let Some(format) = shared.output {
        let rows = item_rows(&mut link, &[key.to_owned()])?;
        return Ok(show_one(format, &ITEM, &rows[0]));
    }
    match link.client.get(key.as_bytes()).map_err(|error| client_failure(&error))? {
        Some(value) if no_newline => output::write(&value),
        Some(value) => print_bytes(&value),
        None => return Err(no_such_key(key)),
    }
    Ok(0)
}

pub(super) fn no_such_key(key: &str) -> Failure {
    Failure {
        code: "no_such_key".into(),
        ..Failure::failed(format!("there is no key {key:?}"), "")
    }
}

/// Runs `kv mget`.
pub(super) fn mget(keys: &[String], shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    if let Some(format) = shared.output {
        let rows = item_rows(&mut link, keys)?;
        return Ok(show_many(format, &ITEM, &rows));
    }
    let names: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    for value in link.client.mget(&names).map_err(|error| client_failure(&error))? {
        // A line for each key, so that lines and keys can be matched.
        print_bytes(&value.unwrap_or_default());
    }
    Ok(0)
}

/// Sets one key and gives: whether there was one before, and its version.
fn set_commands<'a>(key: &'a str, value: &'a [u8], ttl: Option<&'a [u8]>) -> [Vec<&'a [u8]>; 2] {
    let mut set: Vec<&[u8]> = vec![b"SET", key.as_bytes(), value];
    if let Some(ms) = ttl {
        set.extend([&b"PX"[..], ms]);
    }
    set.push(b"GET");
    [set, vec![b"DKV.GETV", key.as_bytes()]]
}

/// Runs `kv set`.
pub(super) fn set(args: &SetArgs, spelling: Spelling) -> Result<u8, Failure> {
    let value = read_value(args.value.as_deref(), args.value_file.as_ref())?;
    let key = &args.key;
    if args.dry_run {
        would_set(args.shared.output, &[(key, value.len())]);
        return Ok(0);
    }
    let mut link = args.shared.link.open(spelling)?;
    let ttl = args.ttl.map(|ms| ms.to_string());
    let ttl_bytes = ttl.as_deref().map(str::as_bytes);
    let Some(format) = args.shared.output else {
        let mut command: Vec<&[u8]> = vec![b"SET", key.as_bytes(), &value];
        command.extend(ttl_bytes.map(|ms| [&b"PX"[..], ms]).into_iter().flatten());
        link.client.call(&command).map_err(|error| client_failure(&error))?;
        output::line("OK");
        return Ok(0);
    };
    let [set, get] = set_commands(key, &value, ttl_bytes);
    let mut replies = pipeline(&mut link, &[&set, &get])?.into_iter();
    let (before, after) =
        (replies.next().unwrap_or_else(nothing), replies.next().unwrap_or_else(nothing));
    let (success, error) = (json!(before.is_ok()), json!(before.as_ref().err()));
    let update = before.map_or(Value::Null, |before| json!(!matches!(before, Reply::Null)));
    let version = if success == json!(true) { version_of(after) } else { Value::Null };
    let seconds = args.ttl.map_or(Value::Null, |ms| json!(ms.div_ceil(1000)));
    let row = [
        json!(link.store),
        json!(key),
        update,
        version.clone(),
        version,
        seconds,
        Value::Null,
        success,
        error,
    ];
    Ok(show_one(format, &SET, &row))
}

/// What `--dry-run` shows: keys, and the bytes of their values.
fn would_set(format: Option<Format>, entries: &[(&str, usize)]) {
    if format == Some(Format::Json) {
        let object = |(key, bytes): &(&str, usize)| json!({"WouldSet": key, "Bytes": bytes});
        output::json(&entries.iter().map(object).collect());
        return;
    }
    for (key, bytes) in entries {
        output::line(&format!("would set {key:?} to {bytes} bytes"));
    }
}

fn nothing() -> Result<Reply, String> {
    Err("no reply".into())
}

/// Runs `kv mset`.
pub(super) fn mset(
    pairs: &[String],
    dry_run: bool,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let (entries, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Failure::usage(
            format!("the key {:?} has no value", rest[0]),
            "dkv kv mset KEY VALUE KEY VALUE",
        ));
    }
    if let Some([_, value]) = entries.iter().find(|[key, _]| key.is_empty()) {
        return Err(Failure::usage(
            format!("the key of {value:?} is empty"),
            "dkv kv mset KEY VALUE",
        ));
    }
    if dry_run {
        let entries: Vec<(&str, usize)> =
            entries.iter().map(|[key, value]| (key.as_str(), value.len())).collect();
        would_set(shared.output, &entries);
        return Ok(0);
    }
    let mut link = shared.link.open(spelling)?;
    let Some(format) = shared.output else {
        let entries: Vec<(&[u8], &[u8])> =
            entries.iter().map(|[k, v]| (k.as_bytes(), v.as_bytes())).collect();
        link.client.mset(&entries).map_err(|error| client_failure(&error))?;
        output::line("OK");
        return Ok(0);
    };
    let commands: Vec<Vec<&[u8]>> =
        entries.iter().flat_map(|[k, v]| set_commands(k, v.as_bytes(), None)).collect();
    let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
    let mut replies = pipeline(&mut link, &commands)?.into_iter();
    let mut rows = Vec::new();
    for [key, _] in entries {
        let (Some(before), Some(after)) = (replies.next(), replies.next()) else { break };
        let (success, error) = (json!(before.is_ok()), json!(before.as_ref().err()));
        let update = before.map_or(Value::Null, |before| json!(!matches!(before, Reply::Null)));
        let version = if success == json!(true) { version_of(after) } else { Value::Null };
        rows.push(vec![
            json!(link.store),
            json!(key),
            update,
            version.clone(),
            version,
            success,
            error,
        ]);
    }
    Ok(show_many(format, &SET_MANY, &rows))
}

/// Runs `kv del`.
pub(super) fn del(keys: &[String], shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let Some(format) = shared.output else {
        let names: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        let removed = link.client.del(&names).map_err(|error| client_failure(&error))?;
        output::line(&removed.to_string());
        return Ok(0);
    };
    let commands: Vec<[&[u8]; 2]> = keys.iter().map(|key| [&b"DEL"[..], key.as_bytes()]).collect();
    let commands: Vec<&[&[u8]]> = commands.iter().map(|command| &command[..]).collect();
    let replies = pipeline(&mut link, &commands)?;
    let rows: Vec<Vec<Value>> = keys
        .iter()
        .zip(replies)
        .map(|(key, reply)| {
            let (success, error) = (json!(reply.is_ok()), json!(reply.as_ref().err()));
            let deleted = reply.map_or(Value::Null, |reply| json!(reply.as_integer() == Some(1)));
            // What is gone has no version any more.
            vec![json!(link.store), json!(key), deleted, Value::Null, Value::Null, success, error]
        })
        .collect();
    Ok(if let [row] = rows.as_slice() {
        show_one(format, &REMOVED, row)
    } else {
        show_many(format, &REMOVED, &rows)
    })
}

/// Runs `kv exists`.
pub(super) fn exists(
    keys: &[String],
    detailed: bool,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let commands: Vec<[&[u8]; 2]> =
        keys.iter().map(|key| [&b"EXISTS"[..], key.as_bytes()]).collect();
    let commands: Vec<&[&[u8]]> = commands.iter().map(|command| &command[..]).collect();
    let replies = pipeline(&mut link, &commands)?;
    let format = shared.output.or(detailed.then_some(Format::Table));
    let mut rows = Vec::new();
    for (key, reply) in keys.iter().zip(replies) {
        match (reply, format) {
            (Err(error), None) => return Err(server_failure(&error)),
            (Ok(reply), None) => {
                output::line(if reply.as_integer() == Some(1) { "True" } else { "False" });
            }
            (reply, Some(_)) => {
                let (success, error) = (json!(reply.is_ok()), json!(reply.as_ref().err()));
                let exists =
                    reply.map_or(Value::Null, |reply| json!(reply.as_integer() == Some(1)));
                rows.push(vec![json!(link.store), json!(key), exists, success, error]);
            }
        }
    }
    Ok(match (format, rows.as_slice()) {
        (None, _) => 0,
        (Some(format), [row]) => show_one(format, &EXISTS, row),
        (Some(format), rows) => show_many(format, &EXISTS, rows),
    })
}

/// Runs `kv metadata`.
pub(super) fn metadata(key: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let name = key.as_bytes();
    let commands: [&[&[u8]]; 4] =
        [&[b"DKV.GETV", name], &[b"PTTL", name], &[b"TYPE", name], &[b"STRLEN", name]];
    let replies = <[_; 4]>::try_from(pipeline(&mut link, &commands)?);
    let Ok([item, ttl, kind, bytes]) = replies else {
        return Err(client_failure(&ClientError::Server("ERR a reply is missing".into())));
    };
    let (success, error) = (json!(item.is_ok()), json!(item.as_ref().err()));
    let version = version_of(item);
    let exists = !version.is_null();
    let span = ttl.ok().and_then(|reply| reply.as_integer()).filter(|ms| *ms >= 0).map(time_span);
    let kind = kind
        .ok()
        .and_then(Reply::into_bytes)
        .map(|kind| String::from_utf8_lossy(&kind).into_owned());
    let about = exists
        .then(|| json!({"Type": kind, "Bytes": bytes.ok().and_then(|bytes| bytes.as_integer())}));
    let row = [
        json!(link.store),
        json!(key),
        json!(exists),
        version.clone(),
        version,
        json!(span),
        json!(about),
        success,
        error,
    ];
    Ok(show_one(shared.output.unwrap_or_default(), &METADATA, &row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_written_as_digits() {
        assert_eq!(bytes_value(b"hello"), json!("hello"));
        assert_eq!(bytes_value(b"\xff\x00"), json!("0xff00"));
        // In time that grows with the value: copying what is there for each byte would take minutes.
        let large = vec![0xab; 4 << 20];
        assert_eq!(bytes_value(&large).as_str().map(str::len), Some(2 + (8 << 20)));
    }

    #[test]
    fn time_spans_are_written_as_the_original_does() {
        for (ms, text) in [
            (300_000, "00:05:00"),
            (1500, "00:00:01.500"),
            (93_784_000, "1.02:03:04"),
            (0, "00:00:00"),
        ] {
            assert_eq!(time_span(ms), text);
        }
    }

    #[test]
    fn a_failed_object_makes_the_exit_code() {
        let good = vec![json!("S"), json!("k"), json!(true), json!(true), Value::Null];
        let bad = vec![json!("S"), json!("k"), Value::Null, json!(false), json!("CLUSTERDOWN x")];
        assert!(!failed(&good) && failed(&bad));
    }
}
