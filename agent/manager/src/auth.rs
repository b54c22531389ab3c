//! Who may call the admin API: the token, how it is kept in a file, and how a request proves it.
//!
//! Within a machine the token travels as `Authorization: Bearer`. Elsewhere it never travels: a request carries an
//! HMAC-SHA256 over method, host, path with query, body, a nonce and the time, so that it can neither be changed, nor
//! sent to another manager of the group, nor sent twice. Knows nothing of HTTP libraries: strings in, verdicts out.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use subtle::ConstantTimeEq;

/// How far the clocks of two machines may differ, in seconds: a signed request is good for as long.
pub const CLOCK_DIFFERENCE_S_MAX: u64 = 60;
/// Most signed requests that are remembered against being sent twice: a thousand a second for twice the window.
const NONCES_MAX: usize = 120_000;
/// Shortest token, in characters. 32 random bytes in hexadecimal are 64.
const TOKEN_CHARS_MIN: usize = 32;
/// Longest token, in characters.
const TOKEN_CHARS_MAX: usize = 256;
const SCHEME: &str = "DKV-HMAC-SHA256";

/// The secret of a group of managers. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a token file cannot be used. The operator recovers, as each text says.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not there, or not readable.
    #[error(
        "cannot read the token file {path}: {source}. Give the file of the manager with --token-file or DKV_TOKEN_FILE"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the token file {path} has mode {mode:04o}, so others may read or write it. Type: chmod 600 {path}"
    )]
    Mode {
        /// The file.
        path: String,
        /// Its mode bits.
        mode: u32,
    },
    /// Somebody else owns it.
    #[error(
        "the token file {path} belongs to user {owner}, not to you or root. Type: chown {user} {path}"
    )]
    Owner {
        /// The file.
        path: String,
        /// Its owner.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// Not a token.
    #[error(
        "the token file {path} does not hold a token ({TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} printable characters on one \
         line). Make one with: (umask 077; openssl rand -hex 32 > {path})"
    )]
    Content {
        /// The file.
        path: String,
    },
    /// Could not be written.
    #[error("cannot write the token file {path}: {source}")]
    Unwritable {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
}

impl Token {
    /// Takes a token as text.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&text.len());
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_string()))
    }

    /// Reads a token file. It must be the user's own (or root's) and nobody else's to read.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable =
            |source| TokenError::Unreadable { path: path.display().to_string(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        let mode = about.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Mode { path: path.display().to_string(), mode });
        }
        let user = rustix::process::geteuid().as_raw();
        if about.uid() != user && about.uid() != 0 {
            return Err(TokenError::Owner {
                path: path.display().to_string(),
                owner: about.uid(),
                user,
            });
        }
        let mut text = Vec::new();
        (&mut file).take(4096).read_to_end(&mut text).map_err(unreadable)?;
        std::str::from_utf8(&text)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| TokenError::Content { path: path.display().to_string() })
    }

    /// Reads the token at `path`; when there is no file yet, writes one with 32 random bytes in hexadecimal. Safe against
    /// being killed in between and against two starts at once: the file appears whole or not at all.
    pub fn read_or_create(path: &Path) -> Result<Self, TokenError> {
        match Self::read(path) {
            Err(TokenError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let unwritable =
            |source| TokenError::Unwritable { path: path.display().to_string(), source };
        let part = path.with_extension("new");
        let _ = std::fs::remove_file(&part);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(unwritable)?;
        file.write_all(format!("{}\n", random_hex(32)).as_bytes()).map_err(unwritable)?;
        file.sync_all().map_err(unwritable)?;
        match std::fs::hard_link(&part, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unwritable(error));
            }
            _ => {}
        }
        std::fs::remove_file(&part).map_err(unwritable)?;
        Self::read(path)
    }

    /// The secret of the cluster links of one store, 64 hexadecimal digits.
    pub fn cluster_secret(&self, store_id: &str) -> String {
        hex(&self.mac(&[b"dkv cluster ", store_id.as_bytes()]))
    }

    /// The value of the `Authorization` header on loopback.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// What reads `/metrics` from any machine as a Bearer token, and nothing else: 64 hexadecimal digits, of which the token
    /// cannot be made.
    pub fn metrics_token(&self) -> String {
        hex(&self.mac(&[b"dkv metrics 1"]))
    }

    /// The value of the `Authorization` header elsewhere, for a request made at `unix_s`.
    pub fn sign(&self, request: &Signed<'_>, unix_s: u64) -> String {
        let nonce = random_hex(16);
        let signature = hex(&self.request_mac(request, &nonce, unix_s));
        format!("{SCHEME} time={unix_s},nonce={nonce},signature={signature}")
    }

    /// Proves that an answer comes from a manager of the group, to the one request with that nonce.
    pub(crate) fn prove_answer(&self, nonce: &str, text: &str) -> String {
        hex(&self.mac(&[b"dkv catch-up 1\n", nonce.as_bytes(), b"\n", text.as_bytes()]))
    }

    /// Whether [`Token::prove_answer`] made this proof.
    pub(crate) fn is_proof(&self, nonce: &str, text: &str, proof: &str) -> bool {
        let wanted = self.prove_answer(nonce, text);
        bool::from(wanted.as_bytes().ct_eq(proof.as_bytes()))
    }

    fn request_mac(&self, request: &Signed<'_>, nonce: &str, unix_s: u64) -> [u8; 32] {
        let body = hex(&Sha256::digest(request.body));
        let Signed { method, host, target, .. } = request;
        let text = format!("dkv admin 1\n{method}\n{host}\n{target}\n{body}\n{nonce}\n{unix_s}");
        self.mac(&[text.as_bytes()])
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("a key of any length is fine");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// What a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `GET`.
    pub method: &'a str,
    /// The `Host` header, so that a request to one manager is no good at another.
    pub host: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// The whole body.
    pub body: &'a [u8],
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No `Authorization` header.
    Missing,
    /// A header that is neither of the two kinds.
    Malformed,
    /// The token itself, sent over a network.
    BearerFromElsewhere,
    /// The wrong token.
    Wrong,
    /// Signed too long ago, or in the future.
    Clock,
    /// Seen before.
    Replayed,
    /// More signed requests within the window than can be remembered.
    TooMany,
}

