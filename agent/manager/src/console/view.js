// What the page shows of the documents that the manager answers. Knows nothing of how they come in.

import { ask, underWay } from "./commands.js";
import { each, el, id, mark, say } from "./dom.js";
import { together } from "./history.js";
import { count, look, micros, plural, ports, size } from "./words.js";

const nameOf = (store) => store.record.definition.name;

const badge = () => el("span", { class: "badge" }, el("span", { "aria-hidden": "true" }), el("span"));
const setBadge = (element, state, text = state) => {
  const [kind, sign] = look(state);
  mark(element, "class", `badge ${kind}`);
  say(element.firstChild, sign);
  say(element.lastChild, text);
};

/** What is not as it should be with a store, each a sentence. */
const remarks = (store) => {
  const found = [];
  const copies = store.copies;
  // Of a store at rest nothing is missing: its next start begins anew.
  const running = store.status === "Running" || store.status === "Partial";
  if (running && copies) {
    const some = (number, one, many) => { if (number) found.push(plural(number, one, many)); };
    const lost = `lost all copies: see dkv store show ${nameOf(store)}`;
    some(copies.offline_ranges, `range has ${lost}`, `ranges have ${lost}`);
    some(copies.unformed_ranges, "range is served by nobody yet", "ranges are served by nobody yet");
    some(copies.degraded_ranges, "range has fewer copies in sync than asked for",
      "ranges have fewer copies in sync than asked for");
    some(copies.moving_ranges, "range moves to where it should be", "ranges move to where they should be");
  }
  for (const node of store.nodes) {
    const apart = node.state === "Running" && !node.cluster_ok && store.nodes.length > 1;
    if (node.message) found.push(`${node.name}: ${node.message.split("\n")[0]}`);
    else if (apart) found.push(`${node.name} does not reach all other nodes`);
    else if (node.state === null) found.push(`${node.name}: its machine ${node.machine} is not reached`);
  }
  return found;
};

const setRemarks = (list, texts) => {
  each(list, texts, (text) => text, (text) => el("li", {}, el("span", { "aria-hidden": "true" }, "▲ "), text), () => {});
  list.hidden = texts.length === 0;
};

const copiesOf = ({ replication }) => {
  if (!replication) return "none besides the primary";
  const ack = replication.ack === "async" ? "answered before they have it" : "answered when all have it";
  return `${replication.replicas} besides the primary, ${ack}`;
};

const fact = (list, name, text) => {
  let row = list.querySelector(`[data-fact="${name}"]`);
  if (!row) {
    row = el("div", { "data-fact": name }, el("dt", {}, name), el("dd"));
    list.append(row);
  }
  say(row.lastChild, text);
};

const storeCard = (state, store) => {
  const name = nameOf(store);
  const button = (kind, word) => el("button", { type: "button", "data-kind": kind, "aria-label": `${word} ${name}`,
    onclick: () => ask(kind, state.stores.find((one) => nameOf(one) === name), state.refresh) }, word);
  return el("article", { class: "card store", "aria-label": `Store ${name}` },
    el("div", { class: "head" },
      el("h3", {}, el("button", { type: "button", class: "name", onclick: () => state.select(name) }, name)), badge()),
    el("dl", { class: "facts" }), el("ul", { class: "remarks" }),
    el("div", { class: "buttons" }, button("start", "Start"), button("restart", "Restart"), button("stop", "Stop"),
      el("span", { class: "doing", role: "status" })));
};

const setStoreCard = (state, card, store) => {
  const [head, facts, list, buttons] = card.children;
  const { definition } = store.record;
  const selected = state.selected === nameOf(store);
  mark(card, "class", selected ? "card store selected" : "card store");
  mark(head.querySelector("button"), "aria-pressed", String(selected));
  setBadge(head.lastChild, store.status);
  const running = store.nodes.filter((node) => node.state === "Running").length;
  const live = together(state.metrics.nodes.filter((node) => node.store === nameOf(store)));
  fact(facts, "Nodes", `${running} of ${store.nodes.length} running`);
  fact(facts, "Operations", live.commands === null ? "–" : `${count(live.commands)}/s`);
  fact(facts, "Client ports", ports(store.nodes.map((node) => node.client_port)));
  fact(facts, "Cluster ports", ports(store.nodes.map((node) => node.cluster_port)));
  fact(facts, "Copies", copiesOf(definition));
  const open = definition.protected_mode ? "no password: this host only" : "no password, open to other hosts";
  fact(facts, "Access", definition.password_sha256 ? "password" : open);
  setRemarks(list, remarks(store));
  const doing = underWay.get(nameOf(store));
  const could = {
    start: running < store.nodes.length && store.nodes.length > 0,
    restart: running > 0,
    stop: store.nodes.some((node) => !["Stopped", "Requested"].includes(node.state)),
  };
  for (const button of buttons.querySelectorAll("button")) {
    // Who has just pressed it keeps the focus there while it works.
    const off = Boolean(doing) || !could[button.dataset.kind];
    if (button.disabled !== off) button.disabled = off;
  }
  say(buttons.lastChild, doing ?? "");
};

