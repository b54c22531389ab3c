//! `store verify`: whether all copies of a store agree, range by range.
//!
//! Every shard of every node is asked for the sums of what it holds (DKV.CHECKSUM), on its own port. Two sums are compared
//! only when both tables stood at the same index while they were made; a range that changes meanwhile is asked for again
//! until the time is over, and then it is busy, not different. Nothing is changed in the store.

use super::{Shared, show};
use crate::clustron::Spelling;
use crate::contexts::{Contexts, Login};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::store_link::client_failure;
use dkv_client::{Client, ClientError, Options, Value};
use dkv_protocol::admin::{NodeView, StoreView};
use dkv_protocol::limits::{RANGES, SLOTS_PER_RANGE};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Ranges that all shards are asked for together: few, so that copies are looked at in about the same moment.
const TOGETHER: usize = 16;
/// Silence after which a shard counts as unreachable.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long copies are looked for that should be there: the managers notice within seconds that one is gone.
const MISSING_MAX: Duration = Duration::from_secs(5);
/// Rest before ranges that changed are asked for again.
const REST: Duration = Duration::from_millis(20);

/// What one shard holds of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    node: String,
    sum: String,
    index: u64,
    keys: u64,
    primary: bool,
    in_sync: u64,
    /// Whether it stood still while it was summed up.
    still: bool,
}

/// What was found out about a range.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Agree,
    Differ,
    /// It changed each time it was looked at.
    Busy,
    /// A copy, or the primary, was not found.
    Missing(String),
}

/// One shard with the connection to it.
struct Asked {
    node: String,
    client: Client,
}

/// Runs it.
pub(super) fn verify(
    name: &str,
    mut login: Login,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let began = Instant::now();
    let deadline = began + Duration::from_secs(shared.reach.timeout_sec);
    let listing = show::ask(shared, spelling)?;
    let store = show::find(&listing, name)?;
    // The connection of `kv connect` knows the password of its own store.
    let remembered = Contexts::load()?.connection.filter(|connection| connection.store == name);
    if let Some(connection) = remembered {
        login = login.or(connection.login);
    }
    let password = login.password()?;
    let mut shards = connect(store, login.user.as_deref(), password.as_deref(), deadline)?;
    let mut copies: Vec<Vec<Copy>> = vec![Vec::new(); RANGES];
    let mut findings = vec![Finding::Busy; RANGES];
    let mut pending: Vec<usize> = (0..RANGES).collect();
    while !pending.is_empty() {
        for some in pending.chunks(TOGETHER) {
            for (&range, found) in some.iter().zip(look(&mut shards, some, deadline)) {
                // Where there was no time to go to the end, what was seen before is what there is to show.
                if let Some(found) = found {
                    findings[range] = judge(&found);
                    copies[range] = found;
                }
            }
        }
        pending.retain(|&range| matches!(findings[range], Finding::Busy | Finding::Missing(_)));
        let left = deadline.saturating_duration_since(Instant::now());
        let only_missing = pending.iter().all(|&range| findings[range] != Finding::Busy);
        if left.is_zero() || shards.is_empty() || only_missing && began.elapsed() > MISSING_MAX {
            break;
        }
        if !pending.is_empty() {
            thread::park_timeout(REST.min(left));
        }
    }
    Ok(report(name, shared.output.output, &findings, &copies))
}

/// Connects to all shards that can be reached; says which cannot.
fn connect(
    store: &StoreView,
    user: Option<&str>,
    password: Option<&str>,
    deadline: Instant,
) -> Result<Vec<Asked>, Failure> {
    let mut shards = Vec::new();
    let mut failure = None;
    for node in &store.nodes {
        for port in &node.record.shard_ports {
            let left = deadline.saturating_duration_since(Instant::now());
            let options = Options {
                endpoints: vec![format!("{}:{port}", host(node))],
                user: user.map(str::to_owned),
                password: password.map(str::to_owned),
                store: Some(store.record.definition.name.clone()),
                timeout: SILENCE_MAX.min(left).max(REST),
                ..Options::default()
            };
            match Client::connect(options) {
                Ok(client) => shards.push(Asked { node: node.record.name.clone(), client }),
                Err(error) => {
                    output::warn(&format!("{}: {error}", node.record.name));
                    failure.get_or_insert(error);
                    // The node's other shards would say the same, each after its own silence.
                    break;
                }
            }
        }
    }
    match failure {
        Some(error) if shards.is_empty() => Err(client_failure(&error)),
        _ => Ok(shards),
    }
}

