//! Users, compared with redis-server: rules drawn by a seed for a few users, and after each what is shown of them and what they
//! may do.
//!
//! Commands are allowed in forms that Redis 7.0 shows as they were given: what it says anew with the categories that fit best,
//! of the commands that it has, is each server's own.

use super::generator::Chance;
use super::{Redis, Side, Talks, shown};
use crate::bare::command;
use std::net::TcpStream;

const USERS: &[&str] = &["ann", "bob", "default", "a b", "nobody"];
const RULES: &[&[&str]] = &[
    &["on"],
    &["OFF"],
    &["nopass"],
    &["resetpass"],
    &[">one"],
    &[">two"],
    &[">"],
    &["<one"],
    &["#30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4"],
    &["!30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4"],
    &["#30C9"],
    &["!zz"],
    &["~a*"],
    &["~b?"],
    &["~"],
    &["%R~a*"],
    &["%w~c*"],
    &["%RW~d"],
    &["%R~*"],
    &["%RR~a"],
    &["%X~a"],
    &["%R"],
    &["%"],
    &["~a b"],
    &["~*"],
    &["allkeys"],
    &["ResetKeys"],
    &["&a*"],
    &["&c"],
    &["&*"],
    &["allchannels"],
    &["resetchannels"],
    &["allcommands"],
    &["nocommands"],
    &["+@all"],
    &["-@all"],
    &["nocommands", "+get"],
    &["nocommands", "+get|a"],
    &["nocommands", "+CONFIG|get"],
    &["allcommands", "-set"],
    &["nocommands", "+@read"],
    &["+nope"],
    &["-nope"],
    &["+@nope"],
    &["+config|nope"],
    &["+config|get|x"],
    &["-get|a b"],
    &["+get|"],
    &["+"],
    &["nonsense"],
    &["(~a* +@all)"],
    &["(+get", "~b*)"],
    &["(%W~a* allcommands)"],
    &["()"],
    &["(on)"],
    &["(+get"],
    &["clearselectors"],
    &["sanitize-payload"],
    &["skip-sanitize-payload"],
    &["reset"],
    &["~x)"],
    &["~(y)"],
    &["&(c)"],
    &["nocommands", "+get|a)"],
    &["+get)"],
    &[")"],
    &["("],
    &["(~(x)"],
    &["(~x(y)z +@all)"],
    &["(+get", "~b)x", "&c)"],
];
/// Rules that make another user of Redis 7.0 when it reads its own line again. Here they are refused, and change nothing.
const ONLY_THEIRS: &[&str] = &[
    "(~b) +@all -get)",
    "(+get ~b))",
    "(+get|a))",
    "(%R~a) %W~b)",
    "(&c) +@all)",
    "+get|a b",
    "+get|a +@all",
];
const ASKED: &[&[&str]] = &[
    &["GET", "a1"],
    &["GET", "b1"],
    &["GET", "zz"],
    &["GET"],
    &["SET", "a1", "v"],
    &["SET", "c1", "v", "GET"],
    &["MGET", "a1", "b1"],
    &["MSET", "a1", "1", "c1", "1"],
    &["COPY", "a1", "c1"],
    &["RENAME", "a1", "d"],
    &["BITOP", "OR", "c1", "a1", "b1"],
    &["BITFIELD", "a1", "GET", "u8", "0"],
    &["BITFIELD", "a1", "SET", "u8", "0", "1"],
    &["EXISTS", "c1"],
    &["OBJECT", "ENCODING", "a1"],
    &["EXPIRE", "a1", "1"],
    &["DEL", "c1"],
    &["GETDEL", "c1"],
    &["STRLEN", "c1"],
    &["PUBLISH", "a1", "m"],
    &["SUBSCRIBE", "c", "a1"],
    &["PSUBSCRIBE", "a*"],
    &["PSUBSCRIBE", "a?"],
    &["CONFIG", "GET", "x"],
    &["CONFIG", "SET", "x", "y"],
    &["PING"],
    &["nope"],
];
const OTHERS: &[&[&str]] = &[
    &["ACL", "WHOAMI"],
    &["ACL", "WHOAMI", "x"],
    &["ACL", "CAT"],
    &["ACL", "CAT", "nope"],
    &["ACL", "CAT", "scripting", "x"],
    &["ACL", "LOG", "x"],
    &["ACL", "LOG", "1", "x"],
    &["ACL", "GENPASS", "0"],
    &["ACL", "GENPASS", "x"],
    &["ACL", "GENPASS", "4097"],
    &["ACL", "NOPE"],
    &["ACL"],
    &["ACL", "SETUSER"],
    &["ACL", "DELUSER"],
    &["ACL", "DELUSER", "default"],
    &["ACL", "DELUSER", "nobody", "nobody"],
    &["ACL", "GETUSER"],
    &["ACL", "USERS"],
    &["AUTH", "nobody", "x"],
    &["AUTH", "default", "x", "y"],
];

fn pick<'t, T: ?Sized>(chance: &mut Chance, all: &[&'t T]) -> &'t T {
    all[chance.below(all.len() as u64) as usize]
}

fn draw(chance: &mut Chance) -> Vec<&'static str> {
    // The default user stays who may ask all this.
    let user = |chance: &mut Chance| match pick(chance, USERS) {
        "default" => "ann",
        other => other,
    };
    match chance.below(12) {
        0..5 => {
            let mut words = vec!["ACL", "SETUSER", user(chance)];
            (0..chance.below(5)).for_each(|_| words.extend(pick(chance, RULES)));
            words
        }
        5..9 => {
            let mut words = vec!["ACL", "DRYRUN", pick(chance, USERS)];
            words.extend(pick(chance, ASKED));
            words
        }
        9 if chance.below(4) == 0 => vec!["ACL", "DELUSER", user(chance), user(chance)],
        9 => vec!["ACL", "GETUSER", pick(chance, USERS)],
        _ => pick(chance, OTHERS).to_vec(),
    }
}

/// Draws `commands` commands for redis-server and for a node of a store whose managers keep users; what differs, as a reader
/// wants it. What is shown of all users is compared after each.
pub fn run(node: TcpStream, seed: u64, commands: u64, resp3: bool) -> Vec<String> {
    let redis = Redis::start();
    let (mut theirs, mut ours) = (Side::new(redis.connect()), Side::new(node));
    let bytes_of = |words: &[&str]| {
        let mut bytes = Vec::new();
        command(&mut bytes, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        bytes
    };
    if resp3 {
        for side in [&mut theirs as &mut dyn Talks, &mut ours] {
            side.talk(&bytes_of(&["HELLO", "3"]));
        }
    }
    let mut chance = Chance(seed);
    let mut different = Vec::new();
    for number in 0..commands {
        let refused = pick(&mut chance, ONLY_THEIRS);
        let our = ours.talk(&bytes_of(&["ACL", "SETUSER", "ann", "on", "nopass", refused]));
        if !our.starts_with(b"-ERR Error in ACL SETUSER modifier") {
            different.push(format!("seed {seed}: {refused} was answered {}", shown(&our)));
        }
        let drawn = draw(&mut chance);
        for words in [&drawn[..], &["ACL", "LIST"]] {
            let bytes = bytes_of(words);
            let (their, our) = (theirs.talk(&bytes), ours.talk(&bytes));
            if their != our {
                different.push(format!(
                    "command {number} of seed {seed}: {}, then {}\n  redis {}\n  dkv   {}",
                    drawn.join(" "),
                    words.join(" "),
                    shown(&their),
                    shown(&our)
                ));
            }
        }
        if different.len() >= super::FINDINGS_MAX {
            break;
        }
    }
    different
}
