//! The echo floor: a server on DKV's own reactor that does nothing but receive and send.
//!
//! It looks at the first request of a connection only. From then on it counts bytes: so many of them are a request, and
//! each is answered with the same ready-made bytes as a store would send. What it costs under a client is what the kernel
//! and the reactor cost, and no store that uses them can be cheaper. It holds no keys.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use dkv_io::{Chunk, Conn, Event, Options, Reactor, UringReactor, Wait, WakeHandle};
use dkv_protocol::resp::Proto;
use dkv_protocol::resp::reply;
use dkv_protocol::resp::request::{Limits, Parsed, RequestParser};

/// How long a turn may sleep; nothing depends on it.
const SLEEP: Duration = Duration::from_secs(1);
/// Length of the values that are answered before any SET told one.
const VALUE_BYTES: usize = 64;

/// One connection.
#[derive(Default)]
struct Session {
    /// Bytes of one request and the answer to it, once known.
    canned: Option<(usize, Vec<u8>)>,
    /// The beginning of a request: its bytes until `canned` is known, then only how many they are.
    unfinished: Vec<u8>,
    carried: usize,
    output: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    dirty: bool,
}

/// Serves on `listener` until the process is ended.
///
/// # Errors
/// The kernel refuses the ring, or the ring breaks.
pub fn serve(listener: TcpListener) -> Result<(), String> {
    let wake = WakeHandle::new().map_err(|error| error.to_string())?;
    let mut reactor = UringReactor::new(Options::new(wake)).map_err(|error| error.to_string())?;
    reactor.listen(listener).map_err(|error| error.to_string())?;
    let mut sessions: Vec<Session> = Vec::new();
    let mut value_bytes = VALUE_BYTES;
    let (mut events, mut dirty) = (Vec::new(), Vec::new());
    loop {
        reactor.turn(Wait::Until(SLEEP), &mut events).map_err(|error| error.to_string())?;
        for event in events.drain(..) {
            match event {
                Event::Accepted { socket, .. } => {
                    let stream = TcpStream::from(socket);
                    // A connection that ended at once is nobody's loss.
                    let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else {
                        continue;
                    };
                    dkv_io::sockets::spare_congestion_control(&stream, here, there);
                    if let Ok(conn) = reactor.adopt(stream.into()) {
                        let places = sessions.len().max(conn.index() + 1);
                        sessions.resize_with(places, Session::default);
                        sessions[conn.index()] = Session::default();
                    }
                }
                Event::Received { conn, chunk } => {
                    let session = &mut sessions[conn.index()];
                    let understood = receive(session, &reactor, &chunk, &mut value_bytes);
                    reactor.give_back(chunk);
                    if !understood {
                        reactor.close(conn);
                    }
                    mark(session, conn, &mut dirty);
                }
                Event::Sent { conn, mut buffer, .. } => {
                    let session = &mut sessions[conn.index()];
                    buffer.clear();
                    session.spare = buffer;
                    session.sending = false;
                    mark(session, conn, &mut dirty);
                }
                Event::Ended { conn, .. } => reactor.close(conn),
                _ => {}
            }
        }
        for conn in dirty.drain(..) {
            let session = &mut sessions[conn.index()];
            session.dirty = false;
            if !session.sending && !session.output.is_empty() {
                session.sending = true;
                let spare = std::mem::take(&mut session.spare);
                reactor.send(conn, std::mem::replace(&mut session.output, spare), Vec::new());
            }
        }
    }
}

fn mark(session: &mut Session, conn: Conn, dirty: &mut Vec<Conn>) {
    if !session.dirty {
        session.dirty = true;
        dirty.push(conn);
    }
}

/// Answers what a chunk completes. `false`: this is no client of ours.
fn receive(
    session: &mut Session,
    reactor: &UringReactor,
    chunk: &Chunk,
    value_bytes: &mut usize,
) -> bool {
    if let Some((request_bytes, answer)) = &session.canned {
        let bytes = session.carried + chunk.len();
        session.carried = bytes % request_bytes;
        for _ in 0..bytes / request_bytes {
            session.output.extend_from_slice(answer);
        }
        return true;
    }
    session.unfinished.extend_from_slice(reactor.bytes(chunk));
    begin(session, value_bytes)
}

