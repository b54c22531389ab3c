//! Great arguments: received in fewer and longer pieces, through buffers that are filled piece after piece.

use std::io::Write;
use std::thread;

use dkv_io::{Chunk, Conn, Event, Options, Reactor, Wait};

use super::Tested;
use super::rig::{Noise, options, pair, turn_until};

/// Turns until so many bytes came; checks them, and returns the pieces they came in, none given back.
fn receive(reactor: &mut Tested, wanted: &[u8], mut each: impl FnMut(&mut Tested, Conn, Chunk)) {
    let mut place = 0;
    turn_until(reactor, "all bytes", |reactor, event| {
        match event {
            Event::Received { conn, chunk } => {
                let end = place + chunk.len();
                assert!(reactor.bytes(&chunk) == &wanted[place..end], "differs after {place}");
                place = end;
                each(reactor, conn, chunk);
            }
            other => panic!("{other:?}"),
        }
        place == wanted.len()
    });
}

/// Receives 8 MiB that were announced, and says in how many pieces.
fn pieces_of_eight_megabytes(options: Options) -> usize {
    const TOTAL: usize = 8 << 20;
    let (socket, mut client) = pair();
    let mut reactor = Tested::new(options).expect("a reactor");
    let conn = reactor.adopt(socket).expect("a socket");
    let bytes = Noise::new(8).bytes(TOTAL);
    let mut pieces = 0;
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(&bytes).expect("writes"));
        let mut told = false;
        receive(&mut reactor, &bytes, |reactor, conn, chunk| {
            pieces += 1;
            if !std::mem::replace(&mut told, true) {
                reactor.expect(conn, TOTAL - chunk.len());
            }
            reactor.give_back(chunk);
        });
    });
    // Back to short pieces, for as long as it takes to go back to the small buffers and longer.
    for number in 0..200_u8 {
        client.write_all(&[number; 100]).expect("writes");
        receive(&mut reactor, &[number; 100], |reactor, _, chunk| reactor.give_back(chunk));
    }
    reactor.close(conn);
    pieces
}

#[test]
fn an_expected_argument_comes_in_few_pieces_and_without_expecting_in_many() {
    let never = Options { expect_bytes_min: usize::MAX, ..options() };
    let many = pieces_of_eight_megabytes(never);
    assert!(many >= 2048, "{many} pieces of 4 KiB");
    let few = pieces_of_eight_megabytes(options());
    assert!(few < many / 4, "{few} pieces");
    let whole = pieces_of_eight_megabytes(Options { great_in_pieces: false, ..options() });
    assert!(whole < many / 4, "{whole} pieces without filling in pieces");
}

#[test]
fn many_pieces_of_one_buffer_may_be_held_and_given_back_in_any_order() {
    let (socket, mut client) = pair();
    let mut reactor = Tested::new(options()).expect("a reactor");
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.expect(conn, 1 << 20);
    let mut noise = Noise::new(5);
    let mut held = Vec::new();
    for round in 0..5 {
        for _ in 0..200 {
            let length = 1 + noise.below(3000) as usize;
            let bytes = noise.bytes(length);
            client.write_all(&bytes).expect("writes");
            receive(&mut reactor, &bytes, |_, _, chunk| held.push((chunk, bytes.clone())));
        }
        while !held.is_empty() {
            let pick = noise.below(held.len() as u64) as usize;
            let (chunk, _) = held.swap_remove(pick);
            reactor.give_back(chunk);
            if held.len() % 50 == 0 {
                for (chunk, bytes) in &held {
                    assert!(
                        bytes.windows(chunk.len()).any(|part| part == reactor.bytes(chunk)),
                        "round {round}"
                    );
                }
            }
        }
    }
}

#[test]
fn running_out_of_great_buffers_loses_nothing() {
    const TOTAL: usize = 4 << 20;
    for in_pieces in [true, false] {
        let few = Options {
            great_buffers: 2,
            great_buffer_bytes: 8192,
            great_buffers_at_first: 1,
            great_in_pieces: in_pieces,
            expect_bytes_min: 1,
            ..options()
        };
        let mut reactor = Tested::new(few).expect("a reactor");
        let conns: Vec<_> = (0..4)
            .map(|number| {
                let (socket, client) = pair();
                let conn = reactor.adopt(socket).expect("a socket");
                reactor.expect(conn, TOTAL);
                (conn, client, Noise::new(number).bytes(TOTAL))
            })
            .collect();
        let mut places = [0; 4];
        thread::scope(|scope| {
            for (_, client, bytes) in &conns {
                scope.spawn(|| (&*client).write_all(bytes).expect("writes"));
            }
            let mut held = std::collections::VecDeque::new();
            turn_until(&mut reactor, "all bytes", |reactor, event| {
                if let Event::Received { conn, chunk } = event {
                    let which = conns.iter().position(|(known, ..)| *known == conn).expect("known");
                    let end = places[which] + chunk.len();
                    assert!(reactor.bytes(&chunk) == &conns[which].2[places[which]..end]);
                    places[which] = end;
                    held.push_back(chunk);
                    if held.len() > 1 {
                        reactor.give_back(held.pop_front().expect("two"));
                    }
                }
                // The last ones would be waited for in vain, were they held by a driver that waits for more.
                if places.iter().sum::<usize>() % 8192 == 0 {
                    held.drain(..).for_each(|chunk| reactor.give_back(chunk));
                }
                places == [TOTAL; 4]
            });
        });
        assert!(reactor.counts().buffers_missed > 0, "it never ran out");
    }
}

#[test]
fn pieces_outlive_their_connection_and_the_reactor_goes_before_them() {
    let (socket, mut client) = pair();
    let mut reactor = Tested::new(options()).expect("a reactor");
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.expect(conn, 1 << 20);
    let mut held = Vec::new();
    client.write_all(&vec![7; 50_000]).expect("writes");
    receive(&mut reactor, &vec![7; 50_000], |_, _, chunk| held.push(chunk));
    reactor.close(conn);
    turn_until(&mut reactor, "the close", |_, event| matches!(event, Event::Closed { .. }));
    assert!(held.iter().all(|chunk| reactor.bytes(chunk).iter().all(|byte| *byte == 7)));
    // Another one is received into what follows in the same buffer.
    let (socket, mut client) = pair();
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.expect(conn, 1 << 20);
    client.write_all(&vec![8; 50_000]).expect("writes");
    let half = held.len() / 2;
    held.drain(..half).for_each(|chunk| reactor.give_back(chunk));
    receive(&mut reactor, &vec![8; 50_000], |reactor, _, chunk| reactor.give_back(chunk));
    assert!(held.iter().all(|chunk| reactor.bytes(chunk).iter().all(|byte| *byte == 7)));
    reactor.turn(Wait::Now, &mut Vec::new()).expect("the reactor works");
    drop(reactor);
    drop(held);
}
