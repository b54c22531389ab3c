//! ACL, as the session executes it.

use super::check::{Denied, check};
use super::line::name_of;
use super::{DEFAULT, User, categories, log, show};
use crate::command::{Args, Now, Spec};
use crate::commands;
use crate::connection::{help, parse};
use crate::refusal;
use crate::session::{End, Session};
use crate::shard::Shard;
use crate::users::UsersOutcome;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::ControlFlow;
use dkv_protocol::resp::reply;
use dkv_protocol::users::{UserChanges, UserLine, UsersAnswer, UsersRefusal};

/// How often a change is made anew when somebody else changed the same user meanwhile, or the one who wants it. Each time takes
/// an answer of the managers, and whoever changes one user all the time must not keep others from it.
const TRIES: u8 = 100;

const THE_DEFAULT_USER: &str = "ERR The 'default' user cannot be removed";
const KEPT: &str = "ERR the store keeps its users by itself: ACL SETUSER and ACL DELUSER change them on every node, and they \
                    stay when it restarts. There is no file to load or save";
/// Bytes of lines that count one unit of pace.
const LINE_BYTES_PER_UNIT: usize = 4096;
pub(super) const UNREADABLE: &str = "ERR the rules of this user cannot be read by this version, so they cannot be changed by \
                                     it either; see ACL LIST, and remove the user with ACL DELUSER to begin anew";
const BITS: &str = "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096";
const BITS_MAX: i64 = 4096;
const GONE: &str = "NOPERM the user of this connection was removed meanwhile; nothing was changed";
const UNREACHABLE: &str = "ERR no manager of this store could be asked within 5 seconds, so the users are what they were; see \
                           'dkv manager status', and try again";
const UNANSWERED: &str = "UNCERTAIN the managers of this store did not decide in time, and may do so yet; see ACL LIST in a \
                          while, and 'dkv manager status'";

impl Shard {
    /// Executes ACL. Break: not now, the session is stalled.
    pub(crate) fn acl_command(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if self.refuses_subcommand(session, spec, args) {
            return ControlFlow::Continue(());
        }
        let mut out = Vec::new();
        let proto = session.proto;
        match refusal::subcommand_of(spec, args) {
            "whoami" => reply::bulk(&mut out, session.user_name().as_bytes()),
            "cat" => cat(args, &mut out),
            "users" => {
                reply::array(&mut out, self.acl.all().len());
                self.acl.all().for_each(|user| reply::bulk(&mut out, user.name.as_bytes()));
            }
            "list" => {
                let lines = self.acl.lines();
                reply::array(&mut out, lines.len());
                lines.for_each(|line| reply::bulk(&mut out, line.as_bytes()));
                self.pace.work(1 + out.len() / LINE_BYTES_PER_UNIT);
            }
            "getuser" => match self.acl.get(args.get(2)) {
                Some(user) => show::user(user, proto, &mut out),
                None => reply::null(&mut out, proto),
            },
            "genpass" => self.genpass(args, &mut out),
            "dryrun" => self.dry_run(args, &mut out),
            "log" => match log_asked(args) {
                Ok(()) => return self.of_node(now, session, args),
                Err(text) => reply::error(&mut out, &text),
            },
            "setuser" | "deluser" => return self.change_user(session, spec, args),
            "load" | "save" => reply::error(&mut out, KEPT),
            _ => help("ACL", show::HELP, &mut out),
        }
        self.answer(session, &out);
        ControlFlow::Continue(())
    }

    /// This shard's part of ACL LOG.
    pub(crate) fn acl_log_part(&mut self, args: Args<'_>, out: &mut Vec<u8>) {
        if args.len() > 2 && args.get(2).eq_ignore_ascii_case(b"RESET") {
            self.acl_log.clear();
            return reply::ok(out);
        }
        let (me, shards) = (self.me.shard.0, self.env.stats.len());
        self.acl_log.write_part(usize::from(me), shards, out);
    }

