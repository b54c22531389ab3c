//! Ports of new nodes: those that were named, or the next free ones of the documented ranges.

use crate::refusal::Refusal;
use dkv_protocol::limits::{
    CLIENT_PORT, CLIENT_PORT_LAST, CLUSTER_PORT, CLUSTER_PORT_LAST, SHARD_PORT, SHARD_PORT_LAST,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// What the new nodes of one machine need.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortWish {
    /// New nodes.
    pub(crate) count: u32,
    /// Shards of each.
    pub(crate) shards: Vec<u32>,
    /// First cluster port; none: the next free ones.
    pub(crate) cluster: Option<u16>,
    /// First client port; none: the next free ones.
    pub(crate) client: Option<u16>,
}

/// The ports of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePorts {
    pub(crate) cluster: u16,
    pub(crate) client: u16,
    pub(crate) shards: Vec<u16>,
}

/// What is known of the machine's ports.
pub(crate) struct Held<'a> {
    /// Ports that DKV has given out, with the words for who holds them.
    pub(crate) given: &'a BTreeMap<u16, String>,
    /// Who else holds a port, in words; found out by trying.
    pub(crate) foreign: &'a mut dyn FnMut(u16) -> Option<String>,
}

impl Held<'_> {
    fn by(&mut self, port: u16) -> Option<String> {
        self.given.get(&port).cloned().or_else(|| (self.foreign)(port))
    }
}

/// Gives ports to new nodes, with warnings, or says why not. Nothing is held by it.
pub(crate) fn assign(
    wish: &PortWish,
    held: &mut Held<'_>,
) -> Result<(Vec<NodePorts>, Vec<String>), Refusal> {
    check_ranges(wish)?;
    let mut mine = BTreeSet::new();
    let mut named = |base: Option<u16>, what, option| {
        let Some(base) = base else { return Ok(None) };
        let ports: Vec<u16> = (0..wish.count as u16).map(|i| base + i).collect();
        for port in &ports {
            if let Some(holder) = held.by(*port) {
                return Err(in_use(*port, what, option, &holder));
            }
        }
        mine.extend(ports.iter().copied());
        Ok(Some(ports))
    };
    let cluster = named(wish.cluster, "cluster port", "--clustron-port")?;
    let client = named(wish.client, "client port", "--client-port")?;
    let cluster = match cluster {
        Some(ports) => ports,
        None => next_free(
            CLUSTER_PORT..=CLUSTER_PORT_LAST,
            wish.count,
            &mut mine,
            held,
            ("cluster", "--clustron-port"),
        )?,
    };
    let client = match client {
        Some(ports) => ports,
        None => next_free(
            CLIENT_PORT..=CLIENT_PORT_LAST,
            wish.count,
            &mut mine,
            held,
            ("client", "--client-port"),
        )?,
    };
    let mut candidates = SHARD_PORT..=u16::MAX;
    let mut nodes = Vec::new();
    for ((cluster, client), shards) in cluster.into_iter().zip(client).zip(&wish.shards) {
        let mut ports = Vec::new();
        while ports.len() < *shards as usize {
            let Some(port) = candidates.next() else {
                return Err(Refusal::conflict(
                    "no_free_port",
                    format!("no free port for the shards from {SHARD_PORT} up"),
                    "give fewer CPUs or fewer nodes",
                ));
            };
            if !mine.contains(&port) && held.by(port).is_none() {
                ports.push(port);
            }
        }
        nodes.push(NodePorts { cluster, client, shards: ports });
    }
    let last = nodes.iter().filter_map(|node| node.shards.last()).max();
    let beyond = last.filter(|port| **port > SHARD_PORT_LAST).map(|port| {
        format!(
            "the shard ports run to {port}, beyond the documented range {SHARD_PORT} to {SHARD_PORT_LAST}: open them in \
             the firewall for cluster clients"
        )
    });
    Ok((nodes, beyond.into_iter().collect()))
}

