//! Connections before the load: connecting, logging in, making sure that it is a Redis-compatible server at all, and asking
//! who has which slot. Blocking, with a limit on every wait.

use super::problem::Problem;
use super::requests::beginning;
use dkv_protocol::limits::SLOTS;
use dkv_protocol::resp::value::{Value, parse};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longest answer that is read here: CLUSTER SLOTS of a large store is some hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest wait for a first answer: one that is only slow has answered a PING by then, and a person waits for this.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// Who the connections are and how long they wait.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) timeout: Duration,
}

/// Who has which slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Shards, as `host:port`.
    pub(crate) endpoints: Vec<String>,
    /// For each slot the place in `endpoints`.
    pub(crate) owner: Vec<u16>,
}

impl Dialer {
    /// A connection that is logged in and answered PING.
    pub(crate) fn dial(&self, endpoint: &str) -> Result<TcpStream, Problem> {
        let mut socket = self.open(endpoint)?;
        if let Some(password) = &self.password {
            let user = self.user.as_deref().unwrap_or("default");
            let mut login = vec![&b"AUTH"[..]];
            login.extend(self.user.as_ref().map(|_| user.as_bytes()));
            login.push(password.as_bytes());
            if let Some(error) = ask(&mut socket, endpoint, &login)?.as_error() {
                let hint = "--password-file FILE with the password on its first line, --user NAME when it is a user's";
                return Err(Problem::failed(
                    format!("{endpoint} does not let {user} in: {error}"),
                    hint,
                ));
            }
        }
        let answer = ask(&mut socket, endpoint, &[b"PING"])?;
        match (answer.as_error(), answer.as_bytes()) {
            (Some(error), _) if error.starts_with("NOAUTH") => {
                let hint = "--password-file FILE with the password on its first line";
                Err(Problem::failed(format!("{endpoint} wants a password: {error}"), hint))
            }
            (Some(error), _) => {
                Err(Problem::failed(format!("{endpoint} answers PING with: {error}"), ""))
            }
            (None, Some(b"PONG")) => {
                let forever = |_| Problem::unreachable(endpoint, "its connection is gone");
                socket.set_read_timeout(None).map_err(forever)?;
                socket.set_write_timeout(None).map_err(forever)?;
                Ok(socket)
            }
            (None, _) => Err(Problem::other_product(endpoint, "its answer to PING is not PONG")),
        }
    }

