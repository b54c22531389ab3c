//! Users, what they may do, and how they are changed.

mod store;

use dkv_protocol::users::UsersRefusal;
use dkv_shard::{PortKind, UsersOutcome};
use store::{PLAIN, Settings, Store, command, key_of};

const OK: &str = "+OK\r\n";
const NO_KEY: &str =
    "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n";
const NO_CHANNEL: &str =
    "-NOPERM this user has no permissions to access one of the channels used as arguments\r\n";
const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

fn no_command(name: &str) -> String {
    format!("-NOPERM this user has no permissions to run the '{name}' command\r\n")
}

trait Words {
    /// As a client sends them.
    fn as_command(&self) -> Vec<u8>;
}

impl Words for [&str] {
    fn as_command(&self) -> Vec<u8> {
        command(self)
    }
}

/// A client of a shard that is a user without a password and with these rules.
fn user(store: &mut Store, admin: usize, name: &str, rules: &[&str]) -> usize {
    let words = ["ACL", "SETUSER", name, "on", "nopass"];
    assert_eq!(store.call(admin, &[&words[..], rules].concat()), OK);
    let client = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(client, &["AUTH", name, "any"]), OK);
    client
}

#[test]
fn a_user_set_on_one_node_is_the_same_on_another_and_may_do_what_its_rules_say() {
    let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let admin = store.connect(0, 0, PortKind::Client);
    let rules = ["on", ">secret", "~a:*", "%R~b:*", "+@read", "+set", "+mget", "+copy"];
    let words = [&["ACL", "SETUSER", "ann"][..], &rules].concat();
    assert_eq!(store.call(admin, &words), OK);
    let ann = store.connect(1, 1, PortKind::Client);
    assert_eq!(store.call(ann, &["AUTH", "ann", "wrong"]), WRONG);
    assert_eq!(store.call(ann, &["AUTH", "nobody", "secret"]), WRONG);
    assert_eq!(store.call(ann, &["ACL", "WHOAMI"]), "$7\r\ndefault\r\n");
    assert_eq!(store.call(ann, &["AUTH", "ann", "secret"]), OK);
    // The keys are anybody's: some are of the other node, which does not ask again.
    for i in 0..20 {
        assert_eq!(store.call(ann, &["SET", &format!("a:{i}"), "1"]), OK);
        assert_eq!(store.call(ann, &["GET", &format!("b:{i}")]), "$-1\r\n");
        assert_eq!(store.call(ann, &["SET", &format!("b:{i}"), "1"]), NO_KEY);
        assert_eq!(store.call(ann, &["GET", &format!("c:{i}")]), NO_KEY);
        assert_eq!(store.call(ann, &["MGET", "a:1", &format!("c:{i}")]), NO_KEY);
    }
    // Of SET with GET the old value is read; of COPY the first key is read and the second one written.
    assert_eq!(store.call(ann, &["SET", "b:1", "1", "GET"]), NO_KEY);
    assert_eq!(store.call(ann, &["COPY", "{b:}1", "a:{b:}1"]), NO_KEY);
    assert_eq!(store.call(ann, &["COPY", "b:{x}1", "a:{x}1"]), ":0\r\n");
    assert_eq!(store.call(ann, &["COPY", "a:{x}1", "b:{x}1"]), NO_KEY);
    assert_eq!(store.call(ann, &["DEL", "a:1"]), no_command("del"));
    assert_eq!(store.call(ann, &["CONFIG", "SET", "a", "b"]), no_command("config|set"));
    assert_eq!(
        store.call(ann, &["CONFIG", "NOPE"]),
        "-ERR unknown subcommand 'NOPE'. Try CONFIG HELP.\r\n"
    );
    assert_eq!(store.call(ann, &["GET"]), "-ERR wrong number of arguments for 'get' command\r\n");
    assert_eq!(store.call(ann, &["ACL", "WHOAMI"]), no_command("acl|whoami"));
    assert_eq!(store.call(ann, &["PING"]), no_command("ping"));
    let list = store.call(admin, &["CLIENT", "LIST"]);
    assert!(list.contains(" user=default ") && !list.contains("secret"), "{list}");
    assert_eq!(store.call(ann, &["RESET"]), "+RESET\r\n");
    assert_eq!(store.call(ann, &["ACL", "WHOAMI"]), "$7\r\ndefault\r\n");
}

