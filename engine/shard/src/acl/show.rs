//! A user as ACL GETUSER shows it, and the help of ACL.

use super::User;
use super::selector::Selector;
use alloc::string::String;
use alloc::vec::Vec;
use dkv_protocol::resp::{Proto, reply};

/// The reply of ACL GETUSER.
pub(super) fn user(user: &User, proto: Proto, out: &mut Vec<u8>) {
    let [root, others @ ..] = user.selectors() else { return reply::null(out, proto) };
    reply::map(out, proto, 6);
    reply::bulk(out, b"flags");
    let flags = user.flags();
    reply::set(out, proto, flags.len());
    for flag in flags {
        reply::bulk(out, flag.as_bytes());
    }
    reply::bulk(out, b"passwords");
    let passwords: Vec<String> = user.passwords().collect();
    reply::array(out, passwords.len());
    for hash in passwords {
        reply::bulk(out, hash.as_bytes());
    }
    selector(root, out);
    reply::bulk(out, b"selectors");
    reply::array(out, others.len());
    for other in others {
        reply::map(out, proto, 3);
        selector(other, out);
    }
}

fn selector(selector: &Selector, out: &mut Vec<u8>) {
    let fields = [
        ("commands", selector.commands()),
        ("keys", selector.keys()),
        ("channels", selector.channels()),
    ];
    for (name, text) in &fields {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, text.as_bytes());
    }
}

pub(super) const HELP: &[&str] = &[
    "CAT [<category>]",
    "    Return the categories of commands, or the commands of one of them.",
    "DELUSER <username> [<username> ...]",
    "    Delete users of the store. Their connections are closed.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Return whether a user may execute a command. It is not executed.",
    "GETUSER <username>",
    "    Return the rules of a user.",
    "GENPASS [<bits>]",
    "    Return a password that nobody can guess, of 256 bits when none are given.",
    "LIST",
    "    Return a line for each user, with its rules.",
    "LOAD",
    "    There is no file: the store keeps its users.",
    "LOG [<count> | RESET]",
    "    Return what users of this node were not allowed to do, or forget it.",
    "SAVE",
    "    There is no file: the store keeps its users.",
    "SETUSER <username> <attribute> [<attribute> ...]",
    "    Create a user of the store, or change it.",
    "USERS",
    "    Return the names of all users.",
    "WHOAMI",
    "    Return the name of the user that this connection is.",
];
