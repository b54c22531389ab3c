// What the charts show: the figures of the last five minutes, as this page saw them.

/** How far back, in milliseconds. */
export const SPAN_MS = 300_000;

const ticks = [];

/** Notes what the nodes did; figures of longer ago are forgotten. */
export const note = (at, nodes) => {
  ticks.push({ at, nodes });
  while (ticks[0].at < at - SPAN_MS - 10_000) ticks.shift();
};

export const forget = () => { ticks.length = 0; };

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
  gets: sum(nodes, (node) => node.gets.per_second),
  puts: sum(nodes, (node) => node.puts.per_second),
  removes: sum(nodes, (node) => node.removes.per_second),
  commands: sum(nodes, (node) => node.commands.per_second),
  errors: sum(nodes, (node) => node.errors.per_second),
  stalls: sum(nodes, (node) => node.stalls.per_second),
  keys: sum(nodes, (node) => node.keys),
  connections: sum(nodes, (node) => node.connections),
  memory: sum(nodes, (node) => node.memory_bytes),
  cpus: sum(nodes, (node) => node.cpus_used),
  lag: most(nodes, (node) => node.replication_lag),
  p50: most(nodes, (node) => node.p50_us),
  p99: most(nodes, (node) => node.p99_us),
  p999: most(nodes, (node) => node.p999_us),
});

/** The points of a store, or of one of its nodes, in order of time. */
export const points = (store, node) => ticks.map(({ at, nodes }) => ({
  at,
  ...together(nodes.filter((one) => one.store === store && (!node || one.node === node))),
}));
