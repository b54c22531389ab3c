// Numbers and states as people read them.

const NONE = "–";
const digits = (value) => {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(2).replace(/\.?0+$/, "");
};

/** 950, 1.25k, 12.3M. */
export const count = (value) => {
  if (value == null) return NONE;
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= unit * 0.9995) return digits(value / unit) + letter;
  }
  return value >= 10 || Number.isInteger(value) ? Math.round(value).toString() : digits(value);
};

/** 85 µs, 1.2 ms, 2.5 s. */
export const micros = (value) => {
  if (value == null) return NONE;
  if (value >= 1e6) return `${digits(value / 1e6)} s`;
  return value >= 1e3 ? `${digits(value / 1e3)} ms` : `${digits(value)} µs`;
};

/** 12.3 MiB. */
export const size = (value) => {
  if (value == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${digits(value)} ${units[at]}`;
};

export const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

export const timeOfDay = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

/** How a state looks: a mark besides the word, so that nothing depends on colour. */
export const look = (state) => ({
  Running: ["good", "●"],
  Starting: ["busy", "◔"],
  Spawning: ["busy", "◔"],
  Restarting: ["busy", "◔"],
  Stopping: ["busy", "◑"],
  Partial: ["warn", "◐"],
  Failed: ["bad", "✕"],
  Unknown: ["bad", "?"],
}[state] ?? ["rest", "○"]);

/** Several ports as few words: 7861–7863, or 7861, 7870. */
export const ports = (all) => {
  const sorted = [...new Set(all)].sort((a, b) => a - b);
  const runs = [];
  for (const port of sorted) {
    const last = runs.at(-1);
    if (last && port === last[1] + 1) last[1] = port;
    else runs.push([port, port]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
};
