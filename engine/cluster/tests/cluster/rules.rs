//! One test per rule, as small as it can be.

use crate::harness::{FIRST, MS, Net, R, addr, settings};
use dkv_cluster::{Refused, Role, Settings};
use dkv_protocol::ids::Epoch;
use dkv_protocol::peer::{BatchHead, Message, begin_batch};
use dkv_protocol::ranges::{Ack, RangeState, ReadMode};

/// Long enough for leases and graces to run out, and for what follows from it.
const LONG_MS: u64 = 2500;

fn cut_off(net: &mut Net, node: usize) {
    for other in 0..net.nodes.len() {
        net.cut.extend([(node, other), (other, node)]);
    }
}

#[test]
fn a_range_that_was_just_formed_is_led_and_a_write_is_answered_once_the_other_holds_it() {
    let mut net = Net::new(2, 2, settings());
    net.run(12);
    assert_eq!(net.primary(), Some(0));
    assert_eq!(net.nodes[1].cluster.role(R), Role::Replica);
    assert_eq!(net.nodes[1].cluster.primary(R), Some(addr(0)));
    let index = net.put(0, "a", b"1").unwrap();
    assert_eq!(index, FIRST + 1);
    assert!(!net.is_answered(0, index));
    assert!(net.nodes[0].cluster.committed_for_reads(R) < index, "a read of it waits too");
    net.run(2);
    assert!(net.is_answered(0, index));
    // The copy learns of the commit with the next beacon at the latest.
    net.run(110);
    net.same();
}

#[test]
fn with_acks_at_once_nothing_waits_and_copies_follow_all_the_same() {
    let mut net = Net::new(2, 2, Settings { ack: Ack::Async, ..settings() });
    net.run(12);
    let index = net.put(0, "a", b"1").unwrap();
    assert!(net.is_answered(0, index));
    net.run(200);
    net.same();
}

#[test]
fn a_copy_that_does_not_lead_refuses_before_anything_is_appended() {
    let mut net = Net::new(2, 2, settings());
    net.run(12);
    assert_eq!(net.put(1, "a", b"1"), Err(Refused::NotPrimary));
    assert_eq!(net.may_read(1), Err(Refused::NotPrimary));
    assert!(!net.nodes[1].cluster.journals(R));
}

#[test]
fn a_primary_that_is_cut_off_neither_reads_nor_writes_and_the_other_takes_over_after_its_grace() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    cut_off(&mut net, 0);
    net.cut.push((0, usize::MAX));
    let waits = net.put(0, "lost", b"1").unwrap();
    net.run(900);
    assert_eq!(net.primary(), Some(0), "the grace has not passed");
    net.run(LONG_MS);
    assert_eq!(net.primary(), Some(1));
    assert_eq!(net.may_read(0), Err(Refused::NoLease));
    assert_eq!(net.put(0, "b", b"1"), Err(Refused::NoLease));
    assert!(!net.is_answered(0, waits), "never on time alone");
    assert!(net.put(1, "c", b"1").is_ok());
    net.run(3000);
    assert!(net.nodes[0].lost.iter().any(|lost| lost.committed < waits), "after five seconds");
    // Back, it hears of the other, gives up what nobody else holds, and comes in as another copy.
    net.cut.clear();
    net.tell_all(false);
    net.run(LONG_MS);
    assert_eq!(net.in_sync(), [0, 1]);
    assert_eq!(net.nodes[0].cluster.view(R).me.generation, 1);
    assert_eq!(net.nodes[1].store.get(R, b"lost"), None);
    net.same();
}

#[test]
fn a_primary_without_its_copy_goes_on_alone_once_the_shrink_is_granted_and_not_before() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    net.crash(1);
    let index = net.put(0, "a", b"1").unwrap();
    net.catalogue.reachable = false;
    net.run(LONG_MS);
    assert!(!net.is_answered(0, index));
    assert_eq!(net.put(0, "b", b"1"), Err(Refused::NoLease));
    net.catalogue.reachable = true;
    net.run(300);
    assert!(net.is_answered(0, index));
    assert_eq!(net.in_sync(), [0]);
    assert!(net.put(0, "b", b"1").is_ok());
    assert!(net.nodes[0].cluster.view(R).degraded);
}

#[test]
fn with_too_few_copies_writes_are_refused_and_reads_go_on() {
    let mut net = Net::new(2, 2, Settings { min_insync: 2, ..settings() });
    net.run(50);
    net.crash(1);
    net.bury(1);
    net.run(50);
    assert_eq!(net.put(0, "a", b"1"), Err(Refused::TooFewCopies));
    assert_eq!(net.may_read(0), Ok(()));
}