/// Checks requests against a token and remembers what it has seen.
#[derive(Debug)]
pub struct Gate {
    token: Token,
    /// Nonces by time, of requests whose time is still good.
    seen: BTreeSet<(u64, String)>,
}

impl Gate {
    /// A gate that nothing has passed yet.
    pub fn new(token: Token) -> Self {
        Self { token, seen: BTreeSet::new() }
    }

    /// Whether a call may pass. `header` is its `Authorization`.
    pub fn check(
        &mut self,
        header: Option<&str>,
        from_loopback: bool,
        request: &Signed<'_>,
        unix_s: u64,
    ) -> Result<(), Denied> {
        let header = header.ok_or(Denied::Missing)?;
        let (scheme, rest) = header.split_once(' ').ok_or(Denied::Malformed)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return if self.reads_metrics(rest.trim(), request) {
                Ok(())
            } else {
                self.check_bearer(rest.trim(), from_loopback)
            };
        }
        if scheme != SCHEME {
            return Err(Denied::Malformed);
        }
        self.check_signature(rest, request, unix_s)
    }

    /// Whether it is the metrics token, and they are all that is asked for.
    fn reads_metrics(&self, given: &str, request: &Signed<'_>) -> bool {
        let path = request.target.split('?').next().unwrap_or_default();
        let wanted = self.token.metrics_token();
        request.method == "GET"
            && path == "/metrics"
            && bool::from(given.as_bytes().ct_eq(wanted.as_bytes()))
    }

    fn check_bearer(&self, given: &str, from_loopback: bool) -> Result<(), Denied> {
        if !from_loopback {
            return Err(Denied::BearerFromElsewhere);
        }
        // Compared as digests: equal lengths, so that the time says nothing of the token's length either.
        let given = Sha256::digest(given.as_bytes());
        let wanted = Sha256::digest(self.token.0.as_bytes());
        if bool::from(given.as_slice().ct_eq(wanted.as_slice())) {
            Ok(())
        } else {
            Err(Denied::Wrong)
        }
    }

    fn check_signature(
        &mut self,
        fields: &str,
        request: &Signed<'_>,
        unix_s: u64,
    ) -> Result<(), Denied> {
        let (mut time, mut nonce, mut signature) = (None, None, None);
        for field in fields.split(',') {
            match field.trim().split_once('=') {
                Some(("time", value)) => time = value.parse::<u64>().ok(),
                Some(("nonce", value)) => nonce = Some(value),
                Some(("signature", value)) => signature = unhex(value),
                _ => return Err(Denied::Malformed),
            }
        }
        let (Some(time), Some(nonce), Some(signature)) = (time, nonce, signature) else {
            return Err(Denied::Malformed);
        };
        if nonce.len() != 32 || !nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Denied::Malformed);
        }
        let wanted = self.token.request_mac(request, nonce, time);
        if !bool::from(signature.as_slice().ct_eq(wanted.as_slice())) {
            return Err(Denied::Wrong);
        }
        // Only after the signature: an outsider must learn nothing of the clock and fill no memory.
        if time.abs_diff(unix_s) > CLOCK_DIFFERENCE_S_MAX {
            return Err(Denied::Clock);
        }
        let oldest = unix_s.saturating_sub(CLOCK_DIFFERENCE_S_MAX);
        self.seen = self.seen.split_off(&(oldest, String::new()));
        if self.seen.len() >= NONCES_MAX {
            return Err(Denied::TooMany);
        }
        let new = self.seen.insert((time, nonce.to_ascii_lowercase()));
        if new { Ok(()) } else { Err(Denied::Replayed) }
    }
}

/// `bytes` random bytes in hexadecimal.
pub fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).expect("the kernel gives random bytes after boot");
    hex(&buffer)
}

/// The SHA-256 of a client password, as a store's definition holds it.
pub fn password_sha256(password: &[u8]) -> String {
    hex(&Sha256::digest(password))
}

