//! Rules, lines and refusals, as Redis 7.0 has them.

use super::{Acl, User};
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
    assert_eq!(User::of_line(&line).unwrap().line(), line);
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
    assert!(acl.authenticate(b"default", &[7; 32]).is_some());
    assert!(acl.authenticate(b"default", &[8; 32]).is_none());
}
