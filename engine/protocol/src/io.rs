//! Which way of input and output a node shall take.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoChoice {
    /// io_uring where the kernel gives it, epoll where it does not, said loudly.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll, whatever the kernel would give.
    Epoll,
}

impl IoChoice {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Auto, "auto"), (Self::Uring, "uring"), (Self::Epoll, "epoll")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(choice, _)| *choice == self).map_or("", |(_, name)| name)
    }

    /// Whether the node chooses.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl fmt::Display for IoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none; its text says which there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIo;

impl fmt::Display for UnknownIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is one of")?;
        IoChoice::ALL.iter().try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

impl core::error::Error for UnknownIo {}

impl FromStr for IoChoice {
    type Err = UnknownIo;

    fn from_str(text: &str) -> Result<Self, UnknownIo> {
        let known = Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        known.map(|(choice, _)| *choice).ok_or(UnknownIo)
    }
}

/// The short name of the way of input and output that a node's description of itself (`io=epoll kernel=…`) begins with.
pub fn short_name(description: &str) -> Option<&str> {
    description.strip_prefix("io=")?.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_choice_has_one_name_everywhere() {
        for (choice, name) in IoChoice::ALL {
            assert_eq!(choice.to_string(), name);
            assert_eq!(name.to_uppercase().parse(), Ok(choice));
            assert_eq!(serde_json::to_value(choice).unwrap(), name);
            assert_eq!(serde_json::from_value::<IoChoice>(name.into()).unwrap(), choice);
        }
        assert_eq!("io_uring".parse::<IoChoice>(), Err(UnknownIo));
        assert!(UnknownIo.to_string().ends_with("auto uring epoll"));
    }

    #[test]
    fn a_description_begins_with_its_short_name() {
        assert_eq!(short_name("io=epoll kernel=6.12 recv=1024x4KiB"), Some("epoll"));
        assert_eq!(short_name("io=uring"), Some("uring"));
        assert_eq!(short_name("none"), None);
    }
}
