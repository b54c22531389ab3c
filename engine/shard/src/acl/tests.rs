//! Rules, lines and refusals, as Redis 7.0 has them.

use super::check::{Check, Denied, check, uses};
use super::{Acl, User};
use crate::command::Args;
use crate::commands;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use dkv_protocol::users::Users;
use std::format;

fn apply(user: &mut User, rules: &[&str]) -> Result<(), String> {
    let rules: Vec<&[u8]> = rules.iter().map(|rule| rule.as_bytes()).collect();
    user.apply_all(&rules, false).map_err(|text| String::from_utf8(text).unwrap())
}

/// The line of a new user with these rules, without its name.
fn line(rules: &[&str]) -> String {
    let mut user = User::new("u");
    apply(&mut user, rules).unwrap();
    let line = user.line();
    // It can be read again, and says the same then.
    assert_eq!(User::of_line(&line).as_ref(), Some(&user), "{line}");
    line.strip_prefix("user u ").unwrap().to_string()
}

/// What is wrong with the last of these rules.
fn refusal(rules: &[&str]) -> String {
    apply(&mut User::new("u"), rules).unwrap_err()
}

#[test]
fn rules_become_the_lines_that_redis_shows() {
    let hash = "30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4";
    let given = ["on", ">pw", ">pw", "~x*", "%R~y", "%rw~z", "&c", "-@dangerous", "+@read", "+set"];
    let shown = format!("on #{hash} ~x* %R~y ~z resetchannels &c -@all -@dangerous +@read +set");
    assert_eq!(line(&given), shown);
    for (rules, shown) in [
        (&[][..], "off resetchannels -@all"),
        (&["ON", "AllKeys", "allchannels", "ALLCOMMANDS", "nopass"], "on nopass ~* &* +@all"),
        (&["reset"], "off sanitize-payload resetchannels -@all"),
        (
            &["on", "nopass", "~a", "&b", "+get", "(+set)", "reset"],
            "off sanitize-payload resetchannels -@all",
        ),
        (
            &["(+get", "~x)", "()"],
            "off resetchannels -@all (~x resetchannels -@all +get) (resetchannels -@all)",
        ),
        (&["()", "clearselectors"], "off resetchannels -@all"),
        (&["nopass", ">", "resetpass"], "off resetchannels -@all"),
        (&["%W~a", "%R~a", "~"], "off ~a ~ resetchannels -@all"),
        (&["~a", "allkeys", "resetkeys", "%R~*"], "off %R~* resetchannels -@all"),
        (&["%R"], "off %R~ resetchannels -@all"),
        (&["skip-sanitize-payload"], "off skip-sanitize-payload resetchannels -@all"),
        (&["+@all", "-get", "-@Write"], "off resetchannels +@all -get -@write"),
        (
            &["+get", "+config|get", "+CONFIG", "-get", "+@all", "-set"],
            "off resetchannels +@all -set",
        ),
        (&["+config|get", "+config"], "off resetchannels -@all +config"),
        (&["+select|0", "+GET|x"], "off resetchannels -@all +select|0 +get|x"),
        // Parentheses are bytes of a pattern where they do not end a selector.
        (&["~x)", "~(y)", "&(c)"], "off ~x) ~(y) resetchannels &(c) -@all"),
        (&["+get|a)", "+get|(b"], "off resetchannels -@all +get|a) +get|(b"),
        (
            &["(~(x)", "(~x(y)z +get)"],
            "off resetchannels -@all (~(x resetchannels -@all) (~x(y)z resetchannels -@all +get)",
        ),
        // What is said again counts, where it stands last; of keys and channels, where it stands first.
        (&["+get", "+set", "-get", "+SET", "+get"], "off resetchannels -@all +set +get"),
        (&["+get|a", "+get|b", "+get|a"], "off resetchannels -@all +get|b +get|a"),
        (&["~a", "~b", "%R~a", "~b", "&x", "&y", "&x"], "off ~a ~b resetchannels &x &y -@all"),
        (&["%R~*", "~x", "%W~*"], "off ~* resetchannels -@all"),
        (&["%RW~*", "~x"], "off ~* resetchannels -@all"),
    ] {
        assert_eq!(line(rules), shown, "{rules:?}");
    }
}