fn in_use(port: u16, what: &str, option: &str, holder: &str) -> Refusal {
    Refusal::conflict(
        "port_in_use",
        format!("{what} {port} is held by {holder}"),
        format!(
            "give another {option}, or leave it out to get the next free ones; a store that is not needed any more frees \
             its ports: dkv store stop NAME, then dkv store delete NAME"
        ),
    )
}

/// Ranges that cannot be, whatever is free.
fn check_ranges(wish: &PortWish) -> Result<(), Refusal> {
    for (base, what, option) in
        [(wish.cluster, "cluster", "--clustron-port"), (wish.client, "client", "--client-port")]
    {
        let Some(base) = base else { continue };
        if base == 0 {
            return Err(Refusal::bad(
                "bad_port",
                format!("0 is not a {what} port"),
                format!("give {option} from 1024 to 65535, or leave it out"),
            ));
        }
        let fit = u32::from(u16::MAX - base) + 1;
        if wish.count > fit {
            return Err(Refusal::bad(
                "bad_port",
                format!("{} nodes from {what} port {base} run past 65535: {fit} fit", wish.count),
                format!("give a smaller {option}, or --instance-count {fit}"),
            ));
        }
    }
    if let (Some(cluster), Some(client)) = (wish.cluster, wish.client) {
        let fit = u32::from(cluster.abs_diff(client));
        if wish.count > fit {
            let message = format!(
                "the cluster ports {cluster} to {} and the client ports {client} to {} overlap: {fit} instances fit between",
                u32::from(cluster) + wish.count - 1,
                u32::from(client) + wish.count - 1,
            );
            let hint = if fit == 0 {
                "give different ports, as --clustron-port 7811 --client-port 7861".to_string()
            } else {
                format!("give --instance-count {fit}, or ports further apart")
            };
            return Err(Refusal::bad("ports_overlap", message, hint));
        }
    }
    Ok(())
}

