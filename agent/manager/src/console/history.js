// What the charts show: the figures of the last five minutes, as the managers remember them and this page
// sees them.

/** How far back, in milliseconds. */
export const SPAN_MS = 300_000;

let ticks = [];
const BEGIN_MS = SPAN_MS + 10_000;

/** Notes what the nodes do; figures of longer ago are forgotten. */
export const note = (at, nodes) => {
  ticks.push({ at, nodes: nodes.map((one) => ({
    store: one.store, node: one.node,
    gets: one.gets.per_second, puts: one.puts.per_second, removes: one.removes.per_second,
    p50_us: one.p50_us, p99_us: one.p99_us, p999_us: one.p999_us,
  })) });
  while (ticks[0].at < at - BEGIN_MS) ticks.shift();
};

/** Takes what the managers remember for what was. `aheadMs` is how far their clock is ahead of this one. */
export const recall = ({ step_s: step, nodes }, aheadMs) => {
  const found = new Map();
  for (const { store, node, points: own } of nodes) {
    for (const point of own) {
      // A point tells of the whole step that begins there.
      const at = (point.at_s + step) * 1000 - aheadMs;
      if (!found.has(at)) found.set(at, { at, nodes: [] });
      found.get(at).nodes.push({ ...point, store, node });
    }
  }
  const newest = ticks.at(-1)?.at ?? Date.now();
  const past = [...found.values()].filter(({ at }) => at < newest - step * 500).sort((a, b) => a.at - b.at);
  ticks = [...past, ...ticks.slice(-1)];
};

export const forget = () => { ticks = []; };

const sum = (nodes, of) => {
  const known = nodes.map(of).filter((value) => value != null);
  return known.length > 0 ? known.reduce((a, b) => a + b, 0) : null;
};
const most = (nodes, of) => {
  const known = nodes.map(of).filter((value) => value != null);
  return known.length > 0 ? Math.max(...known) : null;
};

/** The figures of some nodes as one: rates added up; of percentiles, which cannot be added, those of the slowest node. */
export const together = (nodes) => ({
  commands: sum(nodes, (node) => node.commands.per_second),
  errors: sum(nodes, (node) => node.errors.per_second),
  stalls: sum(nodes, (node) => node.stalls.per_second),
  keys: sum(nodes, (node) => node.keys),
  connections: sum(nodes, (node) => node.connections),
  memory: sum(nodes, (node) => node.memory_bytes),
  cpus: sum(nodes, (node) => node.cpus_used),
  lag: most(nodes, (node) => node.replication_lag),
  p99: most(nodes, (node) => node.p99_us),
});

/** The points of a store, or of one of its nodes, in order of time. */
export const points = (store, node) => ticks.map(({ at, nodes }) => {
  const own = nodes.filter((one) => one.store === store && (!node || one.node === node));
  return {
    at,
    gets: sum(own, (one) => one.gets), puts: sum(own, (one) => one.puts), removes: sum(own, (one) => one.removes),
    p50: most(own, (one) => one.p50_us), p99: most(own, (one) => one.p99_us), p999: most(own, (one) => one.p999_us),
  };
});
