//! Two machines: what their managers say will happen when one of them or the cable between them fails is what happens,
//! without a witness and with one.

use dkv_tests::failover::faults::Kind;
use dkv_tests::failover::site::{STORE, Site};
use dkv_tests::failover::wire::{Reply, Wire};
use dkv_tests::failover::{Options, Round, Trial, apart};
use dkv_tests::machine::{PATIENCE, kill, until};
use std::time::Duration;

/// Milliseconds that a machine or a cable is away: who is served before needed nobody's help.
const AWAY_MS: f64 = 4000.0;

#[track_caller]
fn round(trial: &mut Trial, kind: Kind, machine: usize) -> Round {
    let round = trial.round_at(kind, Some(machine));
    eprintln!("{} {machine}: {round:?}", kind.name());
    assert!(round.is_sound(), "{} {machine}: {:#?}", kind.name(), round.wrong);
    round
}

#[test]
fn without_a_witness_the_first_machine_goes_on_alone_and_the_second_does_not() {
    apart(|| {
        let site = Site::of_machines(2);
        let status = site.dkv(1, "manager status").ok();
        status.clone().says(&["10.77.0.12:7801", "take over by themselves"]);
        status.says(&["10.77.0.11:7801", "promoted by hand", "--force"]);
        let mut trial = Trial::new(site, Options::default());
        let node = round(&mut trial, Kind::Kill, 0);
        assert!(node.gap_ms < AWAY_MS, "a node is taken over from: {node:?}");
        let second = round(&mut trial, Kind::Machine, 1);
        assert!(second.gap_ms < AWAY_MS, "the first goes on: {second:?}");
        let first = round(&mut trial, Kind::Machine, 0);
        assert!(first.gap_ms >= AWAY_MS, "the second must not decide: {first:?}");
        let cut = round(&mut trial, Kind::Cable, 1);
        assert!(cut.gap_ms < AWAY_MS, "the first goes on: {cut:?}");
        let (served_ms, _) = cut.cut_off_ms.expect("clients were on the cut side");
        assert!(served_ms < AWAY_MS / 2.0, "the second stops: {cut:?}");
    });
}

#[test]
fn with_a_witness_either_machine_goes_on_alone() {
    apart(|| {
        let site = Site::with_witness();
        let status = site.dkv(1, "manager status").ok();
        status.clone().says(&["10.77.0.11:7801", "take over by themselves"]);
        status.says(&["10.77.0.12:7801", "take over by themselves"]);
        let mut trial = Trial::new(site, Options::default());
        for machine in [0, 1] {
            let dead = round(&mut trial, Kind::Machine, machine);
            assert!(dead.gap_ms < AWAY_MS, "the other goes on: {dead:?}");
            let cut = round(&mut trial, Kind::Cable, machine);
            assert!(cut.gap_ms < AWAY_MS, "the other goes on: {cut:?}");
            let (served_ms, _) = cut.cut_off_ms.expect("clients were on the cut side");
            assert!(served_ms < AWAY_MS / 2.0, "what is cut off stops: {cut:?}");
        }
        round(&mut trial, Kind::Partial, 0);
    });
}

#[test]
fn the_second_machine_is_promoted_by_hand_and_lacks_nothing() {
    apart(|| {
        let mut site = Site::of_machines(2);
        site.clients().entrance().enter();
        assert!(site.placed(PATIENCE).is_some(), "{}", site.complaint());
        let ask = |site: &Site, node: usize, line: &str| {
            let wire = Wire::connect(site.nodes[node].client, Duration::from_secs(2));
            wire.and_then(|mut wire| wire.ask(line))
        };
        for key in 0..100 {
            let reply = ask(&site, 0, &format!("SET held:{key} {key}"));
            assert_eq!(reply, Ok(Reply::Simple("OK".into())));
        }
        site.cable(0, false);
        site.kill_manager(0);
        for pid in site.machine(0).pids("node") {
            kill(pid);
        }
        let promote =
            format!("dkv store failover {STORE} --force --gone 10.77.0.11:7801 -m 10.77.0.12:7801");
        let unknown = promote.replace("10.77.0.11", "10.77.0.99");
        let unknown = site.shell(1, &format!("echo 10.77.0.99:7801 | {unknown}"));
        assert_ne!(unknown.code, 0, "{}", unknown.all());
        assert!(!unknown.all().contains("Type "), "asked in vain: {}", unknown.all());
        let wrong = site.shell(1, &format!("echo yes | {promote}"));
        assert_ne!(wrong.code, 0, "{}", wrong.all());
        let keys: Vec<String> = (0..100).map(|key| format!("held:{key}")).collect();
        let gets: Vec<[&[u8]; 2]> = keys.iter().map(|key| [&b"GET"[..], key.as_bytes()]).collect();
        let gets: Vec<&[&[u8]]> = gets.iter().map(<[&[u8]; 2]>::as_slice).collect();
        let served = |site: &Site| {
            let wire = Wire::connect(site.nodes[1].client, PATIENCE);
            let replies = wire.and_then(|mut wire| wire.calls(&gets)).unwrap_or_default();
            assert!(!replies.contains(&Reply::Bulk(None)), "a key is not there any more");
            let right = |(key, reply): &(usize, Reply)| reply.text() == key.to_string();
            replies.into_iter().enumerate().filter(right).count()
        };
        assert!(served(&site) < 100, "nobody decided, and yet all is served");
        site.shell(1, &format!("echo 10.77.0.11:7801 | {promote}")).ok();
        until("the second machine serves all of it", || served(&site) == 100);
        assert_eq!(ask(&site, 1, "SET held:1 again"), Ok(Reply::Simple("OK".into())));
    });
}
