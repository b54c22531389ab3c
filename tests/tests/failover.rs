//! Stores with copies whose nodes, managers, machines and cables fail under load, few rounds of each. The full counts are
//! `cargo run --release -p dkv-tests --bin failover`.

use dkv_tests::failover::faults::Kind;
use dkv_tests::failover::site::Site;
use dkv_tests::failover::wire::{Reply, Wire};
use dkv_tests::failover::{Options, Round, Trial, apart, errors};
use dkv_tests::machine::{PATIENCE, kill, until};
use std::process::Stdio;

/// Rounds of these kinds, one after the other on one store.
#[track_caller]
fn rounds(site: impl FnOnce() -> Site + Send + 'static, kinds: &'static [Kind]) -> Vec<Round> {
    apart(move || {
        let mut trial = Trial::new(site(), Options::default());
        let one = |kind: &Kind| {
            let round = trial.round(*kind);
            eprintln!("{}: {round:?}", kind.name());
            assert!(round.is_sound(), "{}: {:#?}", kind.name(), round.wrong);
            assert!(round.answered > 0, "{}: nothing was answered", kind.name());
            round
        };
        kinds.iter().map(one).collect()
    })
}

#[test]
fn nodes_die_one_after_the_other_and_nothing_answered_is_lost() {
    rounds(|| Site::of_nodes(3), &[Kind::Kill, Kind::Kill, Kind::Kill]);
}

#[test]
fn processes_that_stand_still_lose_nothing_and_serve_nothing_old() {
    let kinds = &[Kind::Pause, Kind::Slow, Kind::Pause];
    rounds(|| Site::of_nodes(3), kinds);
}

#[test]
fn managers_that_die_or_stand_still_disturb_nobody() {
    let kinds = &[Kind::PauseAgent, Kind::KillAgent, Kind::KillAgent];
    let rounds = rounds(|| Site::of_nodes(3), kinds);
    // In the last of them a node died, too.
    assert_eq!(errors(&rounds[0].errors), "none");
    assert_eq!(errors(&rounds[1].errors), "none");
}

#[test]
fn machines_and_cables_fail_and_nothing_answered_is_lost() {
    let kinds = &[Kind::Machine, Kind::Cable, Kind::OneWay, Kind::Partial, Kind::Flap, Kind::Loss];
    let rounds = rounds(|| Site::of_machines(3), kinds);
    let (served_ms, _) = rounds[1].cut_off_ms.expect("clients were on the cut side");
    // A second of lease, and what a busy machine adds to a look at the clock.
    assert!(served_ms < 2000.0, "the cut side served for {served_ms} ms");
}

#[test]
fn what_is_done_on_purpose_is_seen_by_no_client() {
    apart(|| {
        let site = Site::of_nodes(3);
        let stop = site.clients().path("stop");
        let port = site.nodes[0].client.port().to_string();
        let steady = |kind: &str| {
            let stop = stop.to_str().expect("a plain path");
            let args = [kind, site.clients().address.as_str(), &port, stop];
            let mut command = site.clients().python_command("steady.py", &args);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("ip (Debian: iproute2) is installed")
        };
        let children = ["plain", "cluster"].map(steady);
        let mut trial = Trial::new(site, Options { is_quiet: false, ..Options::default() });
        for kind in [Kind::Handover, Kind::Rolling, Kind::Resize] {
            let round = trial.round(kind);
            assert!(round.is_sound(), "{}: {:#?}", kind.name(), round.wrong);
            assert_eq!(errors(&round.errors), "none", "{}", kind.name());
        }
        std::fs::write(&stop, "").expect("the machine's directory can be written");
        for child in children {
            let output = child.wait_with_output().expect("a child can be waited for");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains(", 0 errors"), "{said}{errors}");
        }
    });
}

#[test]
fn ranges_whose_copies_are_all_gone_say_so_and_are_never_empty() {
    apart(|| {
        let mut site = Site::of_nodes(2);
        site.clients().entrance().enter();
        assert!(site.whole(&[], PATIENCE).is_some(), "{}", site.complaint());
        let keys: Vec<String> = (0..100).map(|number| format!("key:{number}")).collect();
        let ask = |site: &Site, entry: usize, line: &str| {
            let mut wire = Wire::connect(site.nodes[entry].client, PATIENCE).ok()?;
            wire.ask(line).ok()
        };
        for key in &keys {
            let reply = ask(&site, 0, &format!("SET {key} v"));
            assert_eq!(reply, Some(Reply::Simple("OK".into())));
        }
        site.look();
        let gone: Vec<u32> = site.nodes.iter().filter_map(|node| node.pid).collect();
        assert_eq!(gone.len(), 2);
        for pid in gone {
            kill(pid);
        }
        // Whatever the new processes are asked from their first moment on: nothing is not an answer.
        let mut down = 0;
        until("both nodes are back and say it of every key", || {
            let replies = keys.iter().flat_map(|key| [0, 1].map(|entry| (key, entry)));
            let replies: Vec<Option<Reply>> =
                replies.map(|(key, entry)| ask(&site, entry, &format!("GET {key}"))).collect();
            let empty = replies.iter().filter(|reply| **reply == Some(Reply::Bulk(None))).count();
            assert_eq!(empty, 0, "keys that were written are not there, and nothing says why");
            let says = |reply: &Option<Reply>| matches!(reply, Some(Reply::Error(text)) if text.starts_with("CLUSTERDOWN"));
            down = replies.iter().filter(|reply| says(reply)).count();
            down == replies.len()
        });
        let refused = ask(&site, 0, "SET key:1 w");
        assert!(matches!(&refused, Some(Reply::Error(text)) if text.starts_with("CLUSTERDOWN")));
    });
}
