//! Times to live: ttl, expire, persist, refresh.

use super::Shared;
use super::items::{no_such_key, pipeline, show_one, time_span, version_of};
use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::output;
use crate::store_link::client_failure;
use dkv_client::Value as Reply;
use serde_json::{Value, json};

/// Fields of an item whose time to live was set.
const EXPIRATION: [&str; 8] =
    ["StoreName", "Key", "TimeToLive", "IsUpdate", "Revision", "Version", "Success", "Error"];
/// Fields of an item that was refreshed.
const REFRESHED: [&str; 8] =
    ["StoreName", "Key", "Refreshed", "TimeToLive", "Revision", "Version", "Success", "Error"];
/// Fields of an item whose time to live was asked for.
const TTL: [&str; 6] = ["StoreName", "Key", "Exists", "TtlSec", "Success", "Error"];

fn integer(reply: &Result<Reply, String>) -> Option<i64> {
    reply.as_ref().ok().and_then(Reply::as_integer)
}

/// Runs `kv ttl`.
pub(super) fn ttl(key: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let reply =
        link.client.call(&[b"PTTL", key.as_bytes()]).map_err(|error| client_failure(&error))?;
    let ms = reply.as_integer().unwrap_or(-2);
    let seconds = if ms < 0 { ms } else { (ms + 999) / 1000 };
    match shared.output {
        None => {
            output::line(&seconds.to_string());
            Ok(u8::from(ms == -2))
        }
        Some(format) => {
            let left = if ms < 0 { Value::Null } else { json!(seconds) };
            let row =
                [json!(link.store), json!(key), json!(ms != -2), left, json!(true), Value::Null];
            Ok(show_one(format, &TTL, &row))
        }
    }
}

/// Runs `kv expire`.
pub(super) fn expire(
    key: &str,
    ms: u64,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let text = ms.to_string();
    let name = key.as_bytes();
    let mut replies =
        pipeline(&mut link, &[&[b"PEXPIRE", name, text.as_bytes()], &[b"DKV.GETV", name]])?
            .into_iter();
    let (set, after) = (replies.next(), replies.next());
    let set = set.unwrap_or(Err("no reply".into()));
    let there = integer(&set) == Some(1);
    let Some(format) = shared.output else {
        if let Err(error) = set {
            return Err(crate::store_link::server_failure(&error));
        }
        if !there {
            return Err(no_such_key(key));
        }
        output::line("OK");
        return Ok(0);
    };
    let error = set.err().or((!there).then(|| "NotFound: there is no such key".to_owned()));
    let version = after.filter(|_| there).map_or(Value::Null, version_of);
    let span = time_span(i64::try_from(ms).unwrap_or(i64::MAX));
    let row = [
        json!(link.store),
        json!(key),
        json!(span),
        json!(there),
        version.clone(),
        version,
        json!(error.is_none()),
        json!(error),
    ];
    Ok(show_one(format, &EXPIRATION, &row))
}

/// Runs `kv persist`.
pub(super) fn persist(key: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let name = key.as_bytes();
    let mut replies = pipeline(&mut link, &[&[b"PERSIST", name], &[b"PTTL", name]])?.into_iter();
    let (done, ttl) = (replies.next().unwrap_or(Err("no reply".into())), replies.next());
    if let Err(error) = done {
        return Err(crate::store_link::server_failure(&error));
    }
    if ttl.as_ref().and_then(integer) == Some(-2) {
        return Err(no_such_key(key));
    }
    match shared.output {
        None => output::line("OK"),
        Some(format) => {
            let row =
                [json!(link.store), json!(key), json!(true), Value::Null, json!(true), Value::Null];
            return Ok(show_one(format, &TTL, &row));
        }
    }
    Ok(0)
}

/// Runs `kv refresh`: the time that is left is written anew, in one step and only if there is one, so that no write of
/// somebody else is lost.
pub(super) fn refresh(key: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let name = key.as_bytes();
    let reply = link.client.call(&[b"PTTL", name]).map_err(|error| client_failure(&error))?;
    let ms = reply.as_integer().unwrap_or(-2);
    let mut error = match ms {
        -2 => Some("NotFound: there is no such key".to_owned()),
        -1 => Some("InvalidInput: the key has no time to live".to_owned()),
        _ => None,
    };
    let mut version = Value::Null;
    if error.is_none() {
        let text = ms.max(1).to_string();
        let commands: [&[&[u8]]; 2] =
            [&[b"PEXPIRE", name, text.as_bytes(), b"XX"], &[b"DKV.GETV", name]];
        let mut replies = pipeline(&mut link, &commands)?.into_iter();
        let done = replies.next().unwrap_or(Err("no reply".into()));
        if integer(&done) == Some(1) {
            version = replies.next().map_or(Value::Null, version_of);
        } else {
            error = Some(
                done.err().unwrap_or_else(|| "Conflict: the key changed meanwhile".to_owned()),
            );
        }
    }
    match (shared.output, error) {
        (None, None) => {
            output::line("OK");
            Ok(0)
        }
        (None, Some(error)) => Err(Failure::failed(format!("{key:?}: {error}"), "")),
        (Some(format), error) => {
            let span = (ms >= 0).then(|| time_span(ms));
            let done = error.is_none();
            let row = [
                json!(link.store),
                json!(key),
                json!(done),
                json!(span),
                version.clone(),
                version,
                json!(done),
                json!(error),
            ];
            Ok(show_one(format, &REFRESHED, &row))
        }
    }
}