#[test]
fn a_copy_that_promised_acknowledges_nothing_more_of_that_epoch() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    // What it sends arrives, what is sent to it does not; nobody decides.
    net.cut.push((0, 1));
    net.catalogue.reachable = false;
    net.run(1300);
    net.cut.clear();
    let before = net.nodes[0].cluster.view(R).copies[0].lease_ns;
    net.run(1000);
    assert_eq!(net.nodes[0].cluster.view(R).copies[0].lease_ns, before);
    assert_eq!(net.may_read(0), Err(Refused::NoLease));
    net.catalogue.reachable = true;
    net.run(LONG_MS);
    assert_eq!((net.primary(), net.in_sync()), (Some(0), vec![0, 1]), "all is as it was");
    assert!(net.catalogue.config.epoch > Epoch(1), "but not in that epoch");
}

#[test]
fn the_dead_primary_is_followed_at_once_when_its_manager_is_certain() {
    let mut net = Net::new(3, 3, settings());
    net.run(50);
    let index = net.put(0, "a", b"1").unwrap();
    net.run(3);
    assert!(net.is_answered(0, index));
    net.crash(0);
    net.bury(0);
    net.run(20);
    assert_eq!(net.primary(), Some(1));
    assert_eq!(net.nodes[1].store.get(R, b"a"), Some((index, b"1".to_vec())));
    assert_eq!(net.may_read(1), Ok(()), "the other copy granted a lease");
    assert!(net.put(1, "b", b"1").is_ok());
}

#[test]
fn what_a_copy_holds_beyond_the_commit_survives_a_change_of_the_epoch() {
    let mut net = Net::new(3, 3, settings());
    net.run(50);
    // Held by 1 and not by 2: not committed, and not lost either when 1 leads.
    net.cut.push((0, 2));
    let index = net.put(0, "a", b"1").unwrap();
    net.run(5);
    assert!(!net.is_answered(0, index));
    net.crash(0);
    net.bury(0);
    net.cut.clear();
    net.run(50);
    assert_eq!(net.primary(), Some(1));
    assert_eq!(net.nodes[1].store.get(R, b"a"), Some((index, b"1".to_vec())));
    net.run(200);
    net.same();
}

#[test]
fn a_suffix_that_contradicts_the_primary_is_replaced() {
    let mut net = Net::new(3, 3, settings());
    net.run(50);
    net.cut.push((0, 2));
    net.put(0, "a", b"1").unwrap();
    net.run(5);
    // 2 leads, which does not hold it.
    net.crash(0);
    net.catalogue.config.in_sync.swap(1, 2);
    net.bury(0);
    assert_eq!(net.primary(), Some(2));
    net.run(50);
    let index = net.put(2, "b", b"2").unwrap();
    assert_eq!(index, FIRST + 1);
    net.run(200);
    assert!(net.is_answered(2, index));
    net.same();
    assert_eq!(net.nodes[1].store.get(R, b"a"), None);
}

#[test]
fn messages_of_an_epoch_that_has_passed_are_answered_with_the_one_that_holds() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    net.catalogue.config.epoch = Epoch(5);
    let news = net.news(false);
    net.tell(1, &news);
    let mut batch = Vec::new();
    begin_batch(&mut batch, BatchHead { boot: net.nodes[0].boot, now_ms: 0 });
    Message::Probe { range: R, epoch: Epoch(4) }.write(&mut batch);
    let node = &mut net.nodes[1];
    node.cluster.peer(net.now_ns, addr(0), &batch, &mut node.store).unwrap();
    let (to, answer) = node.cluster.take_messages(net.now_ns, &mut node.store).unwrap();
    let (_, mut messages) = dkv_protocol::peer::read_batch(&answer).unwrap();
    assert_eq!(to, addr(0));
    assert_eq!(messages.next(), Some(Ok(Message::Fence { range: R, epoch: Epoch(5) })));
}

