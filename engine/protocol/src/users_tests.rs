//! Tests of users and of what may become of them.

use super::*;
use alloc::format;
use alloc::vec;
use serde_json::json;

fn set(name: &str, rules: &str) -> UserLine {
    UserLine { name: name.into(), line: Some(format!("user {name} {rules}")) }
}

fn removed(name: &str) -> UserLine {
    UserLine { name: name.into(), line: None }
}

fn changes(changes: Vec<UserLine>) -> UserChanges {
    UserChanges { given: Vec::new(), changes }
}

/// Users of these names, of version 1.
fn users(names: &[&str]) -> Users {
    let mut users = Users::default();
    let all = names.iter().map(|name| set(name, "on ~* +@all")).collect();
    assert_eq!(users.change(&changes(all)), Ok(true));
    users
}

#[test]
fn they_are_these_documents() {
    let users = users(&["ann"]);
    let json = json!({"version": 1, "lines": ["user ann on ~* +@all"]});
    assert_eq!(serde_json::to_value(&users).unwrap(), json);
    assert_eq!(serde_json::from_value::<Users>(json).unwrap(), users);
    let asked = UserChanges {
        given: vec![removed("bob")],
        ..changes(vec![set("bob", "off"), removed("ann")])
    };
    let json = json!({"given": [{"name": "bob", "line": null}], "changes": [
        {"name": "bob", "line": "user bob off"}, {"name": "ann", "line": null},
    ]});
    assert_eq!(serde_json::to_value(&asked).unwrap(), json);
    assert_eq!(serde_json::from_value::<UserChanges>(json).unwrap(), asked);
    for (answer, json) in [
        (UsersAnswer::Done { version: 4 }, json!({"answer": "done", "version": 4})),
        (UsersAnswer::Undecided, json!({"answer": "undecided"})),
        (
            UsersAnswer::Refused { why: UsersRefusal::Changed { version: 5 } },
            json!({"answer": "refused", "why": {"why": "changed", "version": 5}}),
        ),
        (
            UsersAnswer::Refused { why: UsersRefusal::TooMany },
            json!({"answer": "refused", "why": {"why": "too_many"}}),
        ),
    ] {
        assert_eq!(serde_json::to_value(&answer).unwrap(), json);
        assert_eq!(serde_json::from_value::<UsersAnswer>(json).unwrap(), answer);
    }
}

#[test]
fn a_line_names_its_user() {
    for (line, name) in [
        ("user ann on ~* +@all", Some("ann")),
        ("user ann", Some("ann")),
        ("user é\u{2028} on", Some("é\u{2028}")),
        ("user  on", None),
        ("user ", None),
        ("User ann on", None),
        ("ann on", None),
        ("user ann on\n", None),
        ("user a\tnn on", None),
        ("user ann ~\u{7f}", None),
        ("", None),
    ] {
        assert_eq!(name_of(line), name, "{line:?}");
    }
    let longest = format!("user ann ~{}", "k".repeat(USER_LINE_BYTES_MAX - 10));
    assert_eq!(name_of(&longest), Some("ann"));
    assert_eq!(name_of(&format!("{longest}k")), None);
}

#[test]
fn users_are_set_replaced_and_removed_in_the_order_of_their_names() {
    let mut users = users(&["mia", "ann", "ann2"]);
    let names = |users: &Users| users.each().map(|(name, _)| name.into()).collect::<Vec<String>>();
    assert_eq!(names(&users), ["ann", "ann2", "mia"]);
    let asked = changes(vec![set("ann2", "off"), removed("ann"), set("bob", "on")]);
    assert_eq!(users.change(&asked), Ok(true));
    assert_eq!(users.lines, ["user ann2 off", "user bob on", "user mia on ~* +@all"]);
    assert_eq!((users.version, users.check()), (2, Ok(())));
    assert_eq!((users.line("ann2"), users.line("ann")), (Some("user ann2 off"), None));
    // The later one of a name counts.
    let asked = changes(vec![set("bob", "off"), removed("bob"), set("bob", "on -@all")]);
    assert_eq!(users.change(&asked), Ok(true));
    assert_eq!(users.line("bob"), Some("user bob on -@all"));
}

#[test]
fn changes_are_made_while_what_was_given_is_so_or_not_at_all() {
    let mut users = users(&["ann", "eve"]);
    let present = set("ann", "on ~* +@all");
    for other in [removed("ann"), set("ann", "off"), set("bob", "off")] {
        let given = vec![present.clone(), other];
        let refused = users.change(&UserChanges { given, changes: vec![removed("eve")] });
        assert_eq!(refused, Err(UsersRefusal::Changed { version: 1 }));
    }
    assert_eq!((users.version, users.lines.len()), (1, 2));
    // What is so already is no change that anybody has to be told of.
    let same = changes(vec![present.clone(), removed("nobody")]);
    assert_eq!(users.change(&same), Ok(false));
    assert_eq!(users.version, 1);
    // What became of others does not matter.
    assert_eq!(users.change(&changes(vec![removed("eve")])), Ok(true));
    let given = vec![present, removed("bob")];
    assert_eq!(users.change(&UserChanges { given, changes: vec![set("bob", "on")] }), Ok(true));
    assert_eq!((users.version, users.lines.len()), (3, 2));
}