#[test]
fn selectors_allow_besides_the_root_and_each_as_a_whole() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let rules = ["~r*", "+get", "(~w*", "+set)", "(+incr ~*)"];
    let client = user(&mut store, admin, "sel", &rules);
    assert_eq!(store.call(client, &["GET", "r1"]), "$-1\r\n");
    assert_eq!(store.call(client, &["SET", "w1", "1"]), OK);
    assert_eq!(store.call(client, &["GET", "w1"]), NO_KEY);
    assert_eq!(store.call(client, &["SET", "r1", "1"]), NO_KEY);
    assert_eq!(store.call(client, &["INCR", "anything"]), ":1\r\n");
    assert_eq!(store.call(client, &["DECR", "anything"]), no_command("decr"));
    let line = "user sel on nopass ~r* resetchannels -@all +get (~w* resetchannels -@all +set) (~* resetchannels -@all +incr)";
    assert!(store.call(admin, &["ACL", "LIST"]).contains(line));
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "sel", "clearselectors"]), OK);
    assert_eq!(store.call(client, &["INCR", "anything"]), no_command("incr"));
}

#[test]
fn channels_are_held_to_their_patterns_and_who_may_not_hear_any_more_is_closed() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let rules = ["&news.*", "&all*", "+@pubsub", "+ping"];
    let client = user(&mut store, admin, "sub", &rules);
    assert_eq!(store.call(client, &["PUBLISH", "other", "x"]), NO_CHANNEL);
    assert_eq!(store.call(client, &["PUBLISH", "news.1", "x"]), ":0\r\n");
    assert_eq!(store.call(client, &["SUBSCRIBE", "news.1", "other"]), NO_CHANNEL);
    // A pattern is allowed when the very same one is.
    assert_eq!(store.call(client, &["PSUBSCRIBE", "news.?"]), NO_CHANNEL);
    assert!(store.call(client, &["PSUBSCRIBE", "all*"]).contains("all*\r\n:1"));
    assert!(store.call(client, &["SUBSCRIBE", "news.1"]).contains("news.1\r\n:2"));
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "sub", "&more"]), OK);
    store.run();
    assert!(!store.clients[client].closed);
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "sub", "resetchannels", "&all*"]), OK);
    store.run();
    assert!(store.clients[client].closed);
}

#[test]
fn rules_that_change_hold_for_connections_that_stand_and_a_deleted_user_has_none() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let admin = store.connect(0, 0, PortKind::Client);
    let rules = ["~*", "+get", "+set", "+multi", "+exec"];
    let client = user(&mut store, admin, "u", &rules);
    let bystander = store.connect(1, 0, PortKind::Client);
    assert_eq!(store.call(client, &["SET", "a", "1"]), OK);
    assert_eq!(store.call(client, &["MULTI"]), OK);
    assert_eq!(store.call(client, &["SET", "a", "2"]), "+QUEUED\r\n");
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "-set"]), OK);
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    assert_eq!(store.call(client, &["EXEC"]), aborted);
    assert_eq!(store.call(client, &["GET", "a"]), "$1\r\n1\r\n");
    assert_eq!(store.call(client, &["SET", "a", "2"]), no_command("set"));
    assert_eq!(store.call(client, &["MULTI"]), OK);
    assert_eq!(store.call(client, &["SET", "a", "2"]), no_command("set"));
    assert_eq!(store.call(client, &["EXEC"]), aborted);
    assert_eq!(
        store.call(admin, &["CLIENT", "KILL", "USER", "nobody"]),
        "-ERR No such user 'nobody'\r\n"
    );
    assert_eq!(store.call(admin, &["ACL", "DELUSER", "u", "nobody", "u"]), ":1\r\n");
    store.run();
    assert!(store.clients[client].closed && !store.clients[bystander].closed);
    assert_eq!(store.call(bystander, &["AUTH", "u", "x"]), WRONG);
    let default = "-ERR The 'default' user cannot be removed\r\n";
    assert_eq!(store.call(admin, &["ACL", "DELUSER", "default"]), default);
    assert_eq!(store.call(admin, &["ACL", "DELUSER", "u"]), ":0\r\n");
}

#[test]
fn a_transaction_that_is_under_way_is_answered_as_it_went() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let admin = store.connect(0, 0, PortKind::Client);
    let client = user(&mut store, admin, "u", &["~*", "&*", "+@all"]);
    let key = key_of(&store, 1, 0, "k");
    assert_eq!(store.call(client, &["MULTI"]), OK);
    assert_eq!(store.call(client, &["INCR", &key]), "+QUEUED\r\n");
    // It waits for the other node before this.
    assert_eq!(store.call(client, &["CLIENT", "GETNAME"]), "+QUEUED\r\n");
    store.delivering = false;
    store.send(client, &command(&["EXEC"]));
    store.run();
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "-exec", "-incr"]), OK);
    store.delivering = true;
    store.run();
    assert_eq!(store.take(client), b"*2\r\n:1\r\n$-1\r\n");
    assert_eq!(store.call(client, &["EXEC"]), {
        "-EXECABORT Transaction discarded because of: NOPERM this user has no permissions to run the 'exec' command\r\n"
    });
    assert_eq!(store.call(admin, &["GET", &key]), "$1\r\n1\r\n");
}

