//! Taking secrets out of what leaves the machine: those that are known by their text, and those that look like one. Pure.
//!
//! It rather takes out too much. A name of a file that holds a secret is none.

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in the place of a secret.
pub(super) const MARK: &str = "[redacted]";
/// A secret that is known by its text and shorter is left to the other rules: it would be found in every word.
const CHARS_MIN: usize = 4;
/// Words that make the name of a value a secret's.
const WORDS: &str = "passw(?:or)?d|passphrase|secret|token|credential|api_?key|private_?key|requirepass|masterauth|authorization|hash_?seed|proof|nonce";

/// See the module.
pub(super) struct Redactor {
    /// Longest first, so that none is cut by one that it contains.
    known: Vec<String>,
    key: Regex,
    private_key: Regex,
    bearer: Regex,
    named: Regex,
    hash: Regex,
    acl_line: Regex,
    acl_rule: Regex,
}

impl Redactor {
    pub(super) fn new(known: impl IntoIterator<Item = String>) -> Self {
        let regex = |text: &str| Regex::new(text).expect("the patterns are tested");
        let mut known: Vec<String> = known
            .into_iter()
            .map(|secret| secret.trim().to_owned())
            .filter(|secret| secret.chars().count() >= CHARS_MIN)
            .collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        Self {
            known,
            key: regex(&format!("(?i)(?:{WORDS})")),
            private_key: regex(
                r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
            ),
            bearer: regex(r#"(?i)\b(bearer\s+|signature=)[^\s",;]+"#),
            named: regex(&format!(
                r#"(?i)([\w-]*(?:{WORDS})[\w-]*)(\\?["']?\s*[:=]\s*|\s+(?:is|was)\s+|\s+)(\\?"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;}}\]]+)"#
            )),
            // A SHA-256, a token as it is made by default, a secret of links.
            hash: regex(r"[0-9a-fA-F]{64,}"),
            acl_line: regex(r"(?i)\b(?:user|setuser)\s"),
            acl_rule: regex(r#"(^|[\s"'])([><#!])[^\s"']+"#),
        }
    }

    /// A text without secrets.
    pub(super) fn text(&self, text: &str) -> String {
        let text = self.private_key.replace_all(text, MARK);
        let mut text = text.into_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MARK);
            }
        }
        let text =
            self.bearer.replace_all(&text, |found: &Captures<'_>| format!("{}{MARK}", &found[1]));
        let text = self.named.replace_all(&text, |found: &Captures<'_>| {
            // After a blank alone only what is a directive's value, not a sentence about passwords.
            let directive =
                ["requirepass", "masterauth"].contains(&found[1].to_lowercase().as_str());
            let apart =
                found[2].trim().is_empty() || found[2].trim().chars().all(char::is_alphabetic);
            if is_place(&found[1]) || (apart && !directive) || found[3].contains(MARK) {
                return found[0].to_owned();
            }
            format!("{}{}{MARK}", &found[1], &found[2])
        });
        let text = self.hash.replace_all(&text, MARK);
        let lines = text.split_inclusive('\n').map(|line| {
            if self.acl_line.is_match(line) {
                self.acl_rule.replace_all(line, format!("${{1}}${{2}}{MARK}")).into_owned()
            } else {
                line.to_owned()
            }
        });
        lines.collect()
    }

    /// A document without secrets: neither in its texts nor under a name that is a secret's.
    pub(super) fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(list) => list.into_iter().map(|value| self.json(value)).collect(),
            Value::Object(map) => {
                let field = |(name, value): (String, Value)| {
                    let secret = self.key.is_match(&name) && !is_place(&name);
                    let hidden =
                        secret && !matches!(value, Value::Null | Value::Bool(_) | Value::Number(_));
                    let value = if hidden { Value::from(MARK) } else { self.json(value) };
                    (name, value)
                };
                Value::Object(map.into_iter().map(field).collect())
            }
            other => other,
        }
    }
}

/// Whether a name is that of a place where a secret is, and not of the secret.
fn is_place(name: &str) -> bool {
    let name = name.to_lowercase();
    ["file", "path", "dir"].iter().any(|end| name.trim_end_matches('s').ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn redactor() -> Redactor {
        Redactor::new(["opensesame1".to_owned(), "ab".to_owned(), "opensesame1234".to_owned()])
    }

    #[test]
    fn secrets_are_taken_out_wherever_they_stand() {
        let hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbd".to_owned() + &"0".repeat(20);
        let cases = [
            ("client opensesame1234 said".to_owned(), "client [redacted] said"),
            ("Authorization: Bearer s3cr3tvalue".into(), "Authorization: [redacted] [redacted]"),
            ("sent bearer s3cr3tvalue, then".into(), "sent bearer [redacted], then"),
            (
                "time=1,nonce=77,signature=ffee".into(),
                "time=1,nonce=[redacted],signature=[redacted]",
            ),
            ("password=s3cr3tvalue x".into(), "password=[redacted] x"),
            ("DKV_PASSWORD: 's3cr3t value' x".into(), "DKV_PASSWORD: [redacted] x"),
            (r#"{"password":"s3cr3t \"v"}"#.into(), r#"{"password":[redacted]}"#),
            (
                r#"launch {\"cluster_secret\":\"s3\"}"#.into(),
                r#"launch {\"cluster_secret\":[redacted]}"#,
            ),
            ("requirepass s3cr3tvalue".into(), "requirepass [redacted]"),
            (format!("sum {hash} ends"), "sum [redacted] ends"),
            (format!("user ann on #{hash} ~* +@all"), "user ann on #[redacted] ~* +@all"),
            (
                "ACL SETUSER ann on >s3cr3t <old ~k".into(),
                "ACL SETUSER ann on >[redacted] <[redacted] ~k",
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nafter"
                    .into(),
                "[redacted]\nafter",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIIabc cut off".into(), "[redacted]"),
        ];
        for (text, wanted) in cases {
            assert_eq!(redactor().text(&text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "token_file=/etc/dkv/token\nfine",
            "the password is not set; wrong password from 10.0.0.1",
            "dkv_store_id:0123456789abcdef0123456789abcdef",
            "ERROR port 7811 is in use #12 >30 ms",
            "used_memory:1048576",
        ] {
            assert_eq!(redactor().text(text), text);
        }
    }

    #[test]
    fn documents_keep_their_shape() {
        let document = json!({
            "hash_seed": "0123", "password_sha256": "ab", "token_file": "/a/token", "name": "opensesame1",
            "list": [{"cluster_secret": "x", "password_sha256": null, "tokens": 3}],
        });
        let wanted = json!({
            "hash_seed": MARK, "password_sha256": MARK, "token_file": "/a/token", "name": MARK,
            "list": [{"cluster_secret": MARK, "password_sha256": null, "tokens": 3}],
        });
        assert_eq!(redactor().json(document), wanted);
    }
}
