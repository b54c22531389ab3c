//! The line of a user as rules make it of the one before: for commands, and for whoever changes users without a node.

use super::DEFAULT;
use super::command::UNREADABLE;
use super::user::{Hash, User};
use alloc::string::String;

const BAD_NAME: &str = "ERR Usernames can't contain spaces or null characters";
const NAME_IS_NO_TEXT: &str =
    "ERR a username is text in UTF-8 without control characters, and not empty";

/// The name of a user.
///
/// # Errors
/// Why it is none, as a reply.
pub(crate) fn name_of(name: &[u8]) -> Result<&str, &'static str> {
    if name.iter().any(|b| b.is_ascii_whitespace() || matches!(b, 0 | 0x0b)) {
        return Err(BAD_NAME);
    }
    let name = core::str::from_utf8(name).map_err(|_| NAME_IS_NO_TEXT)?;
    let good = !name.is_empty() && !name.chars().any(char::is_control);
    if good { Ok(name) } else { Err(NAME_IS_NO_TEXT) }
}

/// What ACL SETUSER with `rules` makes of a user: of its present line, or of a new user when there is none. The default user,
/// when nobody changed it, is what the password of the store makes of it.
///
/// # Errors
/// What is wrong with the name or the rules, in words.
pub fn user_line(
    present: Option<&str>,
    name: &str,
    store_password: Option<Hash>,
    rules: &[&[u8]],
) -> Result<String, String> {
    let in_words = |reply: &[u8]| -> String {
        let text = String::from_utf8_lossy(reply);
        text.strip_prefix("ERR ").unwrap_or(&text).into()
    };
    let name = name_of(name.as_bytes()).map_err(|why| in_words(why.as_bytes()))?;
    let mut user = match present {
        Some(line) => User::of_line(line).ok_or_else(|| in_words(UNREADABLE.as_bytes()))?,
        None if name == DEFAULT => User::default_with(store_password),
        None => User::new(name),
    };
    user.apply_all(rules, false).map_err(|why| in_words(&why))?;
    user.kept_line().map_err(|why| in_words(&why))
}

/// Whether who says nothing about who it is, is this user: it is on and has no password. False for what is no line of a user.
pub fn user_needs_no_password(line: &str) -> bool {
    User::of_line(line).is_some_and(|user| user.needs_no_password())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_applied_to_what_there_was() {
        let line =
            |present, name, password, rules: &[&[u8]]| user_line(present, name, password, rules);
        let bob = line(None, "bob", None, &[b"on", b"nopass", b"~app:*", b"+get"]).unwrap();
        assert!(bob.starts_with("user bob on nopass ") && bob.contains("~app:*"), "{bob}");
        let off = line(Some(&bob), "bob", None, &[b"off"]).unwrap();
        assert_eq!(off, bob.replacen(" on ", " off ", 1));
        // The password of the store is that of its default user, and stays so when another rule is given.
        let default = line(None, "default", Some([0xab; 32]), &[b"-flushall"]).unwrap();
        assert!(default.contains(&"ab".repeat(32)) && default.contains("-flushall"), "{default}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (name, rules, why) in [
            ("bob", &b"+nosuchcommand"[..], "nosuchcommand"),
            ("a b", b"on", "spaces"),
            ("", b"on", "empty"),
            ("bob", b"#12", "hash"),
        ] {
            let error = user_line(None, name, None, &[rules]).unwrap_err();
            assert!(error.contains(why) && !error.starts_with("ERR"), "{name}: {error}");
        }
    }

    #[test]
    fn only_a_user_that_is_on_and_without_password_is_open() {
        let of = |rules: &[&[u8]]| user_line(None, "default", None, rules).unwrap();
        assert!(user_needs_no_password(&of(&[])));
        for closed in [&[&b"off"[..]][..], &[b"resetpass"], &[b">secret"]] {
            assert!(!user_needs_no_password(&of(closed)), "{closed:?}");
        }
        assert!(!user_needs_no_password("nonsense"));
    }
}
