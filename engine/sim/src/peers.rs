//! Messages of copies, asks and configurations, as short as a reader of a trace wants them.

use crate::scenario::machine_of;
use dkv_cluster::RangeView;
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::peer::{Message, read_batch};
use dkv_protocol::ranges::{Change, ConfigAsk, RangeConfig, Rid};
use std::fmt::Write;

/// `n1/3f.2` is generation 2 of the boot that ends in 3f on node 1.
pub(crate) fn rid(rid: Rid) -> String {
    format!("n{}/{:02x}.{}", rid.addr.node.0, rid.boot.0 & 0xff, rid.generation)
}

/// An ask on one line.
pub(crate) fn ask(ask: &ConfigAsk) -> String {
    let change = match ask.change {
        Change::Shrink { remove } => format!("shrink {}", rid(remove)),
        Change::Expand { add } => format!("expand {}", rid(add)),
        Change::Take => "take".into(),
        Change::Transfer { to } => format!("transfer {}", rid(to)),
        Change::Discarded => "discarded".into(),
        Change::Leave => "leave".into(),
    };
    format!("r{} e{} {} {change}", ask.range.0, ask.epoch.0, rid(ask.caller))
}

/// A configuration and a placement on one line.
pub(crate) fn config(config: &RangeConfig, placement: &[ShardAddr]) -> String {
    let members: Vec<String> = config.in_sync.iter().map(|member| rid(*member)).collect();
    let wished: Vec<String> = placement.iter().map(|addr| format!("n{}", addr.node.0)).collect();
    format!(
        "e{} {:?} led by {} in sync {members:?} wished {wished:?}",
        config.epoch.0,
        config.state,
        rid(config.primary),
    )
}

/// What a node knows of a range, on one line.
pub(crate) fn view(view: &RangeView) -> String {
    let copies: Vec<String> = view
        .copies
        .iter()
        .map(|copy| format!("{} in sync {} lag {}", rid(copy.rid), copy.in_sync, copy.lag))
        .collect();
    format!(
        "{:?} e{} {} whole {} leader {:?} log {}..{} commit {} copies {copies:?}",
        view.role,
        view.epoch.0,
        rid(view.me),
        view.whole,
        view.primary.map(machine_of),
        view.first,
        view.last,
        view.commit,
    )
}

/// A batch on one line.
pub(crate) fn shown(body: &[u8]) -> String {
    let Ok((_, messages)) = read_batch(body) else {
        return format!("{} bytes that are no batch", body.len());
    };
    let mut text = String::new();
    for message in messages {
        let written = match message {
            Ok(Message::Prepare { place, entries }) => write!(
                text,
                "prepare(r{} e{} {}+{} of e{}, after e{}, commit {}) ",
                place.range.0,
                place.epoch.0,
                place.prev_index,
                entries.count(),
                place.entry_epoch.0,
                place.prev_epoch.0,
                place.commit,
            ),
            Ok(Message::Beacon { round, ranges, .. }) => {
                write!(text, "beacon({round}:").ok();
                for of in ranges {
                    write!(text, " r{} e{} commit {}", of.range.0, of.epoch.0, of.commit).ok();
                }
                write!(text, ") ")
            }
            Ok(Message::Echo { round, ranges, .. }) => {
                write!(text, "echo({round}:").ok();
                for of in ranges {
                    write!(text, " r{} e{}", of.range.0, of.epoch.0).ok();
                }
                write!(text, ") ")
            }
            Ok(Message::Slice { slice, records }) => {
                write!(text, "slice({slice:?}, {} records) ", records.count())
            }
            Ok(other) => write!(text, "{:.160} ", format!("{other:?}")),
            Err(error) => write!(text, "{error} "),
        };
        written.ok();
    }
    text
}