#[test]
fn who_takes_its_own_rights_or_itself_away_is_answered_first() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let one = user(&mut store, admin, "one", &["~*", "+@all"]);
    let pipeline =
        [command(&["ACL", "SETUSER", "one", "-acl"]), command(&["ACL", "WHOAMI"])].concat();
    store.send(one, &pipeline);
    store.run();
    let received = String::from_utf8(store.take(one)).unwrap();
    assert!(received.ends_with(&format!("{OK}{}", no_command("acl|whoami"))), "{received}");
    let two = user(&mut store, admin, "two", &["~*", "+@all"]);
    store.send(two, &command(&["ACL", "DELUSER", "two"]));
    store.run();
    assert!(store.take(two).ends_with(b":1\r\n") && store.clients[two].closed);
}

#[test]
fn the_default_user_may_be_given_a_password_and_new_connections_are_held_to_it() {
    let mut store = Store::new(PLAIN);
    let before = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(before, &["ACL", "SETUSER", "default", ">p", "-@dangerous", "+acl"]), OK);
    let after = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(after, &["GET", "a"]), "-NOAUTH Authentication required.\r\n");
    assert_eq!(store.call(after, &["AUTH", "x"]), WRONG);
    assert!(store.call(after, &["HELLO", "3", "AUTH", "default", "p"]).contains("proto"));
    assert_eq!(store.call(after, &["FLUSHALL"]), no_command("flushall"));
    // Who was there before needs none, and is held to the rules.
    assert_eq!(store.call(before, &["FLUSHALL"]), no_command("flushall"));
    assert_eq!(store.call(before, &["ACL", "SETUSER", "default", "off"]), OK);
    assert_eq!(store.call(after, &["AUTH", "p"]), WRONG);
    assert_eq!(store.call(before, &["ACL", "SETUSER", "default", "on"]), OK);
    // Ten seconds to say who one is, and again after RESET.
    let silent = store.connect(0, 0, PortKind::Client);
    store.now.boot_ns += 9_000_000_000;
    assert_eq!(store.call(silent, &["RESET"]), "+RESET\r\n");
    for _ in 0..3 {
        assert_eq!(store.call(after, &["AUTH", "p"]), OK);
        assert_eq!(store.call(after, &["RESET"]), "+RESET\r\n");
    }
    store.now.boot_ns += 2_000_000_000;
    store.run();
    assert!(store.clients[silent].closed && !store.clients[before].closed);
    assert!(!store.clients[after].closed, "two seconds after it became nobody");
    store.now.boot_ns += 20_000_000_000;
    store.run();
    store.now.boot_ns += 1_000_000_000;
    store.run();
    assert!(store.clients[after].closed && !store.clients[before].closed);
}

#[test]
fn what_is_refused_is_in_the_log_of_the_node_once_with_its_count() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let admin = store.connect(0, 0, PortKind::Client);
    let client = user(&mut store, admin, "u", &["~a", "+get"]);
    let other = store.connect(0, 1, PortKind::Client);
    for _ in 0..3 {
        assert_eq!(store.call(client, &["GET", "b"]), NO_KEY);
    }
    store.now.boot_ns += 1_000_000_000;
    assert_eq!(store.call(other, &["AUTH", "u2", "secret"]), WRONG);
    let log = store.call(admin, &["ACL", "LOG"]);
    assert!(
        log.starts_with("*2\r\n*20\r\n$5\r\ncount\r\n:1\r\n$6\r\nreason\r\n$4\r\nauth\r\n"),
        "{log}"
    );
    let key = "$5\r\ncount\r\n:3\r\n$6\r\nreason\r\n$3\r\nkey\r\n$7\r\ncontext\r\n$8\r\ntoplevel\r\n\
               $6\r\nobject\r\n$1\r\nb\r\n$8\r\nusername\r\n$1\r\nu\r\n";
    assert!(log.contains(key) && log.contains(" user=u ") && !log.contains("secret"), "{log}");
    assert!(store.call(admin, &["ACL", "LOG", "1"]).starts_with("*1\r\n"));
    assert_eq!(store.call(admin, &["ACL", "LOG", "RESET"]), OK);
    assert_eq!(store.call(admin, &["ACL", "LOG"]), "*0\r\n");
}