#[test]
fn a_place_without_a_copy_gets_one_while_the_range_is_written() {
    let mut net = Net::new(2, 1, settings());
    net.run(20);
    assert!(!net.nodes[0].cluster.journals(R), "alone, it keeps no log");
    for n in 0..300 {
        net.put(0, &format!("k{n}"), &[n as u8; 40]).unwrap();
    }
    net.put(0, "great", &vec![7; 300_000]).unwrap();
    net.nodes[1].ahead_ns = 5000 * MS;
    net.put_until(0, "mortal", b"x", 777_000).unwrap();
    net.place(&[0, 1]);
    for n in 0..600u32 {
        net.put(0, &format!("k{}", n % 350), &n.to_le_bytes()).unwrap();
        if n % 7 == 0 {
            net.del(0, &format!("k{}", (n * 13) % 350)).unwrap();
        }
        net.run(1);
    }
    net.run(400);
    assert_eq!(net.in_sync(), [0, 1]);
    net.same();
    assert_eq!(net.nodes[1].store.deadline_ms(R, b"mortal"), 782_000, "by its own clock");
}

#[test]
fn while_much_that_was_written_is_not_sent_a_copy_is_filled_no_further_and_writes_go_on() {
    let mut net = Net::new(3, 2, settings());
    net.run(20);
    for n in 0..300 {
        net.put(0, &format!("k{n}"), &[n as u8; 40]).unwrap();
    }
    net.run(100);
    net.nodes[0].unsent_bytes = settings().unsent_bytes_max;
    net.place(&[0, 1, 2]);
    net.run(500);
    assert_eq!(net.in_sync(), [0, 1]);
    assert!(net.nodes[2].store.keys(R).is_empty(), "{:?}", net.nodes[2].store);
    net.put(0, "k1", b"later").unwrap();
    net.run(100);
    net.nodes[0].unsent_bytes = settings().unsent_bytes_max - 1;
    net.run(500);
    assert_eq!(net.in_sync(), [0, 1, 2]);
    net.same();
}

#[test]
fn a_copy_that_was_away_for_a_short_time_gets_only_what_it_missed() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    cut_off(&mut net, 1);
    // Out of reach of the catalogue as well, so that it does not take over.
    net.cut.push((1, usize::MAX));
    net.run(1500);
    assert_eq!(net.in_sync(), [0]);
    net.put(0, "a", &[5; 100]).unwrap();
    net.put(0, "great", &vec![5; 5_000_000]).unwrap();
    net.cut.clear();
    net.tell_all(false);
    net.run(1000);
    assert_eq!(net.in_sync(), [0, 1]);
    assert_eq!(net.nodes[1].store.clears, 0);
    net.run(200);
    net.same();
}

#[test]
fn a_copy_that_missed_more_than_the_backlog_is_another_copy_when_it_comes_back() {
    let mut net = Net::new(2, 2, Settings { backlog_bytes: 100_000, ..settings() });
    net.run(50);
    net.put(0, "old", b"1").unwrap();
    net.run(200);
    cut_off(&mut net, 1);
    net.cut.push((1, usize::MAX));
    net.run(1500);
    for n in 0..3000 {
        net.put(0, &format!("k{}", n % 100), &[n as u8; 200]).unwrap();
    }
    net.cut.clear();
    net.tell_all(false);
    net.run(2000);
    assert_eq!(net.in_sync(), [0, 1]);
    assert_eq!(net.nodes[1].store.clears, 1);
    assert_eq!(net.nodes[1].cluster.view(R).me.generation, 1);
    net.same();
}

#[test]
fn leadership_moves_to_the_first_place_without_a_lost_write_and_the_range_follows_its_placement() {
    let mut net = Net::new(4, 2, settings());
    net.run(50);
    let index = net.put(0, "a", b"1").unwrap();
    net.place(&[1, 0]);
    net.run(60);
    assert_eq!(net.primary(), Some(1));
    assert_eq!(net.nodes[0].cluster.role(R), Role::Replica);
    assert_eq!(net.nodes[0].store.clears, 0);
    assert_eq!(net.nodes[0].lost.iter().map(|lost| lost.committed).max(), Some(index));
    net.place(&[2, 3]);
    net.run(3000);
    assert_eq!((net.primary(), net.in_sync()), (Some(2), vec![2, 3]));
    assert!(net.put(2, "b", b"1").is_ok());
    net.run(200);
    net.same();
    for node in [0, 1] {
        assert!(net.nodes[node].store.keys(R).is_empty(), "who holds nothing that counts");
        let view = net.nodes[node].cluster.view(R);
        assert_eq!((view.whole, view.me.generation), (false, 1));
    }
}