fn host(node: &NodeView) -> &str {
    let machine = &node.record.machine;
    machine.rsplit_once(':').map_or(machine.as_str(), |(host, _)| host)
}

/// The copies of some ranges, all shards asked at once; none of a range for which there was not enough time. A shard that
/// fails is asked no more.
fn look(shards: &mut Vec<Asked>, ranges: &[usize], deadline: Instant) -> Vec<Option<Vec<Copy>>> {
    let answers: Vec<Result<Vec<Option<Part>>, ClientError>> = thread::scope(|scope| {
        let asked: Vec<_> = shards
            .iter_mut()
            .map(|shard| scope.spawn(|| sums(&mut shard.client, ranges, deadline)))
            .collect();
        asked.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(Vec::new()))).collect()
    });
    let mut found: Vec<Option<Vec<Copy>>> = vec![Some(Vec::new()); ranges.len()];
    let mut failed = Vec::new();
    for (shard, answer) in shards.iter().zip(answers) {
        match answer {
            Ok(parts) => {
                for (copies, part) in found.iter_mut().zip(parts) {
                    match part {
                        Some(part) if part.role == b"none" => {}
                        Some(part) => {
                            if let Some(copies) = copies {
                                copies.push(part.copy(&shard.node));
                            }
                        }
                        None => *copies = None,
                    }
                }
                failed.push(false);
            }
            Err(error) => {
                output::warn(&format!("{}: {error}", shard.node));
                failed.push(true);
            }
        }
    }
    let mut failed = failed.into_iter();
    shards.retain(|_| !failed.next().unwrap_or(false));
    found
}

/// The sum of a range as far as one shard has been asked.
#[derive(Clone, Debug)]
struct Part {
    cursor: u64,
    sum: Vec<u8>,
    index: u64,
    keys: u64,
    role: Vec<u8>,
    in_sync: u64,
    still: bool,
}

impl Part {
    /// From a reply of DKV.CHECKSUM.
    fn parse(reply: Value) -> Option<Self> {
        let mut elements = reply.into_elements()?.into_iter();
        let mut next = || elements.next();
        let number = |value: Value| match value {
            Value::Integer(n) => u64::try_from(n).ok(),
            _ => None,
        };
        Some(Self {
            cursor: number(next()?)?,
            sum: next()?.into_bytes()?,
            index: number(next()?)?,
            keys: number(next()?)?,
            role: next()?.into_bytes()?,
            in_sync: number(next()?)?,
            still: true,
        })
    }

    fn copy(&self, node: &str) -> Copy {
        Copy {
            node: node.to_owned(),
            sum: String::from_utf8_lossy(&self.sum).into_owned(),
            index: self.index,
            keys: self.keys,
            primary: self.role == b"primary",
            in_sync: self.in_sync,
            still: self.still,
        }
    }
}

/// The whole sums of some ranges at one shard, a slice of each at a time.
fn sums(
    client: &mut Client,
    ranges: &[usize],
    deadline: Instant,
) -> Result<Vec<Option<Part>>, ClientError> {
    let mut parts: Vec<Option<Part>> = vec![None; ranges.len()];
    let mut going: Vec<usize> = (0..ranges.len()).collect();
    while !going.is_empty() {
        if Instant::now() >= deadline {
            for at in going {
                parts[at] = None;
            }
            break;
        }
        let commands: Vec<Vec<Vec<u8>>> = going
            .iter()
            .map(|&at| {
                let mut words = vec![b"DKV.CHECKSUM".to_vec(), ranges[at].to_string().into_bytes()];
                if let Some(part) = &parts[at] {
                    words.extend([part.cursor.to_string().into_bytes(), part.sum.clone()]);
                }
                words
            })
            .collect();
        let words: Vec<Vec<&[u8]>> =
            commands.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
        let words: Vec<&[&[u8]]> = words.iter().map(Vec::as_slice).collect();
        for (&at, reply) in going.iter().zip(client.call_many(&words)?) {
            if let Some(error) = reply.as_error() {
                return Err(ClientError::Server(error));
            }
            let Some(mut part) = Part::parse(reply) else {
                return Err(ClientError::Server("ERR no reply of DKV.CHECKSUM".into()));
            };
            if let Some(before) = &parts[at] {
                part.still = before.still && before.index == part.index && before.role == part.role;
            }
            parts[at] = Some(part);
        }
        going.retain(|&at| parts[at].as_ref().is_some_and(|part| part.cursor != 0 && part.still));
    }
    Ok(parts)
}

