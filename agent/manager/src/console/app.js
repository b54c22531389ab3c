// The web console: logs in, asks the manager again and again, and has what it answers shown.

import { Away, Refused, ahead, forgetToken, get, keepToken, token } from "./api.js";
import { Chart } from "./chart.js";
import { id, mark, say } from "./dom.js";
import { forget, note, points, recall } from "./history.js";
import { show } from "./view.js";
import { count, micros, timeOfDay } from "./words.js";

/** The pause between two looks, and the longest where the manager does not answer. */
const PAUSE_MS = 2_000;
const HIDDEN_MS = 10_000;
const RETRY_MS_MAX = 30_000;

const state = {
  managers: null, stores: [], metrics: { nodes: [] }, differences: [],
  selected: null, node: "",
  /** When the figures are from, and how often in a row nothing came since. */
  asOf: 0, failures: 0, dueAt: 0,
  /** Whether the charts have what the managers remember. */
  recalled: false,
  select(name) {
    Object.assign(state, { selected: name, node: "" });
    draw();
  },
  refresh() {
    draw();
    look();
  },
};

const RATES = [
  { key: "gets", name: "Get", look: "first" },
  { key: "puts", name: "Set", look: "second" },
  { key: "removes", name: "Remove", look: "third" },
];
const LATENCIES = [
  { key: "p50", name: "p50", look: "first" },
  { key: "p99", name: "p99", look: "second" },
  { key: "p999", name: "p99.9", look: "third" },
];
const charts = [
  new Chart(id("rates"), { title: "Operations per second", lines: RATES, format: count }),
  new Chart(id("latencies"), { title: "Latency in the node", lines: LATENCIES, format: micros, logarithmic: true }),
];

const draw = () => {
  if (!state.managers) return;
  show(state, () => {
    const known = points(state.selected, state.node);
    charts.forEach((chart) => chart.update(known, state.asOf));
  });
};

const live = (kind, sign, text) => {
  const place = id("live");
  mark(place, "class", `live ${kind}`);
  say(place, `${sign} ${text}`);
};

/** Whether figures are those of now; those that are not stay, told apart and with their time. */
const standing = () => {
  const away = state.failures > 1;
  const known = state.managers !== null;
  id("away").hidden = !away;
  id("figures").classList.toggle("stale", away);
  id("figures").inert = away && known;
  if (!away) return live("good", "●", "Live");
  const seconds = Math.max(0, Math.ceil((state.dueAt - Date.now()) / 1000));
  say(id("away-what"), `The manager at ${location.host} does not answer (${state.reason}).`);
  const from = known ? `What you see is from ${timeOfDay(state.asOf)}. ` : "";
  say(id("away-then"), `${from}It is asked again by itself.`);
  say(id("again"), seconds > 0 ? `Try now (else in ${seconds} s)` : "Trying …");
  return live("bad", "✕", known ? `Away since ${timeOfDay(state.asOf)}` : "Away");
};

let timer = 0;
let looking = false;
let again = false;

const later = (ms) => {
  clearTimeout(timer);
  state.dueAt = Date.now() + ms;
  timer = setTimeout(look, ms);
};

const ask = (options) => Promise.all([
  get("/admin/v1/managers?group=true", options),
  get("/admin/v1/stores?group=true", options),
  get("/admin/v1/metrics?windowSec=5&group=true", options),
]);

const take = ([managers, stores, metrics]) => {
  const at = Date.now();
  Object.assign(state, { managers, metrics, asOf: at, failures: 0 });
  Object.assign(state, { stores: stores.stores, differences: stores.differences ?? [] });
  note(at, metrics.nodes);
  const names = state.stores.map((store) => store.record.definition.name);
  if (!names.includes(state.selected)) Object.assign(state, { selected: names[0] ?? null, node: "" });
  const nodes = state.stores.find((store) => store.record.definition.name === state.selected)?.nodes ?? [];
  if (!nodes.some((node) => node.name === state.node)) state.node = "";
};

const look = async () => {
  // One at a time; who asks meanwhile gets another one behind it.
  again = looking;
  if (looking || !token()) return;
  looking = true;
  try {
    const answers = await ask();
    if (!token()) return;
    take(answers);
    draw();
    if (!state.recalled) {
      recall(await get("/admin/v1/metrics/history?group=true"), ahead());
      state.recalled = true;
      draw();
    }
    later(document.hidden ? HIDDEN_MS : PAUSE_MS);
  } catch (error) {
    if (!token()) return;
    if (error instanceof Refused && error.status === 401) {
      logOut(`${error.message}. ${error.hint}`);
      return;
    }
    if (!(error instanceof Away) && !(error instanceof Refused)) {
      // A mistake of this page's: told to the browser's console, and tried again.
      later(PAUSE_MS);
      throw error;
    }
    Object.assign(state, { failures: state.failures + 1, reason: error.message, recalled: false });
    // The first one at once: a connection that was ended because it was old is no manager that is away.
    later(state.failures === 1 ? 300 : Math.min(PAUSE_MS * 2 ** (state.failures - 2), RETRY_MS_MAX));
  } finally {
    looking = false;
    if (token()) standing();
    if (again) look();
  }
};

const logOut = (why = "") => {
  forgetToken();
  forget();
  clearTimeout(timer);
  Object.assign(state, { managers: null, stores: [], metrics: { nodes: [] }, failures: 0, recalled: false });
  id("confirm").close();
  for (const name of ["console", "leave", "picker"]) id(name).hidden = true;
  id("login").hidden = false;
  say(id("manager"), location.host);
  say(id("wrong"), why);
  live("rest", "○", "Logged out");
  document.title = "Log in – DKV console";
  id("token").focus();
};

const enter = () => {
  for (const name of ["console", "leave"]) id(name).hidden = false;
  id("login").hidden = true;
  say(id("manager"), location.host);
  live("busy", "◔", "Connecting");
  look();
};

id("login").onsubmit = async (event) => {
  event.preventDefault();
  const secret = id("token").value.trim();
  id("enter").disabled = true;
  say(id("wrong"), "");
  try {
    await get("/admin/v1/managers", { secret });
    keepToken(secret);
    id("token").value = "";
    enter();
    id("main").focus();
  } catch (error) {
    const hint = error instanceof Refused ? ` ${error.hint}` : " Is the manager up?";
    say(id("wrong"), `Not logged in: ${error.message}.${hint}`);
    id("token").select();
  } finally {
    id("enter").disabled = false;
  }
};
id("leave").onclick = () => logOut();
id("again").onclick = () => later(0);
id("store").onchange = (event) => state.select(event.target.value);
id("of").onchange = (event) => {
  state.node = event.target.value;
  draw();
};
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !token() || state.failures > 0) return;
  state.recalled = false;
  later(0);
});
// The seconds until the next try.
setInterval(() => { if (state.failures > 1 && token()) standing(); }, 1000);

const THEMES = { auto: "light", light: "dark", dark: "auto" };
const showTheme = () => {
  const theme = document.documentElement.dataset.theme ?? "auto";
  say(id("theme"), `Theme: ${theme}`);
  return theme;
};
id("theme").onclick = () => {
  const next = THEMES[showTheme()];
  if (next === "auto") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("dkv-theme");
  } else {
    document.documentElement.dataset.theme = next;
    localStorage.setItem("dkv-theme", next);
  }
  showTheme();
};
showTheme();
if (token()) enter();
else logOut();