#[test]
fn a_change_that_lost_a_race_is_made_anew_and_one_that_nobody_decides_is_an_error() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    store.grants = false;
    store.send(admin, &command(&["ACL", "SETUSER", "u", "+get"]));
    store.run();
    assert!(store.clients[admin].received.is_empty());
    let (number, changes) = store.shards[0].1.take_user_changes().expect("asked");
    assert!(changes.given.iter().all(|given| given.line.is_none()), "{changes:?}");
    // Somebody else was first.
    let line = "user u off ~x resetchannels -@all".to_owned();
    store.users.lines.push(line);
    store.users.version = 1;
    store.tell_users();
    let why = UsersRefusal::Changed { version: 1 };
    let answer = dkv_protocol::users::UsersAnswer::Refused { why };
    store.shards[0].1.users_answered(store.now, number, UsersOutcome::Answered(answer));
    store.grants = true;
    store.run();
    assert_eq!(store.take(admin), OK.as_bytes());
    assert_eq!(store.users.lines, ["user u off ~x resetchannels -@all +get"]);
    for (outcome, begins) in
        [(UsersOutcome::Unreachable, "-ERR no manager"), (UsersOutcome::Unanswered, "-UNCERTAIN ")]
    {
        store.grants = false;
        store.send(admin, &command(&["ACL", "SETUSER", "u", "+set"]));
        store.run();
        let (number, _) = store.shards[0].1.take_user_changes().expect("asked");
        store.shards[0].1.users_answered(store.now, number, outcome);
        store.run();
        let reply = String::from_utf8(store.take(admin)).unwrap();
        assert!(reply.starts_with(begins), "{reply}");
    }
    assert_eq!(store.users.lines, ["user u off ~x resetchannels -@all +get"]);
}

/// A change of a user by itself that is on its way to the managers, and what another one does to that user meanwhile.
#[test]
fn whoever_loses_its_rights_or_itself_while_it_changes_users_gets_neither_back() {
    for (revoked, reply) in [
        (&["ACL", "DELUSER", "u"][..], "-NOPERM the user of this connection was removed"),
        (
            &["ACL", "SETUSER", "u", "-acl"],
            "-NOPERM this user has no permissions to run the 'acl|setuser'",
        ),
        (
            &["ACL", "SETUSER", "u", "reset"],
            "-NOPERM this user has no permissions to run the 'acl|setuser'",
        ),
    ] {
        let rules = ["ACL", "SETUSER", "u", "on", ">p", "~*", "+@all"];
        // Of itself, and of another that does its work afterwards.
        for own in [&rules[..], &["ACL", "SETUSER", "heir", "on", "nopass", "+@all"]] {
            let mut store = Store::new(PLAIN);
            let admin = store.connect(0, 0, PortKind::Client);
            assert_eq!(store.call(admin, &rules), OK);
            let user = store.connect(0, 0, PortKind::Client);
            assert_eq!(store.call(user, &["AUTH", "u", "p"]), OK);
            store.grants = false;
            let changed = [own, &["resetkeys", "~one"]].concat();
            store.send(user, &command(&changed));
            store.run();
            let (number, asked) = store.shards[0].1.take_user_changes().expect("asked");
            // The managers decide about the other one first.
            store.grants = true;
            assert!(store.call(admin, revoked).starts_with(['+', ':']), "{revoked:?}");
            let why = store.users.change(&asked).expect_err("it was made of what is no more");
            let answer = dkv_protocol::users::UsersAnswer::Refused { why };
            store.shards[0].1.users_answered(store.now, number, UsersOutcome::Answered(answer));
            store.run();
            let text = String::from_utf8(store.take(user)).unwrap();
            assert!(text.starts_with(reply), "{revoked:?} {text}");
            let line = store.users.line("u").unwrap_or_default();
            assert!(!line.contains("~one") && store.users.line("heir").is_none(), "{line}");
            assert_eq!(store.clients[user].closed, revoked[1] == "DELUSER");
        }
    }
}

#[test]
fn one_user_does_not_take_all_the_room_for_changes() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "on", "nopass", "+@all"]), OK);
    store.grants = false;
    let clients: Vec<usize> = (0..20).map(|_| store.connect(0, 0, PortKind::Client)).collect();
    for client in &clients {
        assert_eq!(store.call(*client, &["AUTH", "u", "p"]), OK);
        store.send(*client, &command(&["ACL", "SETUSER", "other", "on"]));
        store.run();
    }
    let busy = clients.iter().filter(|client| !store.clients[**client].received.is_empty()).count();
    assert_eq!(busy, 16);
    assert_eq!(
        store.take(clients[19]),
        b"-ERR too many changes wait for the managers already; nothing was changed\r\n"
    );
    store.grants = true;
    assert_eq!(store.call(admin, &["ACL", "DELUSER", "u"]), ":1\r\n");
}

