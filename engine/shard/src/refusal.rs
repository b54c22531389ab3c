//! Why a command is refused before it runs, and the error that says so.

use crate::acl::check::Denied;
use crate::command::{Args, Spec};
use crate::commands;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dkv_protocol::limits::KEY_BYTES_MAX;
use dkv_protocol::resp::reply;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such command.
    Unknown,
    /// There is no such subcommand.
    UnknownSubcommand,
    /// Wrong number of arguments.
    Arity,
    /// Wrong number of arguments of the subcommand.
    SubcommandArity,
    /// The password has not been given.
    Unauthenticated,
    /// Its user may not do that.
    Denied(Denied),
    /// A key is longer than [`KEY_BYTES_MAX`].
    KeyTooLong,
    /// The connection has subscriptions and speaks RESP2.
    Subscribed,
    /// The connection is shown the commands of others.
    LooksOn,
    /// Not between MULTI and EXEC.
    InTransaction,
    /// CLIENT TRACKING ON between MULTI and EXEC.
    TrackingInTransaction,
    /// It would write to all shards between MULTI and EXEC.
    WholeStoreInTransaction,
    /// The keys must be of one slot, and are not.
    SeveralSlots,
    /// An argument would not fit the memory of the table, and was not kept.
    OutOfMemory,
}

impl Refusal {
    /// Whether the request is none that anybody could execute, whatever its user may do.
    pub(crate) const fn is_of_form(self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::UnknownSubcommand
                | Self::Arity
                | Self::SubcommandArity
                | Self::Unauthenticated
                | Self::KeyTooLong
                | Self::OutOfMemory
        )
    }
}

pub(crate) const KEY_TOO_LONG: &str =
    "ERR key is longer than 65536 bytes; use a shorter key, for example a hash of it";
const _: () = assert!(KEY_BYTES_MAX == 65536);
const IN_TRANSACTION: &str = "ERR Command not allowed inside a transaction";
const TRACKING: &str = "ERR CLIENT TRACKING ON is not allowed in a transaction, because a change of what it reads could be \
                        missed; send it before MULTI";
const WHOLE_STORE: &str = "ERR a transaction is of one slot and this command writes to all of them; send it outside of \
                           MULTI and EXEC";

const NO_KEY: &str =
    "NOPERM this user has no permissions to access one of the keys used as arguments";
const NO_CHANNEL: &str =
    "NOPERM this user has no permissions to access one of the channels used as arguments";
const LOOKS_ON: &str = "ERR Replica can't interact with the keyspace";
const SUBSCRIBED: &str =
    "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
const SEVERAL_SLOTS: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// Writes the error.
#[cold]
pub(crate) fn write(refusal: Refusal, spec: Option<&Spec>, args: Args<'_>, out: &mut Vec<u8>) {
    if spec.is_some_and(|spec| spec.name == "EXEC") {
        let mut why = Vec::new();
        write_plain(refusal, spec, args, &mut why);
        let why = why.strip_prefix(b"-ERR ").or(why.strip_prefix(b"-")).unwrap_or(&why);
        let mut text = b"EXECABORT Transaction discarded because of: ".to_vec();
        text.extend_from_slice(why.strip_suffix(b"\r\n").unwrap_or(why));
        return reply::error_bytes(out, &text);
    }
    write_plain(refusal, spec, args, out);
}

fn write_plain(refusal: Refusal, spec: Option<&Spec>, args: Args<'_>, out: &mut Vec<u8>) {
    match (refusal, spec) {
        (Refusal::Unauthenticated, _) => reply::error(out, "NOAUTH Authentication required."),
        (Refusal::LooksOn, _) => reply::error(out, LOOKS_ON),
        (Refusal::InTransaction, _) => reply::error(out, IN_TRANSACTION),
        (Refusal::TrackingInTransaction, _) => reply::error(out, TRACKING),
        (Refusal::WholeStoreInTransaction, _) => reply::error(out, WHOLE_STORE),
        (Refusal::OutOfMemory, _) => reply::error(out, commands::OUT_OF_MEMORY),
        (Refusal::KeyTooLong, _) => reply::error(out, KEY_TOO_LONG),
        (Refusal::SeveralSlots, _) => reply::error(out, SEVERAL_SLOTS),
        (Refusal::Denied(Denied::Command), Some(spec)) => {
            let name = commands::name_of(commands::number_of(spec, args));
            let text = format!("NOPERM this user has no permissions to run the '{name}' command");
            reply::error(out, &text);
        }
        (Refusal::Denied(Denied::Channel(_)), _) => reply::error(out, NO_CHANNEL),
        (Refusal::Denied(_), _) => reply::error(out, NO_KEY),
        (Refusal::Arity, Some(spec)) => commands::wrong_arity(spec.name, out),
        (Refusal::Subscribed, Some(spec)) => {
            let mut text = String::from("ERR Can't execute '");
            text.push_str(&spec.name.to_ascii_lowercase());
            let subcommand = subcommand_of(spec, args);
            if !subcommand.is_empty() {
                text.push('|');
                text.push_str(subcommand);
            }
            text.push_str(SUBSCRIBED);
            reply::error(out, &text);
        }
        (Refusal::SubcommandArity, Some(spec)) => {
            let mut name = String::from(spec.name);
            name.push('|');
            name.push_str(subcommand_of(spec, args));
            commands::wrong_arity(&name, out);
        }
        (Refusal::UnknownSubcommand, Some(spec)) => {
            commands::unknown_subcommand(spec.name, args.get(1), out);
        }
        (Refusal::Unknown, _) | (_, None) => commands::unknown(args, out),
    }
}

/// The subcommand that a request names; empty when there is none.
pub(crate) fn subcommand_of(spec: &Spec, args: Args<'_>) -> &'static str {
    if spec.subcommands.is_empty() || args.len() < 2 {
        return "";
    }
    let name = args.get(1);
    let known = spec.subcommands.iter().find(|s| s.name.as_bytes().eq_ignore_ascii_case(name));
    known.map_or("", |s| s.name)
}

/// Whether `spec` refuses this number of arguments.
#[inline]
pub(crate) fn check_arguments(spec: &Spec, args: Args<'_>) -> Option<Refusal> {
    if commands::fits(spec, args.len()) { None } else { Some(Refusal::Arity) }
}

/// Whether a container refuses its subcommand, or the number of its arguments. One that may stand alone (COMMAND) names none.
pub(crate) fn check_subcommand(spec: &Spec, args: Args<'_>) -> Option<Refusal> {
    if args.len() < 2 {
        return None;
    }
    let name = args.get(1);
    let known = spec.subcommands.iter().find(|s| s.name.as_bytes().eq_ignore_ascii_case(name));
    let Some(known) = known else { return Some(Refusal::UnknownSubcommand) };
    let wanted = usize::from(known.arity.unsigned_abs());
    let fits = if known.arity >= 0 { args.len() == wanted } else { args.len() >= wanted };
    (!fits).then_some(Refusal::SubcommandArity)
}

/// Sent to a client from elsewhere while the store has no password; the connection is closed.
pub(crate) const PROTECTED_MODE: &[u8] = b"-DENIED Running in protected mode because protected mode is enabled and no \
password is set for this store. In this mode connections are only accepted from the machine that the node runs on. If \
you want to connect from other machines you may adopt one of the following solutions: 1) Create the store with a \
password: 'dkv store create ... --password-file FILE'. 2) If nobody else can reach its ports, create it with \
'--no-protected-mode'. 3) For a test, connect from the machine that the node runs on.\r\n";

/// Sent to a client too many; the connection is closed.
pub(crate) const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";
