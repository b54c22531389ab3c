//! CONFIG SET: all of its parameters or none.
//!
//! What is set holds for every shard of this node until its process ends. What belongs to the store, and is the same on every node
//! of it, is not set here: the refusal names the command that does.

use super::config::{self, PARAMETERS, Parameter};
use super::{errors, head, number};
use crate::command::{Args, Exec};
use crate::settings::{OutputLimit, Setting, Settings};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt::Write;
use dkv_protocol::eviction::Eviction;
use dkv_protocol::limits::CLIENTS_MAX;
use dkv_protocol::resp::reply;

/// How a parameter is set.
pub(super) enum Sets {
    /// It is not, unless to what it is. Where it belongs to the store, how it is changed there.
    Never(&'static str),
    /// A whole number from the first to the second.
    Integer(i64, i64, fn(&Settings) -> &Setting),
    /// Bytes, with or without a unit.
    Memory(fn(&Settings) -> &Setting),
    /// `yes` or `no`.
    YesOrNo(fn(&Settings) -> &Setting),
    /// `maxmemory-policy`.
    Policy,
    /// `client-output-buffer-limit`.
    OutputLimits,
}

/// What is to be stored where, once all is known to be right.
enum Change {
    Number(fn(&Settings) -> &Setting, u64),
    Policy(Eviction),
    /// Class, and hard and soft limit with its seconds.
    OutputLimit(usize, [u64; 3]),
}

/// The classes of `client-output-buffer-limit`, as they are shown.
const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

pub(super) fn set(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if args.len() % 2 == 1 {
        return reply::error(out, errors::SYNTAX);
    }
    if !super::names_bearable(args.len() / 2 - 1, out) {
        return;
    }
    let mut chosen: Vec<&Parameter> = Vec::new();
    for i in (2..args.len()).step_by(2) {
        let named = args.get(i).to_ascii_lowercase();
        let Some(parameter) = PARAMETERS.iter().find(|one| one.name.as_bytes() == named) else {
            return unknown(args.get(i), out);
        };
        if let Sets::Never(hint) = parameter.sets
            && config::shown(x, parameter).as_bytes() != args.get(i + 1)
        {
            return failed(parameter.name, &immutable(hint), out);
        }
        if chosen.iter().any(|one| one.name == parameter.name) {
            return failed(parameter.name, "duplicate parameter", out);
        }
        chosen.push(parameter);
    }
    let mut changes = Vec::new();
    for (i, parameter) in chosen.iter().enumerate() {
        match read(parameter, args.get(3 + 2 * i)) {
            Ok(more) => changes.extend(more),
            Err(why) => return failed(parameter.name, &why, out),
        }
    }
    let settings = &x.env.settings;
    for change in changes {
        match change {
            Change::Number(field, value) => field(settings).set(value),
            Change::Policy(eviction) => settings.set_eviction(eviction),
            Change::OutputLimit(class, values) => {
                let OutputLimit { hard_bytes, soft_bytes, soft_s } = &settings.output_limits[class];
                for (field, value) in [hard_bytes, soft_bytes, soft_s].into_iter().zip(values) {
                    field.set(value);
                }
            }
        }
    }
    settings.changed();
    reply::ok(out);
}

fn unknown(name: &[u8], out: &mut Vec<u8>) {
    let mut text = b"ERR Unknown option or number of arguments for CONFIG SET - '".to_vec();
    text.extend_from_slice(head(name, super::QUOTED_BYTES_MAX));
    text.push(b'\'');
    reply::error_bytes(out, &text);
}

fn failed(name: &str, why: &str, out: &mut Vec<u8>) {
    let text = format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}");
    reply::error(out, &text);
}

fn immutable(hint: &str) -> String {
    let mut text = String::from("can't set immutable config");
    if !hint.is_empty() {
        let _ = write!(text, "; {hint}");
    }
    text
}

/// What a value means for a parameter; otherwise why it means nothing, in the words of Redis.
fn read(parameter: &Parameter, value: &[u8]) -> Result<Vec<Change>, String> {
    let one = |field, value| Ok(vec![Change::Number(field, value)]);
    match parameter.sets {
        Sets::Never(_) => Ok(Vec::new()),
        Sets::Integer(least, greatest, field) => match number::parse_i64(value) {
            None => Err("argument couldn't be parsed into an integer".into()),
            Some(n) if (least..=greatest).contains(&n) => one(field, n as u64),
            Some(n) if parameter.name == "maxclients" && n > 0 => {
                Err(format!("a node takes at most {CLIENTS_MAX} clients"))
            }
            Some(_) => Err(format!("argument must be between {least} and {greatest} inclusive")),
        },
        Sets::Memory(field) => match bytes(value) {
            Some(bytes) => one(field, bytes),
            None => Err("argument must be a memory value".into()),
        },
        Sets::YesOrNo(field) => match value.to_ascii_lowercase().as_slice() {
            b"yes" => one(field, 1),
            b"no" => one(field, 0),
            _ => Err("argument must be 'yes' or 'no'".into()),
        },
        Sets::Policy => {
            let found =
                Eviction::ALL.iter().find(|(_, name)| value.eq_ignore_ascii_case(name.as_bytes()));
            match found {
                Some((eviction, _)) => Ok(vec![Change::Policy(*eviction)]),
                None => Err("argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, \
                             volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction"
                    .into()),
            }
        }
        Sets::OutputLimits => output_limits(value),
    }
}

/// Bytes as a person writes them: `100`, `100mb` (1024 of 1024), `100m` (1000 of 1000).
fn bytes(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    core::str::from_utf8(digits).ok()?.parse::<u64>().ok()?.checked_mul(unit)
}

/// `normal 0 0 0 pubsub 32mb 8mb 60`: a class, its hard limit, its soft limit and the seconds of that, as often as wanted.
fn output_limits(text: &[u8]) -> Result<Vec<Change>, String> {
    let words: Vec<&[u8]> =
        text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut changes = Vec::new();
    for one in words.chunks_exact(4) {
        let named = one[0].to_ascii_lowercase();
        let named: &[u8] = if named == b"replica" { b"slave" } else { &named };
        let Some(class) = CLASSES.iter().position(|class| class.as_bytes() == named) else {
            return Err("Invalid client class specified in buffer limit configuration.".into());
        };
        let seconds = number::parse_i64(one[3]).and_then(|s| u64::try_from(s).ok());
        match (bytes(one[1]), bytes(one[2]), seconds) {
            (Some(hard), Some(soft), Some(seconds)) => {
                changes.push(Change::OutputLimit(class, [hard, soft, seconds]));
            }
            _ => {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                        .into(),
                );
            }
        }
    }
    Ok(changes)
}

/// The limits as CONFIG GET shows them.
pub(super) fn show_output_limits(settings: &Settings) -> String {
    let mut text = String::new();
    for (class, limit) in CLASSES.iter().zip(&settings.output_limits) {
        let (hard, soft) = (limit.hard_bytes.get(), limit.soft_bytes.get());
        let space = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{space}{class} {hard} {soft} {}", limit.soft_s.get());
    }
    text
}

/// A number as CONFIG GET shows it.
pub(super) fn show(settings: &Settings, sets: &Sets) -> String {
    match sets {
        Sets::Never(_) => String::new(),
        Sets::Integer(_, _, field) => (field(settings).get() as i64).to_string(),
        Sets::Memory(field) => field(settings).get().to_string(),
        Sets::YesOrNo(field) => String::from(if field(settings).get() == 1 { "yes" } else { "no" }),
        Sets::Policy => settings.eviction().to_string(),
        Sets::OutputLimits => show_output_limits(settings),
    }
}