#[test]
fn a_dry_run_says_what_would_be_refused() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "~a*", "&c", "+get", "+publish"]), OK);
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let mut dry = |rest: &[&str]| store.call(admin, &[&["ACL", "DRYRUN", "u"][..], rest].concat());
    assert_eq!(dry(&["GET", "a1"]), OK);
    assert_eq!(dry(&["GET", "b"]), bulk("This user has no permissions to access the 'b' key"));
    let channel = bulk("This user has no permissions to access the 'd' channel");
    assert_eq!(dry(&["PUBLISH", "d", "m"]), channel);
    // Commands of one word, and containers with and without a subcommand.
    for (words, name) in [
        (&["PING"][..], "ping"),
        (&["COMMAND"], "command"),
        (&["CONFIG", "GET", "x"], "config|get"),
    ] {
        let text = format!("This user has no permissions to run the '{name}' command");
        assert_eq!(dry(words), bulk(&text));
    }
    assert_eq!(dry(&["GET"]), "-ERR wrong number of arguments for 'get' command\r\n");
    assert_eq!(dry(&["nope"]), "-ERR Command 'nope' not found\r\n");
    assert!(dry(&["CONFIG"]).starts_with("-ERR wrong number of arguments"));
}

#[test]
fn passwords_are_shown_to_nobody() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let onlooker = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(onlooker, &["MONITOR"]), OK);
    assert_eq!(store.call(admin, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]), OK);
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "on", ">hidden", "+@all", "~*"]), OK);
    assert_eq!(store.call(admin, &["AUTH", "u", "hidden"]), OK);
    let key = key_of(&store, 0, 0, "k");
    assert_eq!(store.call(admin, &["GET", &key]), "$-1\r\n");
    let shown = String::from_utf8(store.take(onlooker)).unwrap();
    assert!(shown.contains("\"AUTH\"") && !shown.contains("hidden"), "{shown}");
    let slow = store.call(admin, &["SLOWLOG", "GET", "-1"]);
    assert!(
        slow.contains("SETUSER") && slow.contains("(redacted)") && !slow.contains("hidden"),
        "{slow}"
    );
    let list = store.call(admin, &["CLIENT", "LIST"]);
    assert!(list.contains(" user=u ") && !list.contains("hidden"), "{list}");
}

/// Rules of so many patterns, of which the last one allows keys that begin with `k`.
fn patterns(count: usize) -> Vec<String> {
    (1..count).map(|i| format!("~{i:x}")).chain(["~k*".to_owned()]).collect()
}

fn many_keys(command: &str, count: usize) -> Vec<u8> {
    let keys: Vec<String> = (0..count).map(|i| format!("k{i}")).collect();
    let words: Vec<&str> =
        std::iter::once(command).chain(keys.iter().map(String::as_str)).collect();
    store::command(&words)
}

#[test]
fn many_keys_are_compared_with_many_patterns_in_steps_and_others_have_their_turn() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let many = patterns(1000);
    let rules: Vec<&str> = many.iter().map(String::as_str).chain(["+@all"]).collect();
    let client = user(&mut store, admin, "many", &rules);
    let few = user(&mut store, admin, "few", &["~a*", "~b*", "~k*", "+@all"]);
    let commands = |store: &Store| store.shards[0].1.commands();
    // Few patterns, or all keys, make no difference.
    let before = commands(&store);
    store.input(few, &many_keys("MGET", 500));
    assert_eq!(commands(&store), before + 1, "executed at once");
    store.input(client, &many_keys("MGET", 500));
    assert_eq!(commands(&store), before + 1, "it is not through with the look");
    let mut steps = 0;
    while commands(&store) == before + 1 {
        let now = store.now;
        assert!(store.shards[0].1.background(now, 16));
        steps += 1;
        if steps == 3 {
            // Somebody else is served meanwhile.
            store.input(admin, &command(&["PING"]));
            assert_eq!(commands(&store), before + 2);
            break;
        }
    }
    assert_eq!(steps, 3);
    store.run();
    let nils = "$-1\r\n".repeat(500);
    for one in [few, client] {
        assert_eq!(store.take(one), format!("*500\r\n{nils}").as_bytes());
    }
    // What is refused after a long look is refused once, and what comes behind it is not forgotten.
    store.take(admin);
    let mut pipeline = many_keys("MGET", 250);
    pipeline.extend(command(&["MGET", "x", "k"]));
    pipeline.extend(command(&["GET", "k"]));
    store.send(client, &pipeline);
    store.run();
    let nils = "$-1\r\n".repeat(250);
    assert_eq!(
        String::from_utf8(store.take(client)).unwrap(),
        format!("*250\r\n{nils}{NO_KEY}$-1\r\n")
    );
    // A look that has begun is for nothing when the rules change.
    store.send(client, &many_keys("MGET", 250));
    (0..5).for_each(|_| assert!(store.step()));
    assert!(store.clients[client].received.is_empty());
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "many", "resetkeys", "~x"]), OK);
    store.run();
    assert_eq!(store.take(client), NO_KEY.as_bytes());
}