/// Reads requests until one says what all later ones of this connection are.
fn begin(session: &mut Session, value_bytes: &mut usize) -> bool {
    let mut spans = Vec::new();
    loop {
        let mut parser = RequestParser::default();
        let buf = &session.unfinished;
        let consumed = match parser.parse(buf, &Limits::AUTHENTICATED, &mut spans) {
            Ok(Parsed::Complete { consumed }) => consumed,
            Ok(Parsed::Incomplete { .. }) => return true,
            Err(_) => return false,
        };
        let arguments: Vec<&[u8]> = spans
            .iter()
            .map(|(from, to)| &parser.bytes(buf)[*from as usize..*to as usize])
            .collect();
        let mut answer = Vec::new();
        let canned = answer_to(&arguments, value_bytes, &mut answer);
        session.unfinished.drain(..consumed);
        session.output.extend_from_slice(&answer);
        if canned {
            let bytes = session.unfinished.len();
            for _ in 0..bytes / consumed {
                session.output.extend_from_slice(&answer);
            }
            session.carried = bytes % consumed;
            session.unfinished = Vec::new();
            session.canned = Some((consumed, answer));
            return true;
        }
    }
}

/// The answer to a request, and whether it is one that is repeated. Values are as long as those of the last SET.
fn answer_to(arguments: &[&[u8]], value_bytes: &mut usize, out: &mut Vec<u8>) -> bool {
    let Some(name) = arguments.first().map(|name| name.to_ascii_lowercase()) else { return false };
    match (name.as_slice(), arguments.len()) {
        (b"get", 2) => reply::bulk(out, &vec![b'x'; *value_bytes]),
        (b"set", 3) => {
            *value_bytes = arguments[2].len();
            reply::ok(out);
        }
        (b"mget", 2..) => {
            reply::array(out, arguments.len() - 1);
            for _ in &arguments[1..] {
                reply::bulk(out, &vec![b'x'; *value_bytes]);
            }
        }
        _ => {
            match name.as_slice() {
                b"ping" => reply::simple(out, "PONG"),
                b"config" | b"command" => reply::map(out, Proto::Resp2, 0),
                _ => reply::ok(out),
            }
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session_after(pieces: &[&[u8]]) -> (Session, usize) {
        let (mut session, mut value_bytes) = (Session::default(), 3);
        for piece in pieces {
            assert!(session.canned.is_none());
            session.unfinished.extend_from_slice(piece);
            assert!(begin(&mut session, &mut value_bytes));
        }
        (session, value_bytes)
    }

    #[test]
    fn what_comes_with_the_first_request_is_answered_too() {
        let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let (first, rest) = get.split_at(7);
        let three = [rest, get, get, &get[..4]].concat();
        let (session, _) = session_after(&[b"*2\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n", first, &three]);
        assert_eq!(session.output, b"*0\r\n$3\r\nxxx\r\n$3\r\nxxx\r\n$3\r\nxxx\r\n");
        assert_eq!(session.carried, 4);
        assert_eq!(session.canned, Some((get.len(), b"$3\r\nxxx\r\n".to_vec())));
    }

    #[test]
    fn values_are_as_long_as_those_that_were_set() {
        let (session, value_bytes) =
            session_after(&[b"PING\r\n", b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$5\r\n12345\r\n"]);
        assert_eq!((session.output.as_slice(), value_bytes), (b"+PONG\r\n+OK\r\n".as_slice(), 5));
    }

    #[test]
    fn a_client_that_speaks_nothing_known_is_not_understood() {
        let mut session = Session { unfinished: b"*x\r\n".to_vec(), ..Session::default() };
        assert!(!begin(&mut session, &mut 3));
    }
}
