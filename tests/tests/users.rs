//! Users of a store: set once, through any node or through the managers, and the same on every node from then on.

use dkv_tests::machine::{Machine, Network, until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CREATE: &str = "store create S --instance-prefix n --instance-count 2 --cpus 1 --clustron-port 7811 --client-port 7861";

/// A store of two nodes that run, with its manager.
fn two_nodes(machine: &Machine, options: &str) {
    machine.dkv("connect -m 127.0.0.1:7801").ok();
    machine.dkv(&format!("{CREATE} {options}")).ok();
    machine.dkv("store start S").ok();
    until("the store serves", || {
        (7861..=7862).all(|port| {
            let set = machine.redis("127.0.0.1", port, &["set", "first", "1"]);
            set == "OK" && machine.redis("127.0.0.1", port, &["cluster", "info"]).contains(":ok")
        })
    });
}

/// What a user is answered at a node.
fn by(machine: &Machine, port: u16, user: &str, password: &str, command: &[&str]) -> String {
    let mut all = vec!["--no-auth-warning", "--user", user, "--pass", password];
    all.extend(command);
    machine.redis("127.0.0.1", port, &all)
}

/// Whether the other end closes the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("settable");
    let mut rest = [0; 64];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                use std::io::ErrorKind::{TimedOut, WouldBlock};
                return !matches!(error.kind(), WouldBlock | TimedOut);
            }
        }
    }
}

fn set_once_and_the_same_on_both(options: &str) {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    two_nodes(&machine, options);
    let rules =
        ["acl", "setuser", "bob", "on", ">pw", "~app:*", "+@read", "+@write", "-@dangerous"];
    assert_eq!(machine.redis("127.0.0.1", 7861, &rules), "OK");
    until("the other node knows him", || {
        by(&machine, 7862, "bob", "pw", &["set", "app:1", "x"]) == "OK"
    });
    for port in [7861, 7862] {
        assert_eq!(by(&machine, port, "bob", "pw", &["get", "app:1"]), "x");
        for refused in [&["get", "other"][..], &["flushall"], &["acl", "list"]] {
            let answer = by(&machine, port, "bob", "pw", refused);
            assert!(answer.contains("NOPERM"), "{port} {refused:?}: {answer}");
        }
        let wrong = machine.redis("127.0.0.1", port, &["auth", "bob", "wrong"]);
        assert!(wrong.contains("WRONGPASS"), "{wrong}");
    }
    let listed = machine.dkv("store user list S").ok();
    listed.says(&["default", "nopass"]).says(&["bob", "~app:*"]);

    // Over a deliberate stop, and a new manager.
    machine.dkv("store stop S").ok();
    machine.dkv("store start S").ok();
    until("he is known after a start", || {
        by(&machine, 7862, "bob", "pw", &["set", "app:1", "y"]) == "OK"
    });

    // Who is deleted is sent away everywhere.
    let mut streams: Vec<TcpStream> = machine.inside(|| {
        let of = |port: u16| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.write_all(b"AUTH bob pw\r\n").expect("sent");
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).expect("answered");
            assert_eq!(&answer, b"+OK\r\n");
            stream
        };
        vec![of(7861), of(7862)]
    });
    assert_eq!(machine.redis("127.0.0.1", 7862, &["acl", "deluser", "bob"]), "1");
    for stream in &mut streams {
        until("his connections are closed", || is_closed(stream));
    }
    until("no node knows him", || {
        let login = |port| machine.redis("127.0.0.1", port, &["auth", "bob", "pw"]);
        [7861, 7862].into_iter().all(|port| login(port).contains("WRONGPASS"))
    });
}

#[test]
fn a_user_is_set_once_and_the_same_on_both_nodes() {
    set_once_and_the_same_on_both("");
}

#[test]
fn the_same_in_a_store_with_copies() {
    set_once_and_the_same_on_both("--replicas 1");
}

#[test]
fn the_command_line_sets_users_and_can_be_one() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    two_nodes(&machine, "");
    machine.file("bob.password", "pw\n");
    let file = machine.path("bob.password").display().to_string();
    let set =
        |rest: &str| machine.dkv(&format!("store user set --user-password-file {file} S {rest}"));
    set("bob on ~app:* +@all -flushall").ok().says(&["bob"]);
    set("bob +nosuchcommand").fails(2).says(&["nosuchcommand"]);
    machine.dkv("store show S").ok().says(&["no password"]);
    machine.dkv("store user set S default off").ok();
    machine.dkv("store show S").ok().says(&["as a user"]);
    machine.dkv("store show S -o json").ok().says(&["\"password\": true"]);
    let as_bob = |line: &str| machine.dkv(&format!("{line} --user bob --password-file {file}"));
    until("the default user is off", || machine.dkv("kv get app:1").code != 0);
    until("bob may write", || as_bob("kv set app:1 x").code == 0);
    machine.dkv("kv get app:1").fails(1).says(&["NOAUTH"]).says(&["--user"]);
    as_bob("kv get app:1").ok().says(&["x"]);
    as_bob("kv get other").fails(1).says(&["NOPERM"]).says(&["dkv store user list"]);
    as_bob("store verify S").ok();
    // Who has locked himself out is let in again.
    machine.dkv("store user remove S default").ok();
    until("the default user is back", || machine.dkv("kv get app:1").code == 0);
    machine.dkv("store user remove S bob").ok();
    machine.dkv("store user remove S bob").fails(1).says(&["bob"]);
    machine.dkv("store user list S").ok().says(&["default", "nopass"]);
}

const TOKEN: &str = "7f1c9a52e04b4d6688c3a1f0be7725d97f1c9a52e04b4d6688c3a1f0be7725d9";

#[test]
fn two_machines_have_the_same_users_and_the_one_that_decides_outlives_the_other() {
    let network = Network::of(2);
    let [a, b] = &network.machines[..] else { panic!("two machines") };
    let manager = |machine: &Machine| {
        let token = machine.file("group.token", TOKEN);
        let listen = format!("{}:7801", machine.address);
        machine.manager(&["--listen", &listen, "--token-file", token.to_str().expect("plain")])
    };
    let dkv = |line: &str| {
        let mut command = a.command("dkv", &line.split_whitespace().collect::<Vec<_>>());
        command.env("DKV_TOKEN_FILE", a.path("group.token"));
        a.run_command(command)
    };
    let (_a, of_b) = (manager(a), manager(b));
    until("the managers are together", || dkv("connect -m 10.77.0.11,10.77.0.12").code == 0);
    dkv("store create S --instance-prefix n --instance-count 1 --cpus 1 --replicas 1 --no-protected-mode").ok();
    dkv("store start S").ok();
    let at = |host: &str, args: &[&str]| a.redis(host, 7861, args);
    let login = |host: &str| at(host, &["auth", "bob", "pw"]);
    until("users can be set", || {
        at("10.77.0.12", &["acl", "setuser", "bob", "on", ">pw", "~*", "+@read"]) == "OK"
    });
    until("both let him in", || login("10.77.0.11") == "OK" && login("10.77.0.12") == "OK");
    // The manager of the second machine is gone; the first goes on deciding, and tells its own node.
    of_b.kill();
    dkv("store user set -m 10.77.0.11 S bob off").ok();
    until("he is not let in here", || login("10.77.0.11").contains("WRONGPASS"));
    assert_eq!(login("10.77.0.12"), "OK", "nobody could tell this node");
    let _b = manager(b);
    until("nor there", || login("10.77.0.12").contains("WRONGPASS"));
}