const TILES = [
  ["Operations", (live) => (live.commands === null ? "–" : `${count(live.commands)}/s`), "of all nodes"],
  ["p99 latency", (live) => micros(live.p99), "of the slowest node"],
  ["Keys", (live) => count(live.keys), "now"],
  ["Data", (live) => size(live.memory), "against the limit"],
  ["Clients", (live) => count(live.connections), "connections"],
  ["CPU", (live) => (live.cpus === null ? "–" : live.cpus.toFixed(2)), "CPUs in use"],
  ["Errors", (live) => (live.errors === null ? "–" : `${count(live.errors)}/s`), "replies"],
  ["Replication lag", (live) => count(live.lag), "changes behind"],
];

const setTiles = (live) => each(id("tiles"), TILES, ([name]) => name,
  ([name, , note]) => el("div", { class: "card tile" }, el("dt", {}, name), el("dd", {}, el("span"), el("small", {}, note ?? ""))),
  (tile, [, text]) => say(tile.lastChild.firstChild, text(live)));

const rate = (of) => (row) => row.live?.[of].per_second;
const copies = (row) => row.copies;
const leads = (own) => {
  if (!own) return "only copy";
  return own.leads + ({ follows: ", only follows", leaves: ", leaving" }[own.duty] ?? "");
};
/** Head, how it is sorted, what it says, and what the head means. */
const COLUMNS = [
  ["Node", (row) => row.at, (row) => row.node.name, "In the order of their numbers"],
  ["Machine", (row) => row.node.machine, (row) => row.node.machine, "The machine, by its manager's address"],
  ["State", (row) => row.node.state ?? "", null, "As its own manager knows it"],
  ["Leads", (row) => copies(row)?.leads, (row) => leads(copies(row)), "Ranges that it is the primary of"],
  ["Copies", (row) => copies(row)?.in_sync, (row) => (copies(row) ? `${copies(row).in_sync - copies(row).leads}` : "–"),
    "Ranges of others that it holds a copy of, in sync"],
  ["Degraded", (row) => row.behind, (row) => (row.behind > 0 ? `▲ ${row.behind}` : `${row.behind ?? "–"}`),
    "Ranges of which it should have a copy in sync and has not"],
  ["Get/s", rate("gets"), (row) => count(rate("gets")(row)), "Reads a second"],
  ["Set/s", rate("puts"), (row) => count(rate("puts")(row)), "Writes a second"],
  ["Remove/s", rate("removes"), (row) => count(rate("removes")(row)), "Removals a second"],
  ["p50", (row) => row.live?.p50_us, (row) => micros(row.live?.p50_us),
    "Half of the commands took at most so long in the node"],
  ["p99", (row) => row.live?.p99_us, (row) => micros(row.live?.p99_us), "99 of 100"],
  ["p99.9", (row) => row.live?.p999_us, (row) => micros(row.live?.p999_us), "999 of 1000"],
  ["Memory", (row) => row.live?.resident_bytes, (row) => size(row.live?.resident_bytes), "Of the process, resident"],
  ["Clients", (row) => row.live?.connections, (row) => count(row.live?.connections), "Client connections"],
  ["Lag", (row) => row.live?.replication_lag, (row) => count(row.live?.replication_lag),
    "Changes that the copy furthest behind does not hold yet"],
];
let sorted = { by: 0, down: false };

const heads = (redraw) => {
  id("heads").append(...COLUMNS.map(([name, , , what], at) => el("th", { scope: "col", role: "columnheader" },
    el("button", { type: "button", title: what, onclick: () => {
      sorted = { by: at, down: sorted.by === at ? !sorted.down : at > 2 };
      redraw();
    } }, name, el("span", { class: "arrow", "aria-hidden": "true" })))));
};