#[test]
fn a_key_that_cannot_be_one_is_refused_before_it_is_compared() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let client = user(&mut store, admin, "u", &["~a", "+@all"]);
    let long = "k".repeat(65_537);
    let too_long =
        "-ERR key is longer than 65536 bytes; use a shorter key, for example a hash of it\r\n";
    for words in
        [&["GET", &long][..], &["MGET", "b", &long], &["WATCH", &long], &["SET", &long, "1"]]
    {
        assert_eq!(store.call(client, words), too_long, "{}", words[0]);
    }
    assert_eq!(store.call(client, &["GET", &long[1..]]), NO_KEY);
    assert_eq!(store.call(admin, &["ACL", "LOG"]).matches("reason").count(), 1);
    let name = "-ERR the name of a channel is longer";
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "&a"]), OK);
    assert!(store.call(client, &["SUBSCRIBE", &long]).starts_with(name));
    assert!(store.call(client, &["PUBLISH", &long, "x"]).starts_with(name));
}

#[test]
fn refusals_count_as_work() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let client = user(&mut store, admin, "u", &["~a", "+get"]);
    for (words, most) in [(&["GET", "b"][..], 200), (&["NOSUCH"], 1300), (&["GET"], 1300)] {
        let before = store.shards[0].1.commands();
        store.input(client, &command(words).repeat(3000));
        let refused = store.shards[0].1.commands() - before;
        assert!((100..most).contains(&refused), "{refused} times {words:?} in one call");
        store.run();
        assert_eq!(store.shards[0].1.commands() - before, 3000);
        assert!(store.take(client).starts_with(b"-"));
    }
    let log = store.call(admin, &["ACL", "LOG"]);
    assert!(log.contains("$5\r\ncount\r\n:3000\r\n"), "{log}");
    // Another connection of the same user is the one that is shown then.
    let other = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(other, &["AUTH", "u", "x"]), OK);
    assert_eq!(store.call(other, &["GET", "b"]), NO_KEY);
    let log = store.call(admin, &["ACL", "LOG"]);
    assert!(log.contains(":3001\r\n") && log.contains("id=3 ") && !log.contains("id=2 "), "{log}");
}

#[test]
fn what_was_allowed_to_go_on_is_no_permission_for_what_comes_behind_it() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let admin = store.connect(0, 0, PortKind::Client);
    let rules = ["~*", "&*", "+wait", "+subscribe", "+unsubscribe", "+watch", "+set", "+hello"];
    let client = user(&mut store, admin, "u", &rules);
    assert!(store.call(client, &["HELLO", "3"]).contains("proto"));
    let there = key_of(&store, 1, 0, "k");
    let names: Vec<String> = (0..2000).map(|i| i.to_string()).collect();
    let subscribe: Vec<&str> =
        std::iter::once("SUBSCRIBE").chain(names.iter().map(String::as_str)).collect();
    // Each of the first ones is tried again before it is through.
    for words in [&["WATCH", &there][..], &["WAIT", "1", "100"], &subscribe] {
        store.send(client, &[command(words), command(&["GET", &there])].concat());
        store.run();
        store.pass(200);
        let text = String::from_utf8(store.take(client)).unwrap();
        assert!(text.ends_with(&no_command("get")), "{}: {text}", words[0]);
    }
}