#[test]
fn a_copy_that_is_moved_away_forgets_nothing_before_it_is_certain_that_it_never_counts() {
    let mut net = Net::new(3, 2, settings());
    net.run(50);
    net.put(0, "a", b"1").unwrap();
    net.run(200);
    // It hears that it was let go and should be elsewhere, and then nothing more: that it was let in again, and that it
    // leads, as the only one that is left.
    net.catalogue.reachable = false;
    let mut other = net.news(false);
    let config = other.config.as_mut().expect("formed");
    config.epoch.0 += 1;
    config.in_sync.truncate(1);
    other.placement = vec![addr(0), addr(2)];
    other.placement_version += 1;
    net.tell(1, &other);
    let config = &mut net.catalogue.config;
    config.epoch.0 += 5;
    config.in_sync.remove(0);
    config.primary = config.in_sync[0];
    net.crash(0);
    net.run(1000);
    net.catalogue.reachable = true;
    net.run(200);
    assert_eq!((net.primary(), net.nodes[1].store.clears), (Some(1), 0));
    assert_eq!(net.nodes[1].store.get(R, b"a").map(|found| found.1), Some(b"1".to_vec()));
}

#[test]
fn a_member_that_grants_leases_and_takes_nothing_is_let_go_and_comes_back() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    let value = [0xab; 100];
    let index = net.put(0, "a", &value).unwrap();
    let carries = |body: &[u8]| body.windows(value.len()).any(|bytes| bytes == value);
    for _ in 0..2200 {
        net.turn();
        net.flying.retain(|(.., body)| !carries(body));
        net.deliver();
        net.now_ns += MS;
    }
    assert_eq!(net.in_sync(), [0]);
    assert!(net.is_answered(0, index));
    net.run(4000);
    assert_eq!(net.in_sync(), [0, 1]);
    assert_eq!(net.nodes[1].store.clears, 0);
    net.run(200);
    net.same();
}

/// Writes while all that is said between the two takes up to 200 ms, in 200 of each 220 ms; after how many milliseconds the
/// other copy is out.
fn late_until_out(net: &mut Net, ms_max: u64) -> Option<u64> {
    let mut held = Vec::new();
    for ms in 0..ms_max {
        if ms % 5 == 0 {
            let _ = net.put(0, "a", b"1");
        }
        net.turn();
        held.append(&mut net.flying);
        if ms % 220 >= 200 {
            net.flying.append(&mut held);
        }
        net.deliver();
        net.now_ns += MS;
        if net.in_sync() == [0] {
            net.flying.append(&mut held);
            return Some(ms);
        }
    }
    net.flying.append(&mut held);
    None
}

#[test]
fn a_copy_that_is_late_again_and_again_is_let_go_and_comes_back_when_it_keeps_up() {
    let mut net = Net::new(2, 2, settings());
    net.run(1000);
    let out = late_until_out(&mut net, 5000).expect("it holds up every write");
    assert!((500..1500).contains(&out), "{out} ms");
    for _ in 0..150 {
        net.put(0, "a", b"2").unwrap();
        net.run(10);
        assert_eq!(net.in_sync(), [0], "not at once");
    }
    net.run(3000);
    assert_eq!(net.in_sync(), [0, 1]);
    net.run(200);
    net.same();
}

#[test]
fn a_copy_that_the_store_must_have_is_kept_however_late_it_is_and_one_that_holds_up_nobody_too() {
    let must = Settings { min_insync: 2, ..settings() };
    let holds_up_nobody = Settings { ack: Ack::Async, ..settings() };
    for settings in [must, holds_up_nobody] {
        let mut net = Net::new(2, 2, settings);
        net.run(1000);
        assert_eq!(late_until_out(&mut net, 3000), None);
    }
}

#[test]
fn a_copy_whose_log_is_over_its_bound_still_says_what_it_holds() {
    let settings = Settings { backlog_bytes: 20_000, log_bytes_max: 40_000, ..settings() };
    let mut net = Net::new(2, 2, settings);
    net.run(50);
    let index = net.put(0, "great", &vec![7; 200_000]).unwrap();
    net.run(1);
    // It holds all of it, and nothing that it says arrives for a moment.
    net.cut.push((1, 0));
    net.run(400);
    assert_eq!(net.nodes[1].cluster.view(R).last, index);
    assert!(!net.is_answered(0, index));
    net.cut.clear();
    net.run(500);
    assert!(net.is_answered(0, index));
    assert_eq!(net.in_sync(), [0, 1]);
    net.run(200);
    net.same();
    assert!(net.put(0, "more", b"1").is_ok(), "and the log is trimmed");
}