/// The first run of free ports; scattered ones when there is no run that is long enough.
fn next_free(
    range: RangeInclusive<u16>,
    count: u32,
    mine: &mut BTreeSet<u16>,
    held: &mut Held<'_>,
    (what, option): (&str, &str),
) -> Result<Vec<u16>, Refusal> {
    let count = count as usize;
    let (first, last) = (*range.start(), *range.end());
    let mut free: Vec<u16> = Vec::new();
    let mut run_start = 0;
    for port in range {
        if mine.contains(&port) || held.by(port).is_some() {
            continue;
        }
        if free.last().is_some_and(|before| before + 1 != port) {
            run_start = free.len();
        }
        free.push(port);
        if free.len() - run_start >= count {
            let run = free.split_off(run_start);
            mine.extend(run.iter().copied());
            return Ok(run);
        }
    }
    if free.len() < count {
        let needed = match count {
            1 => format!("1 {what} port is"),
            count => format!("{count} {what} ports are"),
        };
        let hint = match free.len() {
            0 => format!("delete a store that is not needed, or name others with {option}"),
            some => format!("give --instance-count {some} or less, or name others with {option}"),
        };
        return Err(Refusal::conflict(
            "no_free_port",
            format!(
                "{needed} needed and {} of {first} to {last} are free on this machine",
                free.len()
            ),
            hint,
        ));
    }
    free.truncate(count);
    mine.extend(free.iter().copied());
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        wish: (u32, Option<u16>, Option<u16>),
        given: &'static [(u16, &'static str)],
        foreign: &'static [u16],
        wanted: Result<&'static [(u16, u16, u16)], &'static [&'static str]>,
    }

    #[test]
    fn ports_are_given_by_the_documented_rules() {
        const TEST_STORE: &[(u16, &str)] = &[
            (7811, "node node1 of the store TestStore on 10.0.0.11:7801"),
            (7861, "node node1 of the store TestStore on 10.0.0.11:7801"),
            (7900, "node node1 of the store TestStore on 10.0.0.11:7801"),
        ];
        let cases = [
            Case {
                wish: (2, None, None),
                given: &[],
                foreign: &[],
                wanted: Ok(&[(7811, 7861, 7900), (7812, 7862, 7901)]),
            },
            Case {
                wish: (2, Some(7811), Some(7861)),
                given: &[],
                foreign: &[],
                wanted: Ok(&[(7811, 7861, 7900), (7812, 7862, 7901)]),
            },
            // The next free ones, past another store and a stranger.
            Case {
                wish: (2, None, None),
                given: TEST_STORE,
                foreign: &[7863],
                wanted: Ok(&[(7812, 7864, 7901), (7813, 7865, 7902)]),
            },
            // One named, the other free around it.
            Case {
                wish: (2, Some(7861), None),
                given: &[],
                foreign: &[],
                wanted: Ok(&[(7861, 7863, 7900), (7862, 7864, 7901)]),
            },
            // Far from the documented ranges.
            Case {
                wish: (1, Some(9000), Some(9100)),
                given: &[],
                foreign: &[],
                wanted: Ok(&[(9000, 9100, 7900)]),
            },
            Case {
                wish: (1, Some(7811), Some(7870)),
                given: TEST_STORE,
                foreign: &[],
                wanted: Err(&["7811", "node1", "TestStore", "10.0.0.11:7801"]),
            },
            Case {
                wish: (2, Some(7811), Some(7861)),
                given: &[],
                foreign: &[7862],
                wanted: Err(&["7862", "stranger"]),
            },
            Case {
                wish: (10, Some(7811), Some(7815)),
                given: &[],
                foreign: &[],
                wanted: Err(&["overlap", "4 instances"]),
            },
            Case {
                wish: (10, Some(7821), Some(7815)),
                given: &[],
                foreign: &[],
                wanted: Err(&["overlap", "6 instances"]),
            },
            Case {
                wish: (1, Some(7811), Some(7811)),
                given: &[],
                foreign: &[],
                wanted: Err(&["overlap", "different ports"]),
            },
            Case {
                wish: (3, Some(65534), None),
                given: &[],
                foreign: &[],
                wanted: Err(&["65535", "2 fit"]),
            },
            Case { wish: (1, Some(0), None), given: &[], foreign: &[], wanted: Err(&["0 is not"]) },
            Case {
                wish: (39, None, None),
                given: TEST_STORE,
                foreign: &[],
                wanted: Err(&["39 client ports", "38"]),
            },
        ];
        for Case { wish: (count, cluster, client), given, foreign, wanted } in cases {
            let wish = PortWish { count, shards: vec![1; count as usize], cluster, client };
            let given = given.iter().map(|(port, who)| (*port, (*who).to_string())).collect();
            let mut stranger =
                |port: u16| foreign.contains(&port).then(|| "a stranger".to_string());
            let mut held = Held { given: &given, foreign: &mut stranger };
            match (assign(&wish, &mut held), wanted) {
                (Ok((nodes, _)), Ok(wanted)) => {
                    let got: Vec<_> =
                        nodes.iter().map(|n| (n.cluster, n.client, n.shards[0])).collect();
                    assert_eq!(got, wanted, "{wish:?}");
                }
                (Err(refusal), Err(words)) => {
                    let text = format!("{} {}", refusal.message, refusal.hint);
                    for word in words {
                        assert!(text.contains(word), "{word:?} is not in {text:?}");
                    }
                }
                (got, wanted) => panic!("{wish:?}: {got:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn shard_ports_run_on_beyond_their_range_with_a_warning() {
        let wish = PortWish { count: 2, shards: vec![64, 64], cluster: None, client: None };
        let given = BTreeMap::new();
        let mut held = Held { given: &given, foreign: &mut |_| None };
        let (nodes, warnings) = assign(&wish, &mut held).unwrap();
        assert_eq!(nodes[1].shards.last(), Some(&8027));
        assert!(warnings[0].contains("8027"));
    }
}
