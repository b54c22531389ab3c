//! What a store does when its memory is at its limit, by the names that Redis gives to the policies.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Eviction {
    /// Writes are refused with `-OOM`.
    #[default]
    #[serde(rename = "noeviction")]
    None,
    /// The key that was not used for the longest goes.
    #[serde(rename = "allkeys-lru")]
    AllKeysLru,
    /// The key that is used least often goes.
    #[serde(rename = "allkeys-lfu")]
    AllKeysLfu,
    /// Any key goes.
    #[serde(rename = "allkeys-random")]
    AllKeysRandom,
    /// The key with an expiry that was not used for the longest goes.
    VolatileLru,
    /// The key with an expiry that is used least often goes.
    VolatileLfu,
    /// Any key with an expiry goes.
    VolatileRandom,
    /// The key that expires next goes.
    VolatileTtl,
}

impl Eviction {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::None, "noeviction"),
        (Self::AllKeysLru, "allkeys-lru"),
        (Self::AllKeysLfu, "allkeys-lfu"),
        (Self::AllKeysRandom, "allkeys-random"),
        (Self::VolatileLru, "volatile-lru"),
        (Self::VolatileLfu, "volatile-lfu"),
        (Self::VolatileRandom, "volatile-random"),
        (Self::VolatileTtl, "volatile-ttl"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(policy, _)| *policy == self).map_or("", |(_, name)| name)
    }

    /// Whether nothing is ever evicted.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none; its text says which there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownEviction;

impl fmt::Display for UnknownEviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is one of")?;
        Eviction::ALL.iter().try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

impl core::error::Error for UnknownEviction {}

impl FromStr for Eviction {
    type Err = UnknownEviction;

    fn from_str(text: &str) -> Result<Self, UnknownEviction> {
        let known = Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        known.map(|(policy, _)| *policy).ok_or(UnknownEviction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_policy_has_one_name_everywhere() {
        for (policy, name) in Eviction::ALL {
            assert_eq!(policy.to_string(), name);
            assert_eq!(name.to_uppercase().parse(), Ok(policy));
            assert_eq!(serde_json::to_value(policy).unwrap(), name);
            assert_eq!(serde_json::from_value::<Eviction>(name.into()).unwrap(), policy);
        }
        assert_eq!("lru".parse::<Eviction>(), Err(UnknownEviction));
        assert!(UnknownEviction.to_string().ends_with("volatile-random volatile-ttl"));
    }
}