/// What the copies of a range that were found say about it.
fn judge(copies: &[Copy]) -> Finding {
    let mut primaries = copies.iter().filter(|copy| copy.primary);
    let primary = match (primaries.next(), primaries.next()) {
        (Some(primary), None) => primary,
        (None, _) => return Finding::Missing("its primary was not found".into()),
        (Some(_), Some(_)) => return Finding::Missing("two shards say that they lead it".into()),
    };
    if copies.iter().any(|copy| !copy.still || copy.index != primary.index) {
        return Finding::Busy;
    }
    if copies.iter().any(|copy| (&copy.sum, copy.keys) != (&primary.sum, primary.keys)) {
        return Finding::Differ;
    }
    if (copies.len() as u64) < primary.in_sync {
        let text = format!("{} of {} copies were found", copies.len(), primary.in_sync);
        return Finding::Missing(text);
    }
    Finding::Agree
}

/// Shows what was found; the exit code.
fn report(name: &str, format: Format, findings: &[Finding], copies: &[Vec<Copy>]) -> u8 {
    let count = |wanted: &dyn Fn(&Finding) -> bool| findings.iter().filter(|f| wanted(f)).count();
    let agree = count(&|f| *f == Finding::Agree);
    let differ = count(&|f| *f == Finding::Differ);
    let busy = count(&|f| *f == Finding::Busy);
    let missing = RANGES - agree - differ - busy;
    let primaries = || copies.iter().flatten().filter(|copy| copy.primary);
    let keys: u64 = primaries().map(|copy| copy.keys).sum();
    let mut by_copies: BTreeMap<usize, usize> = BTreeMap::new();
    for copies in copies {
        *by_copies.entry(copies.len()).or_default() += 1;
    }
    let alone = primaries().all(|copy| copy.in_sync == 1) && copies.iter().all(|c| c.len() <= 1);
    let head = ["Range", "Slots", "Result", "Node", "Role", "Index", "Keys", "Sum"];
    let mut rows: Vec<Vec<Json>> = Vec::new();
    for (range, (finding, copies)) in findings.iter().zip(copies).enumerate() {
        let result = match finding {
            Finding::Agree => continue,
            Finding::Differ => "differs".to_owned(),
            Finding::Busy => "busy".to_owned(),
            Finding::Missing(why) => format!("not compared: {why}"),
        };
        let slots = usize::from(SLOTS_PER_RANGE);
        let slots = format!("{}-{}", range * slots, (range + 1) * slots - 1);
        let about = [json!(range), json!(slots), json!(result)];
        if copies.is_empty() {
            rows.push(about.iter().cloned().chain(vec![Json::Null; head.len() - 3]).collect());
        }
        for copy in copies {
            let role = if copy.primary { "primary" } else { "replica" };
            // The sum of a part says nothing.
            let sum = if copy.still { json!(copy.sum) } else { Json::Null };
            let facts = [json!(copy.node), json!(role), json!(copy.index), json!(copy.keys), sum];
            rows.push(about.iter().cloned().chain(facts).collect());
        }
    }
    match format {
        Format::Json => output::json(&json!({
            "store": name,
            "ranges": {"agree": agree, "differ": differ, "busy": busy, "not_compared": missing},
            "copies": by_copies.iter().map(|(copies, ranges)| json!({"copies": copies, "ranges": ranges}))
                .collect::<Vec<_>>(),
            "keys": keys,
            "rows": rows.iter().map(|row| {
                let names = head.iter().map(|name| name.to_lowercase());
                Json::Object(names.zip(row.iter().cloned()).collect())
            }).collect::<Vec<_>>(),
        })),
        Format::Table => {
            output::line(&summary(name, [agree, differ, busy, missing], &by_copies, keys, alone));
            if !rows.is_empty() {
                output::rows(Format::Table, &head, &folded(&rows));
            }
        }
    }
    match (differ, busy + missing) {
        (0, 0) => 0,
        (0, _) => Exit::Partly as u8,
        _ => Exit::Failed as u8,
    }
}

