//! The Clustron spelling: `dkv New-DkvStore -Name TestStore …`. A translation table in front of the same commands: it
//! turns a cmdlet into the arguments of a native command and knows nothing of what those do.

mod table;
mod translate;

pub(crate) use table::CMDLETS;
pub(crate) use translate::{Translated, translate};

/// In which words the person speaks, for the few texts that name a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// `dkv store create …`
    Native,
    /// `dkv New-DkvStore …`
    Clustron,
}

/// Whether an argument is meant as a cmdlet: `Verb-Noun`, in whatever case.
pub(crate) fn is_cmdlet(argument: &str) -> bool {
    let known = CMDLETS.iter().any(|cmdlet| cmdlet.name.eq_ignore_ascii_case(argument));
    known
        || argument
            .to_ascii_lowercase()
            .split_once('-')
            .is_some_and(|(_, noun)| noun.starts_with("dkv"))
}