#[test]
fn one_bad_change_spoils_all() {
    let mut users = users(&["ann"]);
    let before = users.clone();
    let other = UserLine { name: "bob".into(), line: Some("user eve on".into()) };
    let bare = UserLine { name: "bob".into(), line: Some("bob on".into()) };
    for bad in [other, bare, set("a b", "on"), set("", "on"), removed(""), removed("a\nb")] {
        let refused = users.change(&changes(vec![set("new", "on"), bad.clone()]));
        assert_eq!(refused, Err(UsersRefusal::BadLine), "{bad:?}");
        let given = UserChanges { given: vec![bad.clone()], changes: vec![set("new", "on")] };
        assert_eq!(users.change(&given), Err(UsersRefusal::BadLine), "{bad:?}");
    }
    let long = set("bob", &"k".repeat(USER_LINE_BYTES_MAX));
    assert_eq!(users.change(&changes(vec![long])), Err(UsersRefusal::BadLine));
    let long = removed(&"n".repeat(USER_LINE_BYTES_MAX));
    assert_eq!(users.change(&changes(vec![long])), Err(UsersRefusal::BadLine));
    assert_eq!(users, before);
}

#[test]
fn users_are_bounded_in_number_and_in_bytes() {
    let mut users = Users::default();
    let all = (0..USERS_MAX).map(|i| set(&format!("u{i}"), "on")).collect();
    assert_eq!(users.change(&changes(all)), Ok(true));
    let one_more = changes(vec![set("z", "on")]);
    assert_eq!(users.change(&one_more), Err(UsersRefusal::TooMany));
    let in_its_place = changes(vec![set("z", "on"), removed("u7")]);
    assert_eq!(users.change(&in_its_place), Ok(true));
    let many = (0..=USERS_MAX).map(|_| removed("u8")).collect();
    assert_eq!(users.change(&changes(many)), Err(UsersRefusal::TooMany));

    let mut users = Users::default();
    let great = |i: usize| set(&format!("u{i:03}"), &"k".repeat(USER_LINE_BYTES_MAX - 10));
    let at_once = USER_CHANGES_BYTES_MAX / (USER_LINE_BYTES_MAX + 4);
    let too_much = changes((0..=at_once).map(great).collect());
    assert_eq!(users.change(&too_much), Err(UsersRefusal::TooLong));
    let most = USERS_BYTES_MAX / USER_LINE_BYTES_MAX;
    for i in 0..most {
        assert_eq!(users.change(&changes(vec![great(i)])), Ok(true), "{i}");
    }
    let refused = users.change(&changes(vec![great(most)]));
    assert_eq!(refused, Err(UsersRefusal::TooLong));
    assert_eq!((users.version, users.lines.len()), (most as u64, most));
}

#[test]
fn the_longest_document_fits_a_message_however_it_is_written() {
    // A quote is two bytes of JSON, and nothing that may stand in a line is more.
    let quotes = |bytes| "\"".repeat(bytes);
    let line = format!("user u ~{}", quotes(USER_LINE_BYTES_MAX - 8));
    let count = USERS_BYTES_MAX / USER_LINE_BYTES_MAX;
    let users = Users { version: u64::MAX, lines: vec![line; count] };
    assert!(serde_json::to_string(&users).unwrap().len() < 2 * USERS_BYTES_MAX + 64 * 1024);
    let change = UserLine { name: "u".into(), line: users.lines.first().cloned() };
    let asked = changes(vec![change; USER_CHANGES_BYTES_MAX / USER_LINE_BYTES_MAX]);
    assert!(serde_json::to_string(&asked).unwrap().len() < 2 * USER_CHANGES_BYTES_MAX + 64 * 1024);
}

#[test]
fn what_was_read_may_be_no_users() {
    let with =
        |lines: &[&str]| Users { version: 1, lines: lines.iter().map(|&l| l.into()).collect() };
    assert_eq!(with(&["user a on", "user b on"]).check(), Ok(()));
    assert_eq!(with(&[]).check(), Ok(()));
    for bad in [
        with(&["user b on", "user a on"]),
        with(&["user a on", "user a off"]),
        with(&["user a on", "nonsense"]),
    ] {
        assert_eq!(bad.check(), Err(UsersRefusal::BadLine), "{bad:?}");
    }
    let many = Users { version: 1, lines: (0..2000).map(|i| format!("user u{i:04} on")).collect() };
    assert_eq!(many.check(), Err(UsersRefusal::TooMany));
    let line = |i| format!("user u{i:04} ~{}", "k".repeat(USER_LINE_BYTES_MAX - 20));
    let long = Users { version: 1, lines: (0..100).map(line).collect() };
    assert_eq!(long.check(), Err(UsersRefusal::TooLong));
}