/// Ranges that follow each other and of which there is the same to say, and no copy to show, are one row for people.
fn folded(rows: &[Vec<Json>]) -> Vec<Vec<Json>> {
    const NODE: usize = 3;
    let whole = |rows: &[Vec<Json>]| -> Vec<Json> {
        let [first, .., last] = rows else { return rows.concat() };
        let start = |at: usize| first[at].to_string().trim_matches('"').to_owned();
        let from = start(1).split('-').next().map(str::to_owned).unwrap_or_default();
        let to = last[1].as_str().and_then(|slots| slots.split('-').nth(1)).unwrap_or_default();
        let mut row = first.clone();
        row[0] = json!(format!("{}-{}", start(0), last[0]));
        row[1] = json!(format!("{from}-{to}"));
        row
    };
    let next_to = |one: &Vec<Json>, other: &Vec<Json>| {
        let follows = one[0].as_u64().map(|range| range + 1) == other[0].as_u64();
        follows && one[NODE].is_null() && other[NODE].is_null() && one[2] == other[2]
    };
    rows.chunk_by(next_to).map(whole).collect()
}

/// The line about the store.
fn summary(
    name: &str,
    [agree, differ, busy, missing]: [usize; 4],
    by_copies: &BTreeMap<usize, usize>,
    keys: u64,
    alone: bool,
) -> String {
    let mut text = if alone && agree == RANGES {
        format!("{name}: no copies to compare; {RANGES} ranges")
    } else {
        let copies: Vec<String> = by_copies.keys().rev().map(usize::to_string).collect();
        format!("{name}: {agree} of {RANGES} ranges agree in {} copies", copies.join(" or "))
    };
    for (count, what) in [(differ, "differ"), (busy, "busy"), (missing, "not compared")] {
        if count > 0 {
            text.extend([", ", &count.to_string(), " ", what]);
        }
    }
    text.extend([", ", &keys.to_string(), " keys"]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(primary: bool, sum: &str, index: u64, in_sync: u64) -> Copy {
        let (node, sum) = ("node1".into(), sum.into());
        Copy { node, sum, index, keys: 1, primary, in_sync, still: true }
    }

    #[test]
    fn copies_are_compared_at_the_same_index_alone() {
        let primary = copy(true, "a", 5, 2);
        let moving = Copy { still: false, ..copy(false, "b", 5, 2) };
        for (other, expected) in [
            (Some(copy(false, "a", 5, 2)), Finding::Agree),
            (Some(copy(false, "b", 5, 2)), Finding::Differ),
            (Some(Copy { keys: 2, ..copy(false, "a", 5, 2) }), Finding::Differ),
            (Some(copy(false, "b", 4, 2)), Finding::Busy),
            (Some(moving), Finding::Busy),
            (
                Some(copy(true, "a", 5, 2)),
                Finding::Missing("two shards say that they lead it".into()),
            ),
            (None, Finding::Missing("1 of 2 copies were found".into())),
        ] {
            let copies: Vec<Copy> = [primary.clone()].into_iter().chain(other).collect();
            assert_eq!(judge(&copies), expected, "{copies:?}");
        }
        assert_eq!(judge(&[copy(true, "a", 5, 1)]), Finding::Agree);
        assert_eq!(judge(&[]), Finding::Missing("its primary was not found".into()));
    }

    #[test]
    fn ranges_of_which_there_is_the_same_to_say_are_one_row() {
        let row = |range: u64, result: &str, node: Json| {
            let slots = format!("{}-{}", range * 64, range * 64 + 63);
            vec![json!(range), json!(slots), json!(result), node]
        };
        let none = Json::Null;
        let rows = [
            row(0, "lost", none.clone()),
            row(1, "lost", none.clone()),
            row(2, "lost", none.clone()),
            row(3, "other", none.clone()),
            row(5, "other", none.clone()),
            row(6, "differs", json!("node1")),
            row(6, "differs", json!("node2")),
        ];
        let mut expected = rows[2..].to_vec();
        expected[0] = vec![json!("0-2"), json!("0-191"), json!("lost"), none];
        assert_eq!(folded(&rows), expected);
        assert!(folded(&[]).is_empty());
    }

    #[test]
    fn the_line_of_a_store_says_what_was_compared() {
        for (counts, copies, alone, expected) in [
            ([256, 0, 0, 0], 2, false, "S: 256 of 256 ranges agree in 2 copies, 7 keys"),
            ([256, 0, 0, 0], 1, true, "S: no copies to compare; 256 ranges, 7 keys"),
            (
                [250, 1, 2, 3],
                2,
                false,
                "S: 250 of 256 ranges agree in 2 copies, 1 differ, 2 busy, 3 not compared, 7 keys",
            ),
        ] {
            assert_eq!(summary("S", counts, &BTreeMap::from([(copies, 256)]), 7, alone), expected);
        }
    }
}
