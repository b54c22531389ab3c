// A chart of lines over the last minutes, drawn as SVG: axes with units, a legend with what is now, and the values of any moment
// under the pointer or, with the arrow keys, read out. Each line has a pattern besides its colour.

import { el, mark, say, svg } from "./dom.js";
import { SPAN_MS } from "./history.js";
import { timeOfDay } from "./words.js";

const HEIGHT = 220;
const TOP = 10;
const BOTTOM = 26;
const LEFT = 62;
const RIGHT = 12;
/** Without a figure for longer than this a line is broken, in milliseconds. */
const GAP_MS = 7_000;

/** Round numbers from 0 to at least `most`, four or five of them. */
const evenTicks = (most) => {
  const rough = Math.max(most, 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((by) => by * power).find((by) => by >= rough);
  const whole = Math.max(step, 1);
  return Array.from({ length: Math.ceil(Math.max(most, 1) / whole) + 1 }, (_, i) => i * whole);
};

/** Powers of ten around the values, with steps between where there are few. */
const logTicks = (least, most) => {
  const from = Math.floor(Math.log10(Math.max(least, 0.1)));
  const to = Math.max(Math.ceil(Math.log10(Math.max(most, 1) * 1.05)), from + 1);
  const between = to - from <= 2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = from; power < to; power += 1) ticks.push(...between.map((by) => by * 10 ** power));
  return [...ticks, 10 ** to];
};

export class Chart {
  /** `lines`: key, name, and the class that gives colour and pattern. `format` gives a value with its unit. */
  constructor(place, { title, lines, format, logarithmic = false }) {
    Object.assign(this, { title, lines, format, logarithmic, points: [], at: null });
    const id = `chart-${lines[0].key}`;
    this.legend = el("ul", { class: "legend" }, ...lines.map((line) => el("li", {},
      svg("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" },
        svg("line", { x1: 1, y1: 4, x2: 25, y2: 4, class: `line ${line.look}` })),
      el("span", {}, line.name), el("b", {}))));
    this.svg = svg("svg", { class: "drawing", "aria-hidden": "true" });
    this.tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.plot = el("div", {
      class: "plot", tabindex: "0", role: "img", "aria-describedby": `${id}-keys`,
      onpointermove: (event) => this.#point(event),
      onpointerleave: () => this.#show(null),
      onblur: () => this.#show(null),
      onkeydown: (event) => this.#key(event),
    }, this.svg, this.tip);
    this.read = el("p", { class: "unseen", "aria-live": "polite" });
    this.note = el("p", { class: "waiting" });
    place.append(el("figcaption", {}, el("h3", {}, title), this.legend), this.plot, this.note,
      el("p", { class: "unseen", id: `${id}-keys` }, "The arrow keys read the values of a moment."), this.read);
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  update(points, now) {
    const chosen = this.at === null ? null : this.points[this.at]?.at;
    Object.assign(this, { points, now });
    const still = points.findIndex((point) => point.at === chosen);
    this.at = still < 0 ? null : still;
    const last = points.at(-1) ?? {};
    this.lines.forEach((line, i) => say(this.legend.children[i].lastChild, this.format(last[line.key])));
    const told = this.lines.map((line) => `${line.name} ${this.format(last[line.key])}`).join(", ");
    mark(this.plot, "aria-label", `${this.title}, the last five minutes. Now: ${told}.`);
    const known = points.some((point) => this.lines.some((line) => point[line.key] != null));
    say(this.note, known ? "" : "Nothing has happened yet in these five minutes.");
    this.draw();
  }