#[test]
fn a_long_transaction_is_looked_at_in_steps_when_its_user_changes() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let client = user(&mut store, admin, "u", &["~k", "~{k}x", "+@all"]);
    let begin = |store: &mut Store, last: &str| {
        let mut pipeline = command(&["MULTI"]);
        (0..10_000).for_each(|_| pipeline.extend(command(&["EXISTS", "k"])));
        pipeline.extend(command(&["EXISTS", last]));
        store.send(client, &pipeline);
        store.run();
        store.take(client);
    };
    let aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
    for (last, rule, runs) in
        [("k", "+get", true), ("{k}x", "-get", true), ("{k}x", "resetkeys", false)]
    {
        begin(&mut store, last);
        assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", rule, "~k"]), OK);
        let before = store.shards[0].1.commands();
        store.input(client, &command(&["EXEC"]));
        let at_once = store.shards[0].1.commands() > before;
        store.run();
        let reply = store.take(client);
        let expected: Vec<u8> = if runs {
            format!("*10001\r\n{}", ":0\r\n".repeat(10_001)).into()
        } else {
            aborted.to_vec()
        };
        assert!(reply == expected, "{last} {rule} {}", String::from_utf8_lossy(&reply[..40]));
        assert!(!at_once, "{last} {rule}: the look is not through");
    }
    let log = store.call(admin, &["ACL", "LOG"]);
    assert!(log.contains("multi") && log.contains("$4\r\n{k}x\r\n"), "{log}");
}

/// `SUBSCRIBE`, or another, of so many channels.
fn channels(command: &str, count: usize) -> Vec<u8> {
    let names: Vec<String> = (0..count).map(|i| format!("c{i}")).collect();
    let words: Vec<&str> =
        std::iter::once(command).chain(names.iter().map(String::as_str)).collect();
    store::command(&words)
}

/// The rules of a user change, and CLIENT PAUSE begins, while it is in the middle of a command that goes in steps. What it began
/// is done; then it is held to what it listens to.
#[test]
fn a_command_of_publish_and_subscribe_is_done_before_its_connection_is_held_to_new_rules() {
    const MANY: usize = 1200;
    for (name, rules, closed) in [
        ("PUBLISH", &["resetchannels", "&d"][..], false),
        ("SUBSCRIBE", &["resetchannels", "&c*", "-get"], false),
        ("SUBSCRIBE", &["resetchannels", "&c1*"], true),
        ("SUBSCRIBE", &["+@all", "-get", "-subscribe"], false),
        ("UNSUBSCRIBE", &["resetchannels", "&d"], false),
        ("UNSUBSCRIBE", &["resetchannels", "&c5", "-unsubscribe"], false),
    ] {
        let mut store = Store::new(PLAIN);
        let admin = store.connect(0, 0, PortKind::Client);
        let client = user(&mut store, admin, "u", &["&*", "~*", "+@all", "-set"]);
        if name == "PUBLISH" {
            for _ in 0..MANY {
                let listener = store.connect(0, 0, PortKind::Client);
                store.input(listener, &command(&["SUBSCRIBE", "c"]));
            }
        } else if name == "UNSUBSCRIBE" {
            store.send(client, &channels("SUBSCRIBE", MANY));
        }
        store.run();
        store.take(client);
        let bytes = match name {
            "PUBLISH" => command(&["PUBLISH", "c", "x"]),
            _ => channels(name, MANY),
        };
        let before = store.shards[0].1.commands();
        store.input(client, &bytes);
        assert_eq!(store.shards[0].1.commands(), before, "{name} has begun and is not through");
        store.input(admin, &[&["ACL", "SETUSER", "u"][..], rules].concat().as_command());
        store.input(admin, &command(&["CLIENT", "PAUSE", "60000"]));
        store.run();
        let text = String::from_utf8(store.take(client)).unwrap();
        if closed {
            assert!(store.clients[client].closed, "{rules:?}");
            continue;
        }
        assert!(!store.clients[client].closed, "{name} {rules:?}");
        if name == "PUBLISH" {
            assert_eq!(text, format!(":{MANY}\r\n"));
        } else {
            let word = format!("\r\n{}\r\n", name.to_ascii_lowercase());
            assert_eq!(text.matches(&word).count(), MANY, "{name}");
        }
        // What comes behind it is held to the new rules, and held back.
        let refused = name == "PUBLISH" || rules.len() == 3 && rules[2] != "-get";
        let text = store.call(client, &[name, "c", "cx"]);
        assert_eq!(text.starts_with("-NOPERM"), refused, "{name} {text}");
        assert!(refused || text.is_empty(), "{name} {text}");
        store.now.boot_ns += 61_000_000_000;
        store.run();
        assert_eq!(store.take(client).is_empty(), refused, "{name}");
    }
}