#[test]
fn nothing_is_served_between_the_ask_for_a_transfer_and_the_next_epoch() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    net.catalogue.reachable = false;
    net.place(&[1, 0]);
    net.run(500);
    assert_eq!(net.may_read(0), Err(Refused::Handover));
    assert_eq!(net.put(0, "a", b"1"), Err(Refused::Handover));
    net.catalogue.reachable = true;
    net.run(300);
    assert_eq!(net.primary(), Some(1));
}

#[test]
fn a_refused_expand_is_made_void_by_an_epoch_before_the_copy_is_let_go() {
    let mut net = Net::new(2, 1, settings());
    net.run(20);
    net.place(&[0, 1]);
    // The catalogue knows that this boot is over, the nodes do not.
    net.bury(1);
    net.run(1000);
    assert_eq!(net.in_sync(), [0]);
    assert!(net.catalogue.config.epoch > Epoch(1), "an epoch that changes nothing");
    assert_eq!(net.nodes[0].cluster.may_write(net.now_ns, R), Ok(()));
    let index = net.put(0, "a", b"1").unwrap();
    net.restart(1);
    net.run(1500);
    assert!(net.is_answered(0, index));
    assert_eq!(net.in_sync(), [0, 1]);
}

#[test]
fn confirmed_reads_need_no_lease_but_an_echo_of_a_beacon_that_was_sent_after_them() {
    let mut net = Net::new(2, 2, Settings { read: ReadMode::Confirm, ..settings() });
    net.run(50);
    assert_eq!(net.may_read(0), Ok(()));
    let round = net.nodes[0].cluster.confirm(R);
    assert!(net.nodes[0].cluster.confirmed(R) < round);
    net.run(3);
    assert!(net.nodes[0].cluster.confirmed(R) >= round);
    net.cut.push((0, 1));
    let round = net.nodes[0].cluster.confirm(R);
    net.run(500);
    assert!(net.nodes[0].cluster.confirmed(R) < round);
}

#[test]
fn the_loss_of_all_copies_is_an_offline_range_and_it_comes_back_when_it_is_formed_anew() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    for node in [0, 1] {
        net.crash(node);
        net.bury(node);
        net.restart(node);
    }
    net.run(100);
    assert_eq!(net.catalogue.config.state, RangeState::Offline);
    for node in [0, 1] {
        assert_eq!(net.put(node, "a", b"1"), Err(Refused::Offline));
        assert_eq!(net.nodes[node].cluster.primary(R), None);
    }
    let config = &mut net.catalogue.config;
    config.epoch.0 += 1;
    config.formed = config.epoch;
    config.first_index = 2 * FIRST;
    config.state = RangeState::Normal;
    config.in_sync = [0, 1].map(|node| net.nodes[node].cluster.view(R).me).to_vec();
    config.primary = config.in_sync[0];
    net.tell_all(false);
    net.run(50);
    assert_eq!(net.put(0, "a", b"1"), Ok(2 * FIRST + 1));
}

#[test]
fn what_nobody_will_commit_of_an_offline_range_takes_no_room() {
    let mut net = Net::new(3, 3, settings());
    net.run(50);
    // One copy takes nothing, so that what the other holds is not committed.
    net.nodes[0].cluster.link_down(net.now_ns, addr(1));
    for n in 0..20 {
        net.put(0, &format!("k{n}"), &[1; 100]).expect("it leads");
    }
    net.run(20);
    let held = |net: &Net| {
        let view = net.nodes[2].cluster.view(R);
        view.last - view.commit
    };
    assert_eq!(held(&net), 20);
    for node in [0, 1] {
        net.crash(node);
    }
    let config = &mut net.catalogue.config;
    config.epoch.0 += 1;
    config.state = RangeState::Offline;
    config.in_sync.truncate(2);
    net.tell_all(false);
    net.run(20);
    assert_eq!(held(&net), 0);
}

#[test]
fn news_of_an_offline_range_that_come_late_cut_nothing_of_what_was_acknowledged_since() {
    let mut net = Net::new(3, 3, settings());
    net.run(50);
    let mut late = net.news(false);
    let config = late.config.as_mut().expect("it has one");
    config.epoch.0 += 1;
    config.state = RangeState::Offline;
    // The manager of the third is behind: it hears of the next time of leading from its leader alone.
    net.catalogue.config.epoch.0 += 2;
    let news = net.news(false);
    (0..2).for_each(|node| net.tell(node, &news));
    net.run(50);
    net.nodes[0].cluster.link_down(net.now_ns, addr(1));
    let last = (0..20).map(|n| net.put(0, &format!("k{n}"), b"1").expect("it leads")).max();
    net.run(20);
    assert_eq!(Some(net.nodes[2].cluster.view(R).last), last);
    assert!(Some(net.nodes[2].cluster.view(R).commit) < last);
    net.tell(2, &late);
    assert_eq!(Some(net.nodes[2].cluster.view(R).last), last);
}

