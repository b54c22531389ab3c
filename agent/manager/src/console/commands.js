// Starting, stopping and restarting a store: asked for again in a dialog first, and told how it ended.

import { Away, Refused, post, storePath } from "./api.js";
import { el, id, say } from "./dom.js";
import { plural } from "./words.js";

/** Most time for a command: a rolling restart waits for each node's copies. */
const COMMAND_MS = 300_000;

/** What is under way, by store: the word that its card shows. */
export const underWay = new Map();

const KINDS = {
  start: { verb: "Start", doing: "Starting …", done: "was started" },
  stop: { verb: "Stop", doing: "Stopping …", done: "was stopped" },
  restart: { verb: "Restart", doing: "Restarting …", done: "was restarted" },
};

/** What a command does to a store, for those who are about to do it, and whether data goes with it. */
const meaning = (kind, store) => {
  const { nodes, record } = store;
  const machines = new Set(nodes.map((node) => node.machine)).size;
  const where = `${plural(nodes.length, "node")} on ${plural(machines, "machine")}`;
  if (kind === "start") return [`Starts ${where}. Nodes that run already are left alone.`, false];
  if (kind === "stop") {
    return [`Stops ${where}. Clients lose the store until it is started again, and what it holds in memory is `
      + "lost.", true];
  }
  if (record.definition.replication) {
    return [`Restarts ${where}, one after the other, each when all copies are in sync. Nothing is lost, and the others `
      + "serve meanwhile.", false];
  }
  return [`Stops ${where} and starts them again. This store has no copies: what it holds in memory is lost.`, true];
};

/** Shows how something ended, until it is put away. */
export const tell = (kind, title, lines = [], hint = "") => {
  const close = el("button", { type: "button", class: "quiet", onclick: () => notice.remove() }, "Dismiss");
  const notice = el("div", { class: `notice ${kind}`, role: kind === "good" ? "status" : "alert" },
    el("div", {}, el("strong", {}, title), ...lines.map((line) => el("p", {}, line)),
      hint ? el("p", { class: "hint" }, el("span", {}, "What to do next: "), el("code", {}, hint)) : null),
    close);
  id("notices").replaceChildren(notice);
};

const run = async (kind, name, refresh) => {
  const { verb, doing, done } = KINDS[kind];
  underWay.set(name, doing);
  refresh();
  try {
    const { outcome, rows } = await post(storePath(name, kind), { mostMs: COMMAND_MS });
    const failed = rows.filter((row) => row.result !== "SUCCESS");
    if (outcome === "Done") {
      const each = rows.map((row) => `${row.action.split(":").at(-1)}: ${row.message}`);
      tell("good", `${name} ${done}`, [each.join(" · ")]);
    } else {
      const each = failed.map((row) => `${row.action} at ${row.manager}: ${row.message}`);
      tell("bad", `${verb} of ${name}: only in part`, each, failed[0]?.hint);
    }
  } catch (error) {
    if (error instanceof Refused) {
      tell("bad", `${verb} of ${name}: refused`, [error.message], error.hint);
    } else if (error instanceof Away) {
      tell("bad", `${verb} of ${name}: no answer`, [`The manager gave no answer (${error.message}). `
        + "What it was asked may be done all the same: the state below tells."]);
    } else {
      throw error;
    }
  } finally {
    underWay.delete(name);
    refresh();
  }
};

/** Asks whether it is meant, and does it then. What loses data wants the store's name typed. */
export const ask = (kind, store, refresh) => {
  const name = store.record.definition.name;
  const dialog = id("confirm");
  const typed = id("confirm-name");
  const go = id("confirm-go");
  const [text, loses] = meaning(kind, store);
  say(id("confirm-title"), `${KINDS[kind].verb} the store ${name}?`);
  say(id("confirm-text"), text);
  say(id("confirm-what"), name);
  say(go, `${KINDS[kind].verb} ${name}`);
  id("confirm-typing").hidden = !loses;
  go.className = loses ? "danger" : "primary";
  typed.value = "";
  const judge = () => { go.disabled = loses && typed.value !== name; };
  judge();
  typed.oninput = judge;
  id("confirm-form").onsubmit = (event) => {
    event.preventDefault();
    if (go.disabled) return;
    dialog.close();
    run(kind, name, refresh);
  };
  id("confirm-cancel").onclick = () => dialog.close();
  dialog.showModal();
  (loses ? typed : go).focus();
};
