//! Logs: one line an event on standard error, with time, store, node and shard. `DKV_LOG` or `RUST_LOG` filters.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging for this process. Called once, before anything can go wrong.
pub(crate) fn start() {
    let text = ["DKV_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let (filter, refused) = match text.as_deref().map(EnvFilter::try_new) {
        None => (EnvFilter::new("info"), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new("info"), Some(error)),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Who reads the log may go away. Saying so to a pipe that nobody reads would end the node.
        .log_internal_errors(false)
        .finish();
    // Somebody who embeds a node may have a subscriber of their own; theirs stays.
    if tracing::subscriber::set_global_default(subscriber).is_ok()
        && let Some(error) = refused
    {
        tracing::warn!(%error, "the log filter is not understood; logging at info");
    }
}
