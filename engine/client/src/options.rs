//! Where a store is and how to talk to it: the options, and the URL that says the same in one line.

use crate::ClientError;
use dkv_protocol::limits::{CLIENT_PORT, FRAME_BYTES_MAX};
use std::fmt;
use std::time::Duration;

/// See [`crate::Client::connect`].
#[derive(Clone)]
pub struct Options {
    /// Client ports of nodes as `HOST:PORT`, tried in order. A missing port is the default one; an IPv6 address stands in
    /// brackets.
    pub endpoints: Vec<String>,
    /// The user to be; none: `default`, whose password is the store's.
    pub user: Option<String>,
    /// The password of that user.
    pub password: Option<String>,
    /// The store that is meant; another one that answers is an error.
    pub store: Option<String>,
    /// Longest silence that is waited through, when connecting and for each reply.
    pub timeout: Duration,
    /// Longest reply, in bytes.
    pub reply_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            user: None,
            password: None,
            store: None,
            timeout: Duration::from_secs(5),
            reply_bytes_max: FRAME_BYTES_MAX,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| ".."))
            .field("store", &self.store)
            .field("timeout", &self.timeout)
            .field("reply_bytes_max", &self.reply_bytes_max)
            .finish()
    }
}

impl Options {
    /// From `dkv://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/STORE]`. In user and password `%` and two hexadecimal digits
    /// stand for a byte.
    pub fn from_url(url: &str) -> Result<Self, ClientError> {
        // The password is not repeated in an error.
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
            _ => url.to_owned(),
        };
        let bad = |why: &str| ClientError::BadAddress { given: shown.clone(), why: why.to_owned() };
        let rest =
            url.strip_prefix("dkv://").ok_or_else(|| bad("it does not start with dkv://"))?;
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (hosts, store) = match rest.split_once('/') {
            Some((hosts, store)) => (hosts, Some(store)),
            None => (rest, None),
        };
        let decode = |text| percent_decode(text).ok_or_else(|| bad("'%' needs two digits"));
        let (user, password) = match user {
            None => (None, None),
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or(("", user));
                let name = Some(decode(name)?).filter(|name| !name.is_empty());
                (name, Some(decode(password)?))
            }
        };
        if hosts == "inproc" {
            return Err(bad("stores inside the process are not part of this version"));
        }
        let store = store.filter(|s| !s.is_empty()).map(str::to_owned);
        if store.as_ref().is_some_and(|s| s.contains(['/', '?', '#'])) {
            return Err(bad("nothing may follow the store's name"));
        }
        let endpoints = hosts.split(',').map(str::to_owned).collect();
        let options = Self { endpoints, user, password, store, ..Self::default() };
        options.addresses()?;
        Ok(options)
    }

    /// Host and port of each endpoint.
    pub(crate) fn addresses(&self) -> Result<Vec<(String, u16)>, ClientError> {
        if self.endpoints.is_empty() {
            let given = String::new();
            return Err(ClientError::BadAddress { given, why: "no endpoint is given".into() });
        }
        self.endpoints.iter().map(|endpoint| split_endpoint(endpoint)).collect()
    }
}

/// Host and port of `HOST[:PORT]` or `[V6][:PORT]`.
fn split_endpoint(endpoint: &str) -> Result<(String, u16), ClientError> {
    let bad = |why: &str| ClientError::BadAddress { given: endpoint.into(), why: why.into() };
    let (host, port) = if let Some(rest) = endpoint.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| bad("']' is missing"))?;
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':').ok_or_else(|| bad("':' must follow ']'"))?)),
        }
    } else {
        match endpoint.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(bad("an IPv6 address stands in brackets, as [::1]:7861"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (endpoint, None),
        }
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(bad("the host is missing or holds a character that no host has"));
    }
    let port = match port {
        None => CLIENT_PORT,
        Some(port) => match port.parse() {
            Ok(n) if n > 0 && !port.starts_with('+') => n,
            _ => return Err(bad("the port is no number from 1 to 65535")),
        },
    };
    Ok((host.to_owned(), port))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            out.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let [byte] = dkv_protocol::hex::decode(str::from_utf8(digits).ok()?)?;
        out.push(byte);
        rest = tail;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_endpoints_password_and_store() {
        let options = Options::from_url("dkv://10.0.0.1:7861,node-b,[::1]:7862/TestStore").unwrap();
        assert_eq!(
            options.addresses().unwrap(),
            [("10.0.0.1".into(), 7861), ("node-b".into(), CLIENT_PORT), ("::1".into(), 7862)]
        );
        assert_eq!(options.store.as_deref(), Some("TestStore"));
        assert_eq!(options.password, None);

        let options = Options::from_url("dkv://default:p%40ss%2f@h:1").unwrap();
        assert_eq!((options.password.as_deref(), options.store), (Some("p@ss/"), None));
        assert_eq!(options.user.as_deref(), Some("default"));
        let options = Options::from_url("dkv://b%3aob:pw@h/S").unwrap();
        assert_eq!(
            (options.user.as_deref(), options.password.as_deref()),
            (Some("b:ob"), Some("pw"))
        );
        let options = Options::from_url("dkv://:a:b@[fe80::1]/S").unwrap();
        assert_eq!((options.user.as_deref(), options.password.as_deref()), (None, Some("a:b")));
        assert_eq!(options.addresses().unwrap(), [("fe80::1".into(), CLIENT_PORT)]);
    }

    #[test]
    fn urls_that_are_none_say_why() {
        for (url, why) in [
            ("redis://h:1", "dkv://"),
            ("dkv://", "host is missing"),
            ("dkv://h:0/S", "port"),
            ("dkv://h:+1/S", "port"),
            ("dkv://h:65536/S", "port"),
            ("dkv://h:port/S", "port"),
            ("dkv://::1/S", "brackets"),
            ("dkv://[::1/S", "']'"),
            ("dkv://[::1]7861/S", "':'"),
            ("dkv://h/S/T", "follow"),
            ("dkv://h,/S", "host is missing"),
            ("dkv://b%4:pw@h/S", "'%'"),
            ("dkv://:%4@h/S", "'%'"),
            ("dkv://inproc/demo", "inside the process"),
        ] {
            let error = Options::from_url(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let options = Options::from_url("dkv://:hunter2@h").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = Options::from_url("dkv://bob:hunter2@h:none").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