  draw() {
    const width = Math.round(this.plot.clientWidth);
    if (width === 0 || this.now === undefined) return;
    const values = this.points.flatMap((point) => this.lines.map((line) => point[line.key]))
      .filter((value) => value != null);
    const most = Math.max(0, ...values);
    const ticks = this.logarithmic
      ? logTicks(values.length > 0 ? Math.min(...values) : 10, most || 1000) : evenTicks(most);
    const [low, high] = [ticks[0], ticks.at(-1)];
    const height = HEIGHT - TOP - BOTTOM;
    const part = this.logarithmic
      ? (value) => Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value) => value / high;
    this.y = (value) => TOP + height * (1 - part(value));
    this.x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (this.now - at) / SPAN_MS);
    this.width = width;
    const all = [];
    for (const tick of ticks) {
      const y = this.y(tick);
      all.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
        svg("text", { class: "tick", x: LEFT - 8, y: y + 4, "text-anchor": "end" }, this.format(tick)));
    }
    const every = width < 460 ? 2 : 1;
    for (let minutes = 0; minutes <= 5; minutes += 1) {
      if (minutes % every !== 0 && minutes !== 0) continue;
      const x = this.x(this.now - minutes * 60_000);
      const anchor = minutes === 0 ? "end" : "middle";
      all.push(svg("line", { class: "stroke", x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }),
        svg("text", { class: "tick", x: minutes === 0 ? width - 2 : x, y: HEIGHT - 6, "text-anchor": anchor },
          minutes === 0 ? "now" : `−${minutes} min`));
    }
    all.push(svg("line", { class: "stroke", x1: LEFT, x2: width - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }));
    for (const line of this.lines) all.push(svg("path", { class: `line ${line.look}`, d: this.#path(line.key) }));
    this.cross = svg("g", {});
    all.push(this.cross);
    mark(this.svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    mark(this.svg, "width", width);
    mark(this.svg, "height", HEIGHT);
    this.svg.replaceChildren(...all);
    this.#show(this.at);
  }

  #path(key) {
    let path = "";
    let before = null;
    for (const point of this.points) {
      if (point[key] == null || point.at < this.now - SPAN_MS) {
        before = null;
        continue;
      }
      const near = before !== null && point.at - before < GAP_MS;
      path += `${near ? "L" : "M"}${this.x(point.at).toFixed(1)} ${this.y(point[key]).toFixed(1)}`;
      // A single figure between two gaps is seen as a dot.
      if (!near) path += "h0.01";
      before = point.at;
    }
    return path;
  }

  #point(event) {
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    let nearest = null;
    this.points.forEach((point, at) => {
      const away = Math.abs(this.x(point.at) - x);
      if (nearest === null || away < nearest.away) nearest = { at, away };
    });
    this.#show(nearest?.at ?? null);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15 }[event.key];
    const last = this.points.length - 1;
    if (event.key === "Escape") this.#show(null);
    if ((step === undefined && !["Home", "End"].includes(event.key)) || last < 0) return;
    event.preventDefault();
    const from = this.at ?? last + 1;
    const to = { Home: 0, End: last }[event.key] ?? Math.min(last, Math.max(0, from + step));
    this.#show(to);
    const point = this.points[to];
    const told = this.lines.map((line) => `${line.name} ${this.format(point[line.key])}`).join(", ");
    say(this.read, `${timeOfDay(point.at)}: ${told}`);
  }

  /** Shows the values of a moment; of none, nothing. */
  #show(at) {
    this.at = at;
    const point = at === null ? undefined : this.points[at];
    mark(this.tip, "hidden", !point);
    if (!this.cross) return;
    if (!point || point.at < this.now - SPAN_MS) {
      this.cross.replaceChildren();
      mark(this.tip, "hidden", true);
      return;
    }
    const x = this.x(point.at);
    const dots = this.lines.filter((line) => point[line.key] != null).map((line) =>
      svg("circle", { class: `dot ${line.look}`, cx: x, cy: this.y(point[line.key]), r: 4 }));
    this.cross.replaceChildren(
      svg("line", { class: "cross", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }), ...dots);
    this.tip.replaceChildren(el("b", {}, timeOfDay(point.at)), ...this.lines.map((line) =>
      el("span", {}, `${line.name} ${this.format(point[line.key])}`)));
    const left = x > this.width / 2;
    this.tip.style.left = left ? "auto" : `${x + 12}px`;
    this.tip.style.right = left ? `${this.width - x + 12}px` : "auto";
  }
}
