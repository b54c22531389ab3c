//! One connection to one node: connecting, introducing ourselves, and exchanging requests for replies.

use crate::{ClientError, Options, Value};
use dkv_protocol::resp::value::{ReplyScanner, parse};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Bytes that a connection keeps room for between replies, and reads at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// A connection that was idle for longer is looked at before a write is trusted to it.
const IDLE: Duration = Duration::from_millis(100);

/// How an exchange failed.
pub(crate) struct Failure {
    /// Whether the store may have seen a whole request.
    pub(crate) sent: bool,
    pub(crate) error: ClientError,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    endpoint: String,
    timeout: Duration,
    reply_bytes_max: usize,
    /// Received and not yet taken.
    received: Vec<u8>,
    /// Where the system puts what it received.
    piece: Box<[u8]>,
    /// Bytes of `received` that were taken.
    taken: usize,
    scanner: ReplyScanner,
    last_used: Instant,
}

impl Connection {
    /// Connects and introduces itself.
    pub(crate) fn open(host: &str, port: u16, options: &Options) -> Result<Self, ClientError> {
        let endpoint =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let stream = connect(host, port, &endpoint, options.timeout)?;
        let io = |source| ClientError::from_io(&endpoint, "connecting", options.timeout, source);
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(options.timeout)).map_err(io)?;
        stream.set_write_timeout(Some(options.timeout)).map_err(io)?;
        let mut connection = Self {
            stream,
            endpoint,
            timeout: options.timeout,
            reply_bytes_max: options.reply_bytes_max,
            received: Vec::new(),
            piece: vec![0; BUFFER_BYTES].into_boxed_slice(),
            taken: 0,
            scanner: ReplyScanner::default(),
            last_used: Instant::now(),
        };
        connection.introduce(options)?;
        Ok(connection)
    }

    /// HELLO with user and password; our name; and whether this is the store that is meant.
    fn introduce(&mut self, options: &Options) -> Result<(), ClientError> {
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if options.user.is_some() || options.password.is_some() {
            let user = options.user.as_deref().unwrap_or("default");
            let password = options.password.as_deref().unwrap_or_default();
            hello.extend([&b"AUTH"[..], user.as_bytes(), password.as_bytes()]);
        }
        let mut out = Vec::new();
        write_request(&mut out, &hello);
        let reply = self.exchange(&out, 1).map_err(|failure| match failure.error {
            ClientError::Malformed { endpoint, source } => {
                ClientError::NotAStore { endpoint, why: source.to_string() }
            }
            error => error,
        })?;
        let endpoint = self.endpoint.clone();
        match reply.first() {
            Some(Value::Map(_)) => {}
            Some(Value::Error(text)) => {
                let text = String::from_utf8_lossy(text).into_owned();
                return Err(match text.split(' ').next() {
                    Some("NOAUTH") => ClientError::PasswordRequired { endpoint },
                    Some("WRONGPASS") => ClientError::WrongPassword { endpoint },
                    Some("NOPROTO") => ClientError::NotAStore { endpoint, why: text },
                    _ if text.starts_with("ERR unknown command") => {
                        ClientError::NotAStore { endpoint, why: text }
                    }
                    _ => ClientError::Server(text),
                });
            }
            _ => {
                let why = "it does not answer HELLO as a RESP3 server".to_owned();
                return Err(ClientError::NotAStore { endpoint, why });
            }
        }
        // A server that does not know these says so, and nothing is lost.
        out.clear();
        write_request(&mut out, &[b"CLIENT", b"SETINFO", b"LIB-NAME", b"dkv-client"]);
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        write_request(&mut out, &[b"CLIENT", b"SETINFO", b"LIB-VER", version]);
        let replies = if options.store.is_some() { 3 } else { 2 };
        if options.store.is_some() {
            write_request(&mut out, &[b"INFO"]);
        }
        let mut replies = self.exchange(&out, replies).map_err(|failure| failure.error)?;
        if let Some(expected) = &options.store {
            let info = replies.pop();
            // Who may not ask for it has proven who he is to a store that knows him, and goes on.
            if matches!(&info, Some(Value::Error(text)) if text.starts_with(b"NOPERM ")) {
                return Ok(());
            }
            let info = info.and_then(Value::into_bytes).unwrap_or_default();
            let info = String::from_utf8_lossy(&info);
            let Some(actual) = info.lines().find_map(|line| line.strip_prefix("dkv_store:")) else {
                let why = "its INFO names no store; it may be another kind of server".to_owned();
                return Err(ClientError::NotAStore { endpoint, why });
            };
            if actual != expected {
                let (expected, actual) = (expected.clone(), actual.to_owned());
                return Err(ClientError::WrongStore { endpoint, expected, actual });
            }
        }
        Ok(())
    }

    /// Whether the other end is known to be gone. Looks only when the connection was idle, so that a write after a
    /// restart of the node goes to a fresh connection instead of getting lost.
    pub(crate) fn is_stale(&self) -> bool {
        if self.last_used.elapsed() < IDLE {
            return false;
        }
        let mut byte = [0];
        let quiet = self.stream.set_nonblocking(true).is_ok()
            && matches!(self.stream.peek(&mut byte), Err(e) if e.kind() == ErrorKind::WouldBlock)
            && self.stream.set_nonblocking(false).is_ok();
        !quiet
    }

    /// Sends encoded requests and takes as many replies.
    pub(crate) fn exchange(
        &mut self,
        requests: &[u8],
        replies: usize,
    ) -> Result<Vec<Value>, Failure> {
        if let Err(source) = self.stream.write_all(requests) {
            let mut error =
                ClientError::from_io(&self.endpoint, "taking a request", self.timeout, source);
            // A node that refuses a connection says why before it closes it, without reading what we have to say.
            if matches!(error, ClientError::Closed { .. })
                && let Ok(Value::Error(text)) = self.reply()
            {
                error = ClientError::Server(String::from_utf8_lossy(&text).into_owned());
            }
            // Of several requests some may have gone out; a single one has not, or not whole.
            return Err(Failure { sent: replies > 1, error });
        }
        let mut taken = Vec::with_capacity(replies);
        while taken.len() < replies {
            match self.reply() {
                // A push answers nothing.
                Ok(Value::Push(_)) => {}
                Ok(value) => taken.push(value),
                Err(error) => return Err(Failure { sent: true, error }),
            }
        }
        self.last_used = Instant::now();
        Ok(taken)
    }

    fn reply(&mut self) -> Result<Value, ClientError> {
        loop {
            let pending = &self.received[self.taken..];
            let malformed =
                |source| ClientError::Malformed { endpoint: self.endpoint.clone(), source };
            if let Some(len) = self.scanner.scan(pending).map_err(malformed)? {
                let parsed = parse(&pending[..len]).map_err(malformed)?;
                self.taken += len;
                if self.taken == self.received.len() {
                    self.received.clear();
                    self.received.shrink_to(BUFFER_BYTES);
                    self.taken = 0;
                }
                if let Some((value, _)) = parsed {
                    return Ok(value);
                }
            } else if pending.len() >= self.reply_bytes_max {
                let (endpoint, bytes_max) = (self.endpoint.clone(), self.reply_bytes_max);
                return Err(ClientError::ReplyTooLarge { endpoint, bytes_max });
            } else {
                self.receive()?;
            }
        }
    }

    fn receive(&mut self) -> Result<(), ClientError> {
        self.received.drain(..self.taken);
        self.taken = 0;
        loop {
            match self.stream.read(&mut self.piece) {
                Ok(0) => return Err(ClientError::Closed { endpoint: self.endpoint.clone() }),
                Ok(len) => {
                    self.received.extend_from_slice(&self.piece[..len]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let doing = "sending a reply";
                    let error = ClientError::from_io(&self.endpoint, doing, self.timeout, source);
                    return Err(error);
                }
            }
        }
    }
}

/// Tries each address of the host.
fn connect(
    host: &str,
    port: u16,
    endpoint: &str,
    timeout: Duration,
) -> Result<TcpStream, ClientError> {
    let unresolved = |source| ClientError::Unresolved { endpoint: endpoint.to_owned(), source };
    let addresses = (host, port).to_socket_addrs().map_err(unresolved)?;
    let mut last = unresolved(ErrorKind::NotFound.into());
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = ClientError::from_io(endpoint, "connecting", timeout, source),
        }
    }
    Err(last)
}

/// Appends a request as an array of bulk strings.
pub(crate) fn write_request(out: &mut Vec<u8>, args: &[&[u8]]) {
    dkv_protocol::resp::reply::array(out, args.len());
    for arg in args {
        dkv_protocol::resp::reply::bulk(out, arg);
    }
}