#[test]
fn what_is_no_rule_is_refused_in_the_words_of_redis() {
    let refused = |rule: &str, why: &str| {
        let text = format!("ERR Error in ACL SETUSER modifier '{rule}': {why}");
        assert_eq!(refusal(&[rule]), text);
    };
    for rule in ["foo", "%~x", "%RR~x", "%X~y", "%", "~a b", "&a b", "+get|", "(on)"] {
        refused(rule, "Syntax error");
    }
    let unknown = [
        "+nope",
        "-nope",
        "+@nope",
        "+config|nope",
        "-config|nope",
        "-get|x",
        "+",
        "-",
        "+@",
        "+@all|x",
        "(+nope)",
    ];
    for rule in unknown {
        refused(rule, "Unknown command or category name in ACL");
    }
    refused("+config|get|x", "Allowing first-arg of a subcommand is not supported");
    for rule in
        ["#", "#zz", "!zz", "#30C952FAB122C3F9759F02A6D95C3758B246B4FEE239957B2D4FEE46E26170C4"]
    {
        let why = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
        refused(rule, why);
    }
    refused("<pw", "The password you are trying to remove from the user does not exist");
    assert_eq!(refusal(&["(foo"]), "ERR Unmatched parenthesis in acl selector starting at '(foo'.");
    let keys = refusal(&["~*", "~x"]);
    assert!(keys.contains("Try 'resetkeys' to start with an empty list of patterns"), "{keys}");
    let channels = refusal(&["&*", "&x"]);
    assert!(channels.contains("Try 'resetchannels' to start with"), "{channels}");
    let long = "k".repeat(1000);
    let many: Vec<String> = (0..17).map(|i| format!("~{long}{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(refusal(&many).starts_with("ERR the rules of a user take at most 16384 bytes"));
}

#[test]
fn users_of_a_later_version_keep_what_is_not_known_here() {
    let line = "user u on nopass ~* resetchannels -@all +get +unheardof -@later";
    let user = User::of_line(line).unwrap();
    assert_eq!(user.line(), line);
    assert!(User::of_line("user u on nonsense").is_none());
    let mut acl = Acl::new(None);
    acl.follow(&Users { version: 1, lines: ["user u on nopass +@all nonsense".into()].into() });
    // What cannot be read allows nothing.
    assert_eq!(acl.get(b"u").unwrap().line(), "user u off resetchannels -@all");
    assert!(acl.default_user().is_free() && acl.default_user().needs_no_password());
}

#[test]
fn who_is_as_before_is_not_made_anew() {
    let mut acl = Acl::new(Some([7; 32]));
    let one = "user one on nopass resetchannels -@all".to_string();
    acl.follow(&Users { version: 1, lines: [one.clone()].into() });
    let before = alloc::sync::Arc::clone(acl.get(b"one").unwrap());
    let default = "user default off resetchannels -@all".to_string();
    acl.follow(&Users { version: 2, lines: [default, one].into() });
    assert!(alloc::sync::Arc::ptr_eq(&before, acl.get(b"one").unwrap()));
    assert!(!acl.default_user().takes_any_password());
    acl.follow(&Users::default());
    assert!(acl.get(b"one").is_none());
    assert!(acl.authenticate(b"default", Some(&[7; 32])).is_some());
    assert!(acl.authenticate(b"default", Some(&[8; 32])).is_none());
}

#[test]
fn nobody_has_other_rights_after_a_restart() {
    for rules in [
        &["on", "nopass", "~x", "+get", "(~b) +@all -get)"][..],
        &["(~b))"],
        &["(+get|x))"],
        &["(+get", "~x)", "+@all)"],
        &["+get|a +@all"],
        &["-get +@all"],
        &["+get|\u{a0}+@all"],
        &["~x +@all"],
        &["(~a)b)"],
        &["(-get) +@all)"],
    ] {
        let mut user = User::new("u");
        let taken = apply(&mut user, rules).is_ok() && user.kept_line().is_ok();
        let line = user.line();
        assert!(!taken || User::of_line(&line).as_ref() == Some(&user), "{rules:?}: {line}");
    }
    for refused in ["(~b) +@all -get)", "(~b))", "+get|a +@all"] {
        let why = refusal(&[refused]);
        assert!(why.contains("parenthes"), "{refused}: {why}");
    }
    // Words by chance, of what has a meaning in lines.
    let parts =
        ["(", ")", " ", "~", "+", "-", "@all", "get", "|", "x", "%R", "&", "*", "#", ">p", "on"];
    let (mut seed, mut kept) = (1u64, 0);
    for _ in 0..20_000 {
        let mut draw = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let words: Vec<String> = (0..=draw(4))
            .map(|_| (0..=draw(6)).map(|_| parts[draw(parts.len() as u64) as usize]).collect())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut user = User::new("u");
        if apply(&mut user, &words).is_err() {
            continue;
        }
        let line = user.line();
        assert_eq!(User::of_line(&line).as_ref(), Some(&user), "{words:?}: {line}");
        assert_eq!(user.kept_line().as_ref(), Ok(&line));
        kept += 1;
    }
    assert!(kept > 1000, "{kept}");
}

#[test]
fn rules_are_bounded_before_they_are_applied() {
    let many: Vec<String> = (0..6000).map(|i| format!("~{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(refusal(&many).contains("20480 bytes together"));
    assert!(refusal(&many[..1100]).contains("at most 1024 patterns"));
    let long = format!(">{}", "x".repeat(16 * 1024 + 1));
    let why = refusal(&[&long]);
    assert!(why.contains("A password has at most") && why.len() < 300, "{why}");
    assert!(apply(&mut User::new("u"), &[&long[..1000]]).is_ok());
}

#[test]
fn a_user_that_cannot_be_read_is_not_made_anew_by_one_rule() {
    let line = "user u on nopass ~* +@all somethingnew";
    let why = super::line::user_line(Some(line), "u", None, &[b"-get"]).unwrap_err();
    assert!(why.contains("cannot be read by this version"), "{why}");
}

/// What a user may do to `words`, and in how many steps that is known when each has that many nanoseconds.
fn in_steps(user: &User, words: &[&str], step_ns: usize) -> (Result<(), Denied>, usize) {
    let (mut bytes, mut spans) = (Vec::new(), Vec::new());
    for word in words {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(word.as_bytes());
        spans.push((start, bytes.len() as u32));
    }
    let args = Args::new(&bytes, &spans);
    let spec = commands::lookup(args.get(0)).expect("a command");
    let (mut going, mut steps) = (Check::new(spec, args), 1);
    loop {
        let mut left_ns = step_ns;
        match going.go_on(user, spec, args, &mut left_ns) {
            Some(result) => {
                assert_eq!(result, check(user, spec, args), "{words:?} in steps of {step_ns}");
                return (result, steps);
            }
            None => steps += 1,
        }
    }
}

#[test]
fn what_a_request_does_to_its_key_depends_on_its_other_arguments() {
    for (words, expected) in [
        (&["BITFIELD", "k", "GET", "u8", "0"][..], &["RO", "access"][..]),
        (&["BITFIELD", "k", "overflow", "SAT", "get", "u8", "0"], &["RO", "access"]),
        (&["BITFIELD", "k"], &["RO", "access"]),
        (&["BITFIELD", "k", "GET"], &["RW", "access", "update"]),
        (&["BITFIELD", "k", "nonsense"], &["RW", "access", "update"]),
        (&["BITFIELD", "k", "GET", "u8", "0", "SET", "u8", "0", "1"], &["RW", "access", "update"]),
        (&["SET", "k", "v", "EX", "10", "get"], &["RW", "access", "update"]),
        (&["SET", "get", "v"], &["OW", "update"]),
        (&["GET", "k"], &["RO", "access"]),
    ] {
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        for word in words {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(word.as_bytes());
            spans.push((start, bytes.len() as u32));
        }
        let args = Args::new(&bytes, &spans);
        let spec = commands::lookup(args.get(0)).expect("a command");
        assert_eq!(uses(spec, args), expected, "{words:?}");
    }
}

#[test]
fn a_look_in_steps_of_any_length_finds_what_one_at_once_does() {
    let mut user = User::new("u");
    let many: Vec<String> = (0..50).map(|i| format!("~k{i}:*")).collect();
    let rules: Vec<&str> = many.iter().map(String::as_str).collect();
    apply(&mut user, &rules).unwrap();
    apply(&mut user, &["+mget", "+copy", "+subscribe", "+publish", "&c*", "&d"]).unwrap();
    apply(&mut user, &["(%R~r* %W~w* +copy +set)", "(~* +del)", "(+psubscribe &p? &*)"]).unwrap();
    for (words, expected) in [
        (&["MGET", "k1:a", "k49:b", "k0:c"][..], Ok(())),
        (&["MGET", "k1:a", "x", "k0:c"], Err(Denied::Key(2))),
        (&["MSET", "k1:a", "1"], Err(Denied::Command)),
        (&["COPY", "r1", "w1"], Ok(())),
        // The first key is allowed by another selector than the second one, which is further behind.
        (&["COPY", "k3:", "w1"], Err(Denied::Key(2))),
        (&["COPY", "w1", "r1"], Err(Denied::Key(1))),
        (&["SET", "w1", "1"], Ok(())),
        (&["SET", "w1", "1", "GET"], Err(Denied::Key(1))),
        (&["DEL", "any", "thing"], Ok(())),
        (&["SUBSCRIBE", "c1", "d", "e"], Err(Denied::Channel(3))),
        (&["PSUBSCRIBE", "any*"], Ok(())),
        (&["PUBLISH", "d", "x"], Ok(())),
    ] {
        for step_ns in [1, 20, 100, 1000] {
            assert_eq!(in_steps(&user, words, step_ns).0, expected, "{words:?}");
        }
    }
    // A pattern at a time, and of many keys no more of them than there is time for.
    assert_eq!(in_steps(&user, &["MGET", "x"], 1).1, 51);
    let keys: Vec<String> = (0..100).map(|i| format!("k49:{i}")).collect();
    let words: Vec<&str> =
        core::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
    let (few, many) = (in_steps(&user, &words, 100_000).1, in_steps(&user, &words, 1000).1);
    assert!(few == 1 && (40..200).contains(&many), "{few} {many}");
    // What no key can be is not compared at all, and a long one not in one piece.
    let long = "k".repeat(60_000);
    apply(&mut user, &["~*1", "~*2", "~*3"]).unwrap();
    assert!(in_steps(&user, &["MGET", &long], 50_000).1 >= 3);
}