    fn genpass(&self, args: Args<'_>, out: &mut Vec<u8>) {
        let bits = match args.len() {
            2 => 256,
            3 => match parse(args.get(2)) {
                None => return reply::error(out, "ERR value is not an integer or out of range"),
                Some(bits @ 1..=BITS_MAX) => bits,
                Some(_) => return reply::error(out, BITS),
            },
            _ => return reply::error(out, &too_many("GENPASS")),
        };
        let digits = (bits as usize).div_ceil(4);
        let mut bytes = alloc::vec![0; digits.div_ceil(2)];
        if !(self.env.random)(&mut bytes) {
            let text = "ERR the machine gives no random numbers; make a password elsewhere";
            return reply::error(out, text);
        }
        let mut text = String::new();
        for byte in &bytes {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        reply::bulk(out, &text.as_bytes()[..digits]);
    }

    fn dry_run(&self, args: Args<'_>, out: &mut Vec<u8>) {
        let quoting = |before: &str, what: &[u8], behind: &str| {
            let what = &what[..what.len().min(128)];
            [before.as_bytes(), what, behind.as_bytes()].concat()
        };
        let Some(user) = self.acl.get(args.get(2)) else {
            return reply::error_bytes(out, &quoting("ERR User '", args.get(2), "' not found"));
        };
        let asked = args.slice(3, args.len() - 3);
        let Some(spec) = commands::lookup(asked.get(0)) else {
            return reply::error_bytes(out, &quoting("ERR Command '", asked.get(0), "' not found"));
        };
        let part = !spec.subcommands.is_empty() && asked.len() > 1;
        let refused = refusal::check_arguments(spec, asked)
            .or_else(|| if part { refusal::check_subcommand(spec, asked) } else { None });
        match refused {
            Some(refusal::Refusal::UnknownSubcommand) => {
                let text = quoting("ERR Command '", asked.get(0), "' not found");
                return reply::error_bytes(out, &text);
            }
            Some(refusal) => return refusal::write(refusal, Some(spec), asked, out),
            None => {}
        }
        let text = match check(user, spec, asked) {
            Ok(()) => return reply::ok(out),
            Err(Denied::Command) => {
                let name = commands::name_of(commands::number_of(spec, asked));
                format!("This user has no permissions to run the '{name}' command").into_bytes()
            }
            Err(Denied::Key(at)) => {
                let key = asked.get(at as usize);
                [b"This user has no permissions to access the '", key, b"' key"].concat()
            }
            Err(Denied::Channel(at)) => {
                let channel = asked.get(at as usize);
                [b"This user has no permissions to access the '", channel, b"' channel"].concat()
            }
        };
        reply::bulk(out, &text);
    }

    /// ACL SETUSER and DELUSER: the lines are made here, of the users of now, and the managers are asked to put them in the
    /// place of those, given that the connection's own user is what it is. Break: not now, the session is stalled.
    fn change_user(
        &mut self,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let deletes = args.get(1).eq_ignore_ascii_case(b"DELUSER");
        let mut tries = session.change.as_ref().map_or(0, |change| change.tries());
        let mut out = Vec::new();
        loop {
            let asked = if session.change.is_some() {
                // What was asked for is answered, whatever would be asked for now.
                UserChanges { given: Vec::new(), changes: Vec::new() }
            } else {
                match if deletes { self.deleted(session, args) } else { self.set(session, args) } {
                    Ok(asked) if asked.changes.is_empty() => {
                        reply::integer(&mut out, 0);
                        break;
                    }
                    Ok(asked) => asked,
                    Err(text) => {
                        reply::error_bytes(&mut out, &text);
                        break;
                    }
                }
            };
            let (outcome, count) = self.change_users(session, tries, asked)?;
            match outcome {
                UsersOutcome::Answered(UsersAnswer::Done { .. }) if deletes => {
                    reply::integer(&mut out, i64::from(count));
                }
                UsersOutcome::Answered(UsersAnswer::Done { .. }) => reply::ok(&mut out),
                UsersOutcome::Answered(UsersAnswer::Refused {
                    why: UsersRefusal::Changed { .. },
                }) if tries < TRIES => {
                    if self.may_no_longer(session, spec, args, &mut out) {
                        break;
                    }
                    tries += 1;
                    continue;
                }
                UsersOutcome::Answered(UsersAnswer::Refused { why }) => {
                    reply::error(&mut out, &format!("ERR {why}; nothing was changed"));
                }
                UsersOutcome::Unreachable => reply::error(&mut out, UNREACHABLE),
                UsersOutcome::Unanswered | UsersOutcome::Answered(UsersAnswer::Undecided) => {
                    reply::error(&mut out, UNANSWERED);
                }
            }
            break;
        }
        self.answer(session, &out);
        // Who deleted its own user is answered first.
        if session.user.is_some() && self.acl.get(session.user_name().as_bytes()).is_none() {
            session.end = End::Settling;
        }
        ControlFlow::Continue(())
    }

    /// Whether the connection's user is gone since it asked, or may not execute the command any more: the reply says so then.
    fn may_no_longer(
        &mut self,
        session: &Session,
        spec: &'static Spec,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(user) = self.acl.get(session.user_name().as_bytes()).map(Arc::clone) else {
            reply::error(out, GONE);
            return true;
        };
        let Err(denied) = check(&user, spec, args) else { return false };
        self.note_denied(session, Some(spec), args, denied);
        refusal::write(refusal::Refusal::Denied(denied), Some(spec), args, out);
        true
    }