const setNodes = (state, store) => {
  if (id("heads").childElementCount === 0) {
    heads(() => setNodes(state, state.stores.find((one) => nameOf(one) === state.selected)));
  }
  const rests = !["Running", "Partial"].includes(store.status);
  const rows = store.nodes.map((node, at) => {
    const own = store.copies?.nodes.find((one) => one.name === node.name);
    const live = state.metrics.nodes.find((one) => one.store === nameOf(store) && one.node === node.name);
    return { at, node, copies: own, live, behind: own && !rests ? Math.max(0, own.placed - own.in_sync) : null };
  });
  const of = COLUMNS[sorted.by][1];
  const order = (a, b) => {
    const [left, right] = [of(a), of(b)];
    // What has no value comes last in either direction.
    if (left == null || right == null) return (left == null) - (right == null) || a.at - b.at;
    const less = left < right ? -1 : left > right ? 1 : 0;
    return (sorted.down ? -less : less) || a.at - b.at;
  };
  rows.sort(order);
  Array.from(id("heads").children).forEach((head, at) => {
    const on = at === sorted.by;
    mark(head, "aria-sort", on ? (sorted.down ? "descending" : "ascending") : null);
    say(head.querySelector(".arrow"), on ? (sorted.down ? " ▾" : " ▴") : "");
  });
  each(id("rows"), rows, ({ node }) => node.name,
    () => el("tr", { role: "row" }, ...COLUMNS.map(([name], at) => (at === 0
      ? el("th", { "data-name": name, scope: "row", role: "rowheader" })
      : el("td", { "data-name": name, role: "cell" }, name === "State" ? badge() : null)))),
    (line, row) => COLUMNS.forEach(([name, , text], at) => {
      const cell = line.children[at];
      if (name === "State") setBadge(cell.firstChild, row.node.state ?? "Unknown", row.node.state ?? "Not reached");
      else say(cell, text(row));
      if (name === "Degraded") mark(cell, "class", row.behind ? "warned" : null);
    }));
};

const roleOf = (one) => {
  const roles = [];
  if (one.leads) roles.push("leader");
  else if (one.votes !== undefined) roles.push(one.votes ? "voter" : "learner");
  if (one.witness) roles.push("witness: runs no nodes");
  return roles.join(", ") || "decides alone";
};

const setMachines = (state) => {
  const { standing } = state.managers;
  id("machines").hidden = standing.length === 0;
  each(id("machine-cards"), standing, (one) => one.machine,
    (one) => el("article", { class: "card machine", "aria-label": `Machine ${one.machine}` },
      el("div", { class: "head" }, el("h3", {}, one.machine), badge()), el("dl", { class: "facts" })),
    (card, one) => {
      const [head, facts] = card.children;
      setBadge(head.lastChild, one.reachable ? "Running" : "Failed", one.reachable ? "Reachable" : "Not reached");
      fact(facts, "Manager", [one.machine === state.managers.this ? "this one" : null, roleOf(one), one.version].filter(Boolean).join(", "));
      const nodes = state.stores.flatMap((store) => store.nodes.filter((node) => node.machine === one.machine));
      const running = nodes.filter((node) => node.state === "Running").length;
      fact(facts, "Nodes", nodes.length === 0 ? "none" : `${running} of ${nodes.length} running`);
      fact(facts, "If it fails", one.fate ?? "its nodes are down until it is back");
      fact(facts, "Trouble", one.reason ?? "");
      facts.querySelector("[data-fact=Trouble]").hidden = !one.reason;
    });
};

const setPicker = (select, names, chosen) => {
  each(select, names, ([value]) => value, ([value, text]) => el("option", { value }, text), (option, [, text]) => say(option, text));
  if (select.value !== chosen) select.value = chosen;
};

/** Shows the present state. */
export const show = (state, charts) => {
  const { stores, managers } = state;
  const store = stores.find((one) => nameOf(one) === state.selected);
  id("empty").hidden = stores.length > 0;
  id("stores").hidden = stores.length === 0;
  id("now").hidden = !store;
  id("picker").hidden = stores.length === 0;
  say(id("manager"), managers.this);
  say(id("foot"), `DKV ${managers.version}. Rates and percentiles are those of the last 5 s, asked for every 2 s.`);
  each(id("store-cards"), stores, nameOf, (one) => storeCard(state, one), (card, one) => setStoreCard(state, card, one));
  setRemarks(id("differences"), state.differences);
  setMachines(state);
  setPicker(id("store"), stores.map((one) => [nameOf(one), nameOf(one)]), state.selected ?? "");
  document.title = store ? `${look(store.status)[1]} ${nameOf(store)} – DKV` : "DKV console";
  if (!store) return;
  say(id("now-title"), nameOf(store));
  const live = state.metrics.nodes.filter((node) => node.store === nameOf(store));
  setTiles(together(live));
  const nodes = store.nodes.map((node) => [node.name, node.name]);
  setPicker(id("of"), [["", "all nodes (latency of the slowest)"], ...nodes], state.node);
  charts();
  setNodes(state, store);
};
