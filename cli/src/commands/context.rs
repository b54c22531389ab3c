//! `dkv context`: the remembered groups of managers.

use crate::contexts::Contexts;
use crate::failure::Failure;
use crate::output::{self, OutputArgs};
use serde_json::json;

/// The subcommands of `dkv context`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Shows all contexts
    #[command(after_help = "Example:\n  dkv context list -o json")]
    List {
        /// See [`OutputArgs`].
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Makes a context the one in use
    #[command(after_help = "Example:\n  dkv context use local")]
    Use {
        /// Its name
        name: String,
    },
    /// Forgets a context; nothing but this file is changed
    #[command(after_help = "Example:\n  dkv context delete local")]
    Delete {
        /// Its name
        name: String,
    },
}

/// Runs it.
pub(crate) fn run(command: &Command) -> Result<u8, Failure> {
    let contexts = Contexts::load()?;
    match command {
        Command::List { output } => {
            let rows: Vec<_> = contexts
                .contexts
                .iter()
                .map(|(name, context)| {
                    let current = contexts.current.as_ref() == Some(name);
                    vec![json!(name), json!(current), json!(context.managers), json!(context.store)]
                })
                .collect();
            output::rows(output.output, &["Name", "Current", "Managers", "Store"], &rows);
        }
        Command::Use { name } => {
            let (name, context) =
                contexts.pick(Some(name))?.expect("a named context is found or an error");
            Contexts::update(|contexts| contexts.current = Some(name.to_owned()))?;
            output::line(&format!("context {name}: {}", context.managers.join(", ")));
        }
        Command::Delete { name } => {
            contexts.pick(Some(name))?;
            Contexts::update(|contexts| {
                contexts.contexts.remove(name);
                contexts.current.take_if(|current| current == name);
            })?;
            output::line(&format!(
                "context {name} is forgotten; its managers and stores are as they were"
            ));
        }
    }
    Ok(0)
}