    /// A user as the store has it now.
    fn present(&self, name: &str) -> UserLine {
        let line = self.users().line(name).map(String::from);
        UserLine { name: name.to_string(), line }
    }

    /// What ACL SETUSER makes of a user.
    fn set(&self, session: &Session, args: Args<'_>) -> Result<UserChanges, Vec<u8>> {
        let name = name_of(args.get(2))?;
        let known = match self.acl.line_of(name.as_bytes()) {
            Some(line) => Some(User::of_line(line).ok_or(UNREADABLE)?),
            None => None,
        };
        let mut user = known.unwrap_or_else(|| User::new(name));
        let rules: Vec<&[u8]> = args.iter_from(3).collect();
        user.apply_all(&rules, false)?;
        let given = Vec::from([self.present(session.user_name()), self.present(name)]);
        let line = Some(user.kept_line()?);
        Ok(UserChanges { given, changes: [UserLine { name: name.to_string(), line }].into() })
    }

    /// What ACL DELUSER makes of those of its users that there are: whatever they may do by then, they go.
    fn deleted(&self, session: &Session, args: Args<'_>) -> Result<UserChanges, Vec<u8>> {
        let mut names: Vec<&[u8]> = args.iter_from(2).collect();
        if names.contains(&DEFAULT.as_bytes()) {
            return Err(THE_DEFAULT_USER.into());
        }
        names.sort_unstable();
        names.dedup();
        let known = names.into_iter().filter_map(|name| self.acl.get(name));
        let gone = |user: &Arc<User>| UserLine { name: user.name.clone(), line: None };
        let changes = known.map(gone).collect();
        Ok(UserChanges { given: [self.present(session.user_name())].into(), changes })
    }
}

fn too_many(subcommand: &str) -> String {
    format!("ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try ACL HELP.")
}

fn log_asked(args: Args<'_>) -> Result<(), String> {
    match args.len() {
        2 => Ok(()),
        3 if args.get(2).eq_ignore_ascii_case(b"RESET") => Ok(()),
        3 if log::count(args).is_some() => Ok(()),
        3 => Err("ERR value is not an integer or out of range".into()),
        _ => Err(too_many(&String::from_utf8_lossy(args.get(1)))),
    }
}

/// ACL CAT.
fn cat(args: Args<'_>, out: &mut Vec<u8>) {
    if args.len() > 3 {
        return reply::error(out, &too_many(&String::from_utf8_lossy(args.get(1))));
    }
    if args.len() == 2 {
        reply::array(out, categories::CATEGORIES.len());
        for name in categories::CATEGORIES {
            reply::bulk(out, name.as_bytes());
        }
        return;
    }
    let Some(category) = categories::named(args.get(2)) else {
        let name = &args.get(2)[..args.get(2).len().min(128)];
        return reply::error_bytes(out, &[b"ERR Unknown category '", name, b"'"].concat());
    };
    let members: Vec<u16> = categories::members(category).collect();
    reply::array(out, members.len());
    for number in members {
        reply::bulk(out, commands::name_of(number).as_bytes());
    }
}