/// Lower case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).expect("four bits are a digit"));
        }
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.len() > 128 {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: u64 = 1_700_000_000;

    fn token() -> Token {
        Token::new(&"7f".repeat(32)).unwrap()
    }

    fn request(body: &[u8]) -> Signed<'_> {
        Signed { method: "POST", host: "10.0.0.11:7801", target: "/admin/v1/stores?x=1", body }
    }

    #[test]
    fn the_token_passes_from_loopback_only() {
        let mut gate = Gate::new(token());
        let header = token().bearer();
        assert_eq!(gate.check(Some(&header), true, &request(b""), NOW), Ok(()));
        let elsewhere = gate.check(Some(&header), false, &request(b""), NOW);
        assert_eq!(elsewhere, Err(Denied::BearerFromElsewhere));
        for (header, denied) in [
            (None, Denied::Missing),
            (Some("Bearer"), Denied::Malformed),
            (Some("Bearer 00"), Denied::Wrong),
            (Some("Basic eDp5"), Denied::Malformed),
            (Some("DKV-HMAC-SHA256 time=1"), Denied::Malformed),
            (Some("DKV-HMAC-SHA256 time=1,nonce=é,signature=zz"), Denied::Malformed),
        ] {
            assert_eq!(gate.check(header, true, &request(b""), NOW), Err(denied), "{header:?}");
        }
    }

    #[test]
    fn the_metrics_token_reads_metrics_from_anywhere_and_does_nothing_else() {
        let mut gate = Gate::new(token());
        let header = format!("Bearer {}", token().metrics_token());
        let metrics = Signed { method: "GET", target: "/metrics", ..request(b"") };
        for target in ["/metrics", "/metrics?x=1"] {
            let request = Signed { target, ..metrics };
            assert_eq!(gate.check(Some(&header), false, &request, NOW), Ok(()));
        }
        for refused in [
            request(b""),
            Signed { method: "POST", ..metrics },
            Signed { target: "/admin/v1/metrics", ..metrics },
            Signed { target: "/metrics/", ..metrics },
        ] {
            let elsewhere = gate.check(Some(&header), false, &refused, NOW);
            assert_eq!(elsewhere, Err(Denied::BearerFromElsewhere), "{refused:?}");
            assert_eq!(gate.check(Some(&header), true, &refused, NOW), Err(Denied::Wrong));
        }
        // Another group has another one.
        let other = Token::new(&"80".repeat(32)).unwrap();
        let other = format!("Bearer {}", other.metrics_token());
        assert!(gate.check(Some(&other), false, &metrics, NOW).is_err());
        assert_eq!(
            gate.check(Some(&token().bearer()), false, &metrics, NOW),
            Err(Denied::BearerFromElsewhere)
        );
    }

    #[test]
    fn a_signed_request_passes_once_and_unchanged() {
        let mut gate = Gate::new(token());
        let header = token().sign(&request(b"{}"), NOW);
        for changed in [
            Signed { method: "DELETE", ..request(b"{}") },
            Signed { host: "10.0.0.12:7801", ..request(b"{}") },
            Signed { target: "/admin/v1/stores?x=2", ..request(b"{}") },
            request(b"{ }"),
        ] {
            assert_eq!(gate.check(Some(&header), false, &changed, NOW), Err(Denied::Wrong));
        }
        assert_eq!(gate.check(Some(&header), false, &request(b"{}"), NOW + 30), Ok(()));
        let again = gate.check(Some(&header), false, &request(b"{}"), NOW + 31);
        assert_eq!(again, Err(Denied::Replayed));
    }

    #[test]
    fn a_request_of_another_time_is_refused_and_old_nonces_are_forgotten() {
        let mut gate = Gate::new(token());
        for (made, checked, verdict) in [
            (NOW, NOW + 60, Ok(())),
            (NOW, NOW + 61, Err(Denied::Clock)),
            (NOW + 160, NOW + 99, Err(Denied::Clock)),
            (NOW + 159, NOW + 99, Ok(())),
            (NOW + 400, NOW + 400, Ok(())),
        ] {
            let header = token().sign(&request(b""), made);
            assert_eq!(gate.check(Some(&header), false, &request(b""), checked), verdict);
        }
        assert_eq!(gate.seen.len(), 1);
    }

    #[test]
    fn token_files_are_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let first = Token::read_or_create(&path).unwrap();
        assert_eq!(Token::read_or_create(&path).unwrap(), first);
        assert_eq!(first.0.len(), 64);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!dir.path().join("token.new").exists());

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Token::read(&path).unwrap_err().to_string();
        assert!(refused.contains("0640") && refused.contains("chmod 600"), "{refused}");

        std::fs::write(&path, "short\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Token::read(&path).unwrap_err().to_string().contains("openssl rand -hex 32"));
    }

    #[test]
    fn each_store_has_a_cluster_secret_of_its_own() {
        let secret = token().cluster_secret("aa");
        assert_eq!(secret.len(), 64);
        assert_ne!(secret, token().cluster_secret("ab"));
        assert_eq!(format!("{:?}", token()), "Token(..)");
    }
}
