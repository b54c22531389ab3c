//! Tests of who listens to what.

use super::*;

fn id(index: u32) -> SessionId {
    SessionId { index, generation: 0 }
}

fn all(directory: &Directory, kind: Kind, channel: &[u8]) -> Vec<(Option<Vec<u8>>, u32)> {
    let (mut at, mut ids, mut pace) = (FanOut::default(), Vec::new(), Pace::default());
    let mut found = Vec::new();
    loop {
        match directory.next(kind, channel, &mut at, &mut ids, &mut pace) {
            Found::End => return found,
            Found::Paused => pace.begin(),
            Found::Listeners => {
                for &one in &ids {
                    found.push((at.pattern().map(<[u8]>::to_vec), one.index));
                    at.served(one);
                }
            }
        }
    }
}

#[test]
fn a_message_goes_to_the_channel_first_and_then_to_each_pattern() {
    let mut directory = Directory::default();
    directory.add(Kind::Channel, b"news", id(2));
    directory.add(Kind::Channel, b"news", id(1));
    directory.add(Kind::Pattern, b"n*", id(1));
    directory.add(Kind::Pattern, b"?ews", id(3));
    directory.add(Kind::Pattern, b"x*", id(4));
    directory.add(Kind::Shard, b"news", id(5));
    let expected = [(None, 1), (None, 2), (Some(b"?ews".to_vec()), 3), (Some(b"n*".to_vec()), 1)];
    assert_eq!(all(&directory, Kind::Channel, b"news"), expected);
    assert_eq!(all(&directory, Kind::Shard, b"news"), [(None, 5)]);
    assert_eq!(all(&directory, Kind::Shard, b"other"), []);
    assert_eq!(all(&directory, Kind::Channel, b"xyz"), [(Some(b"x*".to_vec()), 4)]);
}

#[test]
fn who_comes_and_goes_while_a_message_is_given_out_disturbs_nobody_else() {
    let mut directory = Directory::default();
    (0..200).for_each(|index| {
        directory.add(Kind::Channel, b"c", id(2 * index));
    });
    directory.add(Kind::Pattern, b"c", id(7));
    let (mut at, mut ids, mut pace) = (FanOut::default(), Vec::new(), Pace::default());
    let mut seen = Vec::new();
    let mut changed = false;
    while let Found::Listeners = directory.next(Kind::Channel, b"c", &mut at, &mut ids, &mut pace) {
        assert!(ids.len() <= LISTENERS_AT_ONCE);
        for &one in &ids[..ids.len().div_ceil(2)] {
            seen.push(one.index);
            at.served(one);
        }
        if !core::mem::replace(&mut changed, true) {
            directory.remove(Kind::Channel, b"c", id(0));
            directory.remove(Kind::Channel, b"c", id(398));
            directory.add(Kind::Channel, b"c", id(201));
        }
    }
    let mut expected: Vec<u32> = (0..199).map(|index| 2 * index).chain([201]).collect();
    expected.sort_unstable();
    expected.push(7);
    assert_eq!(seen, expected);
}

#[test]
fn what_nobody_listens_to_any_more_leaves_nothing() {
    let mut directory = Directory::default();
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        let name = directory.add(kind, b"a", id(1));
        assert!(Arc::ptr_eq(&name, &directory.add(kind, b"a", id(2))), "one name for all");
        let place = place_of(kind, b"a");
        assert!(directory.is_interested(place) && directory.len(kind) == 1);
        assert_eq!(directory.places().len(), 1);
        directory.remove(kind, b"a", id(1));
        directory.remove(kind, b"a", id(1));
        assert!(directory.is_interested(place) && directory.bytes() > 0);
        directory.remove(kind, b"a", id(2));
        assert!(!directory.is_interested(place) && directory.len(kind) == 0);
        assert_eq!((directory.bytes(), directory.places().len()), (0, 0));
    }
}

#[test]
fn names_are_listed_in_steps() {
    let mut directory = Directory::default();
    for i in 0..5000 {
        directory.add(Kind::Channel, alloc::format!("c{i}").as_bytes(), id(1));
    }
    directory.add(Kind::Channel, b"other", id(1));
    let (mut at, mut pace) = (Listing::default(), Pace::default());
    let pattern = Pattern::new(b"c*");
    let mut steps = 1;
    while !directory.list(Kind::Channel, Some(&pattern), &mut at, &mut pace) {
        pace.begin();
        steps += 1;
    }
    assert!(steps > 2, "{steps}");
    let reply = at.reply();
    let names: BTreeSet<&[u8]> =
        dkv_protocol::resp::value::elements(&reply).unwrap().map(Result::unwrap).collect();
    assert!(names.len() == 5000 && reply.starts_with(b"*5000\r\n"));
}
