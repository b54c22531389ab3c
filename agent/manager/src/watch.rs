//! The watch over a node that serves: its counters are asked for at every beat, its log is kept within its bound, and one
//! that does not answer, or that the others take for dead, is ended.

use crate::catalogue::Agent;
use crate::client::unix_s;
use crate::control;
use crate::history::{self, Trail};
use crate::process::{self, Signaller};
use crate::ranges::NodeKey;
use crate::samples::Samples;
use crate::serve;
use crate::supervise::NodePaths;
use dkv_protocol::control::ControlRequest;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// After as many samples without an answer a node is called silent.
const SILENT_SAMPLES: u32 = 3;

/// What a node's task shares with the API beside the catalogue.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) samples: Mutex<Samples>,
    pub(crate) trail: Mutex<Trail>,
    /// Samples in a row that the node did not answer.
    silent: AtomicU32,
    /// Whether its process was killed for its silence, which is its own fault.
    hung: AtomicBool,
}

impl Live {
    /// Whether a running node has stopped answering its manager.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Relaxed) >= SILENT_SAMPLES
    }

    /// Whether the process that has ended was killed for its silence. Asked once for each.
    pub(crate) fn take_hung(&self) -> bool {
        self.hung.swap(false, Relaxed)
    }
}

/// Asks a node for its counters at every beat, and keeps its log within its bound. A `watched` one that does not answer
/// for long is killed, because what it leads cannot be led by others before it is certainly gone. An `unanswering` one
/// has to make its control socket anew first, and is given as long as for a start.
pub(crate) async fn watch(
    agent: Arc<Agent>,
    live: Arc<Live>,
    paths: NodePaths,
    watched: Option<(NodeKey, Signaller)>,
    unanswering: bool,
) {
    live.silent.store(0, Relaxed);
    let pace = agent.options().pace;
    // Until its first answer, as much time as for a start.
    let mut silence_max =
        if unanswering { pace.ready_max.max(pace.silence_max) } else { pace.silence_max };
    let mut silent_since: Option<Instant> = None;
    let mut beat = tokio::time::interval(pace.sample);
    let fenced = |key: &NodeKey| agent.ranges().is_fenced(key);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let asked = Instant::now();
        if let Some((key, signaller)) = watched.as_ref().filter(|(key, _)| fenced(key)) {
            tracing::error!(
                node = key.node.0,
                "taken for dead by the managers; killed, to be started as another"
            );
            signaller.kill();
            return;
        }
        if let Ok(status) = control::ask(&paths.socket, ControlRequest::Status).await {
            live.silent.store(0, Relaxed);
            silent_since = None;
            silence_max = pace.silence_max;
            let mut samples = live.samples.lock().expect("no holder of this lock panics");
            samples.add(Instant::now(), status);
            if let Some(now) = samples.metrics(agent.machine(), history::WINDOW) {
                live.trail.lock().expect("no holder of this lock panics").note(unix_s(), &now);
            }
        } else {
            live.silent.fetch_add(1, Relaxed);
            // Somebody may have cleared away the directory of its socket, which the node makes anew once it can.
            if !paths.socket.exists()
                && let Err(error) = serve::make_directories(&agent.options().data_dir)
            {
                tracing::warn!(%error, "cannot make the directories of the nodes anew");
            }
            let since = *silent_since.get_or_insert(asked);
            let long = since.elapsed() > silence_max;
            if let (true, Some((key, signaller))) = (long, &watched) {
                if let Some(to_end) = agent.ranges().may_kill(key).await {
                    tracing::error!(log = %paths.log.display(), "silent; killed, so that others may lead");
                    live.hung.store(true, Relaxed);
                    signaller.kill();
                    to_end.ended();
                    return;
                }
                tracing::warn!(
                    log = %paths.log.display(),
                    "silent; not killed: nobody decides who leads, or it has the last copy of some ranges but for nodes that end"
                );
            }
        }
        if let Err(error) = process::bound_log(&paths.log, process::LOG_BYTES_MAX) {
            tracing::warn!(%error, log = %paths.log.display(), "cannot bound the log");
        }
    }
}