#[test]
fn many_subscriptions_are_looked_at_in_steps_when_the_rules_change() {
    let mut store = Store::new(PLAIN);
    let admin = store.connect(0, 0, PortKind::Client);
    let many: Vec<String> = (0..1000).map(|i| format!("&{i}")).chain(["&c*".to_owned()]).collect();
    let rules: Vec<&str> = many.iter().map(String::as_str).chain(["+@pubsub"]).collect();
    let client = user(&mut store, admin, "u", &rules);
    store.send(client, &channels("SUBSCRIBE", 300));
    store.send(client, &command(&["PSUBSCRIBE", "c*"]));
    store.run();
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "+get"]), OK);
    store.run();
    assert!(!store.clients[client].closed);
    // Its last channel alone is forbidden now. It is told at once, and found in some turns.
    let words = ["ACL", "SETUSER", "u", "resetchannels", "allchannels"];
    assert_eq!(store.call(admin, &words), OK);
    assert!(store.call(client, &["SSUBSCRIBE", "x"]).contains("ssubscribe"));
    let words = [&["ACL", "SETUSER", "u", "resetchannels"][..], &rules].concat();
    store.input(admin, &words.as_command());
    let now = store.now;
    let (number, changes) = store.shards[0].1.take_user_changes().expect("asked");
    store.users.change(&changes).expect("nobody else");
    let users = std::sync::Arc::new(store.users.clone());
    let shard = &mut store.shards[0].1;
    shard.users_are(users);
    let cut = |shard: &mut dkv_shard::Shard| {
        shard.orders().iter().any(|order| matches!(order, dkv_shard::Order::Cut(_)))
    };
    assert!(!cut(shard), "not found in one piece");
    let version = store.users.version;
    let answer = dkv_protocol::users::UsersAnswer::Done { version };
    shard.users_answered(now, number, UsersOutcome::Answered(answer));
    assert!(shard.background(now, 16) && !cut(shard));
    store.run();
    assert!(store.clients[client].closed);
    store.background();
    assert_eq!(store.call(admin, &["PUBSUB", "SHARDCHANNELS"]), format!("{OK}*0\r\n"));
}

#[test]
fn channels_of_shards_are_held_to_the_patterns_of_channels() {
    let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let admin = store.connect(0, 0, PortKind::Client);
    let client = user(&mut store, admin, "u", &["&{news}*", "+@pubsub", "+ping"]);
    for words in [
        &["SSUBSCRIBE", "other"][..],
        &["SSUBSCRIBE", "{news}a", "other{news}"],
        &["SPUBLISH", "other", "x"],
        &["SSUBSCRIBE", "{news}a", "{news}b", "x{news}"],
    ] {
        assert_eq!(store.call(client, words), NO_CHANNEL, "{words:?}");
    }
    assert_eq!(store.call(admin, &["PUBSUB", "SHARDCHANNELS"]), "*0\r\n", "all or nothing");
    let reply = store.call(client, &["SSUBSCRIBE", "{news}a", "{news}b"]);
    assert!(reply.ends_with("{news}b\r\n:2\r\n"), "{reply}");
    let other = user(&mut store, admin, "o", &["&{news}?", "+spublish", "+publish"]);
    assert_eq!(store.call(other, &["SPUBLISH", "{news}a", "x"]), ":1\r\n");
    assert!(store.take(client).ends_with(b"{news}a\r\n$1\r\nx\r\n"));
    assert_eq!(store.call(other, &["SPUBLISH", "{news}ab", "x"]), NO_CHANNEL);
    // Whoever may not publish may not though the channel is its own; and giving up needs no permission for the channel.
    assert_eq!(store.call(other, &["SSUBSCRIBE", "{news}a"]), no_command("ssubscribe"));
    assert!(store.call(client, &["SUNSUBSCRIBE", "other"]).contains("sunsubscribe"));
    assert_eq!(store.call(admin, &["ACL", "SETUSER", "u", "resetchannels", "&{news}a"]), OK);
    store.run();
    assert!(store.clients[client].closed, "it may not hear of the other one any more");
    assert_eq!(store.call(other, &["SPUBLISH", "{news}a", "x"]), ":0\r\n");
}

#[test]
fn a_password_that_nobody_can_have_is_wrong_and_costs_nothing() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let zeros = "0".repeat(64);
    let words = ["ACL", "SETUSER", "u", "on", &format!("#{zeros}")];
    assert_eq!(store.call(client, &words), OK);
    let long = "x".repeat(16 * 1024 + 1);
    for command in [&["AUTH", "u", &long][..], &["HELLO", "3", "AUTH", "u", &long]] {
        assert_eq!(store.call(client, command), WRONG);
    }
    assert_eq!(store.call(client, &["AUTH", "default", &long]), OK, "it takes any password");
}