    fn open(&self, endpoint: &str) -> Result<TcpStream, Problem> {
        let addresses = endpoint
            .to_socket_addrs()
            .map_err(|error| Problem::unreachable(endpoint, &error.to_string()))?;
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(socket) => {
                    let greeting = self.timeout.min(GREETING_MAX);
                    let set = socket
                        .set_read_timeout(Some(greeting))
                        .and_then(|()| socket.set_write_timeout(Some(greeting)))
                        .and_then(|()| socket.set_nodelay(true));
                    if let (Ok(here), Ok(there)) = (socket.local_addr(), socket.peer_addr()) {
                        // What a load costs its maker is taken from what it can measure.
                        dkv_io::sockets::spare_congestion_control(&socket, here, there);
                    }
                    return set
                        .map(|()| socket)
                        .map_err(|error| Problem::unreachable(endpoint, &error.to_string()));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(Problem::unreachable(endpoint, &last))
    }

    /// Asks the first of these that answers who has which slot.
    pub(crate) fn routes(&self, endpoints: &[String]) -> Result<Routes, Problem> {
        let mut last = None;
        for endpoint in endpoints {
            let routes = self.dial(endpoint).and_then(|mut socket| {
                let _ = socket.set_read_timeout(Some(self.timeout));
                let answer = ask(&mut socket, endpoint, &[b"CLUSTER", b"SLOTS"])?;
                let hint =
                    "leave out --route cluster to go through the nodes as a plain client does";
                if let Some(error) = answer.as_error() {
                    return Err(Problem::failed(
                        format!("{endpoint} is no cluster: {error}"),
                        hint,
                    ));
                }
                let host = endpoint.rsplit_once(':').map_or(endpoint.as_str(), |(host, _)| host);
                read_routes(answer, host).ok_or_else(|| {
                    Problem::failed(format!("{endpoint} does not know who has every slot"), hint)
                })
            });
            match routes {
                Ok(routes) => return Ok(routes),
                Err(problem) => last = Some(problem),
            }
        }
        Err(last.unwrap_or_else(|| Problem::unreachable("the store", "it has no node")))
    }
}

/// The answer of CLUSTER SLOTS; none when it is no such thing or a slot is nobody's.
fn read_routes(answer: Value, asked: &str) -> Option<Routes> {
    const NOBODY: u16 = u16::MAX;
    let mut routes = Routes { endpoints: Vec::new(), owner: vec![NOBODY; usize::from(SLOTS)] };
    for range in answer.into_elements()? {
        let mut fields = range.into_elements()?.into_iter();
        let first = usize::try_from(fields.next()?.as_integer()?).ok()?;
        let last = usize::try_from(fields.next()?.as_integer()?).ok()?;
        let mut primary = fields.next()?.into_elements()?.into_iter();
        let host = primary.next()?;
        // No host means the one that was asked.
        let host = host.as_bytes().map(|host| String::from_utf8_lossy(host).into_owned());
        let host = host.filter(|host| !host.is_empty() && host != "?");
        let host =
            host.map_or(asked.to_owned(), |h| if h.contains(':') { format!("[{h}]") } else { h });
        let endpoint = format!("{host}:{}", primary.next()?.as_integer()?);
        let known = routes.endpoints.iter().position(|known| *known == endpoint);
        let place = known.unwrap_or_else(|| {
            routes.endpoints.push(endpoint);
            routes.endpoints.len() - 1
        });
        routes.owner.get_mut(first..=last)?.fill(u16::try_from(place).ok()?);
    }
    (!routes.owner.contains(&NOBODY)).then_some(routes)
}

/// Sends one command and waits for its answer.
fn ask(socket: &mut TcpStream, endpoint: &str, arguments: &[&[u8]]) -> Result<Value, Problem> {
    let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        request.extend_from_slice(argument);
        request.extend_from_slice(b"\r\n");
    }
    let gone = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::WouldBlock => "it takes the connection and does not answer".into(),
            _ => error.to_string(),
        };
        Problem::unreachable(endpoint, &why)
    };
    socket.write_all(&request).map_err(gone)?;
    let (mut answer, mut piece) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        match parse(&answer) {
            Ok(Some((value, _))) => return Ok(value),
            Ok(None) if answer.len() <= ANSWER_BYTES_MAX => {}
            _ => {
                let what = format!("it answers {:?}", beginning(&answer));
                return Err(Problem::other_product(endpoint, &what));
            }
        }
        let read = socket.read(&mut piece).map_err(gone)?;
        if read == 0 && answer.is_empty() {
            return Err(Problem::unreachable(
                endpoint,
                "it closes the connection without an answer",
            ));
        }
        if read == 0 {
            let what = format!("it answers {:?} and closes", beginning(&answer));
            return Err(Problem::other_product(endpoint, &what));
        }
        answer.extend_from_slice(&piece[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(text: &str) -> Option<Routes> {
        let (value, _) = parse(text.as_bytes()).expect("RESP").expect("whole");
        read_routes(value, "asked")
    }

    #[test]
    fn slots_are_read_with_their_owners_and_a_gap_is_no_map() {
        let whole = "*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$1\r\na\r\n:7\r\n*3\r\n:8192\r\n:16383\r\n*2\r\n$0\r\n\r\n:8\r\n";
        let routes = slots(whole).expect("a map");
        assert_eq!(routes.endpoints, ["a:7", "asked:8"]);
        assert_eq!((routes.owner[8191], routes.owner[8192]), (0, 1));
        assert_eq!(slots(&whole.replace(":8192", ":8193")), None);
        assert_eq!(slots(&whole.replace(":16383", ":16384")), None);
        assert_eq!(slots("*0\r\n"), None);
    }
}