#[test]
fn news_of_an_earlier_life_that_come_late_take_no_copy_of_a_later_one() {
    let mut net = Net::new(3, 3, settings());
    net.run(50);
    let mut late = net.news(false);
    late.config.as_mut().expect("it has one").epoch.0 += 1;
    net.cut.push((2, usize::MAX));
    let config = &mut net.catalogue.config;
    config.epoch.0 += 2;
    config.formed = config.epoch;
    config.first_index = 2 * FIRST;
    config.in_sync.truncate(2);
    config.in_sync.iter_mut().for_each(|rid| rid.generation += 1);
    config.primary = config.in_sync[0];
    let news = net.news(false);
    (0..2).for_each(|node| net.tell(node, &news));
    net.run(LONG_MS);
    assert_eq!(net.in_sync(), [0, 1, 2]);
    let index = net.put(0, "a", b"1").expect("it leads");
    net.run(200);
    assert!(net.is_answered(0, index));
    net.tell(2, &late);
    let view = net.nodes[2].cluster.view(R);
    assert!(view.whole && view.last == index, "{view:?}");
    net.same();
}

#[test]
fn a_slow_copy_fills_the_log_writes_wait_and_then_it_is_let_go() {
    let settings = Settings { backlog_bytes: 50_000, log_bytes_max: 100_000, ..settings() };
    let mut net = Net::new(2, 2, settings);
    net.run(50);
    // Its leases arrive, its acknowledgements do not: a copy that hangs behind.
    net.nodes[0].cluster.link_down(net.now_ns, addr(1));
    let mut refused = None;
    for n in 0..2000 {
        refused = net.put(0, &format!("k{n}"), &[1; 100]).err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(Refused::LogFull));
    net.nodes[0].cluster.link_up(net.now_ns, addr(1));
    net.run(100);
    assert!(net.put(0, "more", b"1").is_ok(), "it holds all, and the log is trimmed");
}

#[test]
fn news_in_any_order_and_twice_is_news_once() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    let old = net.news(false);
    net.place(&[1, 0]);
    net.run(100);
    assert_eq!(net.primary(), Some(1));
    for node in [0, 1] {
        net.tell(node, &old);
    }
    net.run(100);
    assert_eq!(net.primary(), Some(1));
    assert_eq!(net.nodes[0].cluster.view(R).placement, [addr(1), addr(0)]);
    assert!(net.put(1, "a", b"1").is_ok());
}

#[test]
fn a_copy_that_what_it_is_told_does_not_fit_becomes_another_and_is_filled_anew() {
    let mut net = Net::new(2, 2, settings());
    net.run(50);
    let before = net.nodes[1].cluster.view(R).me;
    net.nodes[1].store.refuses = Some(b"bad".to_vec());
    net.put(0, "good", b"1").expect("it leads");
    let bad = net.put(0, "bad", b"2").expect("it leads");
    net.run(500);
    assert_eq!(net.in_sync(), [0], "it holds nothing that counts");
    assert!(net.is_answered(0, bad), "nobody waits for it");
    net.nodes[1].store.refuses = None;
    net.run(1000);
    assert_eq!(net.in_sync(), [0, 1]);
    let after = net.nodes[1].cluster.view(R).me;
    assert!(after.generation > before.generation && after.boot == before.boot);
    net.same();
}

#[test]
fn who_cannot_apply_what_it_inherits_leaves_the_range_to_the_next() {
    let mut net = Net::new(3, 3, settings());
    net.run(50);
    net.nodes[1].store.refuses = Some(b"bad".to_vec());
    net.put(0, "bad", b"1").expect("it leads");
    // All hold it, and nobody was told that it is committed.
    net.turn();
    net.deliver();
    net.crash(0);
    net.bury(0);
    assert_eq!(net.catalogue.config.primary.addr, addr(1), "the one that cannot");
    net.run(100);
    assert_eq!(net.primary(), Some(2));
    assert!(net.nodes[2].store.get(R, b"bad").is_some());
    assert_eq!(net.put(1, "more", b"2"), Err(Refused::NotPrimary));
    assert!(net.put(2, "more", b"2").is_ok());
}
