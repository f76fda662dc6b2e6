// A small chart over time, drawn as SVG so that the style sheet (and with it the theme) colours it.

import { h, put, say, show, svg } from "./dom.js";

const HEIGHT = 132;
const PAD = { top: 8, right: 4, bottom: 18, left: 4 };
const GAP = 4000; // ms between points across which no line is drawn

// The next round number above: 1, 2 or 5 times a power of ten; of KiB, MiB and so on if `radix` is
// 1024.
function roundUp(value, radix) {
  if (!(value > 0)) return 1;
  const unit = radix ** Math.max(0, Math.floor(Math.log(value) / Math.log(radix)));
  const power = 10 ** Math.floor(Math.log10(value / unit));
  return [1, 2, 5, 10, 10.24].find((step) => step * power * unit >= value * 0.9999) * power * unit;
}

// `series`: [{key, label, kind}], of which the style sheet knows `kind`; the first of a stacked
// chart lies at the bottom. `format` makes a value words. `least`: what the scale shows at least.
export class Chart {
  constructor({ title, series, stacked = false, format, least = 1, radix = 10, onPoint }) {
    Object.assign(this, { title, series, stacked, format, least, radix, onPoint });
    this.width = 320;
    this.grid = svg("g", { class: "grid" });
    this.shapes = series.map(({ kind }) => ({
      area: svg("path", { class: `area ${kind}` }), line: svg("path", { class: `line ${kind}` }),
    }));
    this.cross = svg("line", { class: "cross", y1: PAD.top, y2: HEIGHT - PAD.bottom });
    this.labels = svg("g", {}); // in front of what they stand on
    this.svg = svg("svg", { class: "plot", role: "img", height: HEIGHT }, this.grid,
      ...this.shapes.flatMap(({ area, line }) => [area, line]), this.cross, this.labels);
    this.ticks = [0.5, 1].map((part) => {
      const line = svg("line", {}), words = svg("text", { class: "tick" });
      this.grid.append(line);
      this.labels.append(words);
      return { part, line, words };
    });
    this.ends = ["start", "end"].map((anchor) => {
      const words = svg("text", { class: "tick", "text-anchor": anchor, y: HEIGHT - 4 });
      this.labels.append(words);
      return words;
    });
    this.base = svg("line", { class: "base" });
    this.grid.append(this.base);
    this.legend = series.map(({ label, kind }) => {
      const value = h("b");
      return { value, el: h("li", { class: kind }, h("i"), h("span", { text: label }), value) };
    });
    this.when = h("li", { class: "when" });
    this.el = h("div", { class: stacked ? "chart stacked" : "chart" }, this.svg,
      h("ul", { class: "legend" }, this.legend.map(({ el }) => el), this.when));
    show(this.when, false);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.onPoint(null));
    new ResizeObserver(([entry]) => {
      this.width = Math.max(160, Math.round(entry.contentRect.width));
      this.drawn && this.draw(...this.drawn);
    }).observe(this.el);
  }

  point(event) {
    const [{ times }, from, until] = this.drawn || [{ times: [] }];
    if (!times.length) return;
    const left = this.svg.getBoundingClientRect().left + PAD.left;
    const part = (event.clientX - left) / (this.width - PAD.left - PAD.right);
    this.onPoint(from + part * (until - from));
  }

  // Draws the points of history.last() between two times (ms). `at`: the time to point out.
  draw(found, from, until, at = null) {
    this.drawn = [found, from, until, at];
    const { times, points } = found;
    const inner = this.width - PAD.left - PAD.right;
    const tall = HEIGHT - PAD.top - PAD.bottom;
    const x = (time) => PAD.left + (inner * (time - from)) / (until - from);
    const step = Math.max(1, Math.floor(points.length / inner));
    const { sums, most } = this.sums(points);
    const top = roundUp(Math.max(most, this.least), this.radix);
    const y = (value) => PAD.top + tall * (1 - value / top);
    put(this.svg, "viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.shapes.forEach((shape, number) => {
      const { line, area } = this.trace(times, sums[number], step, x, y);
      put(shape.line, "d", line);
      put(shape.area, "d", area);
    });
    this.scale(top, y, until - from);
    this.tell(found, at, x);
  }

  // The heights of each series, on top of those below where they are stacked (`floor`), and the
  // highest. Nothing on top of something is not drawn: its line would hide what lies below.
  sums(points) {
    let most = 0;
    let floor = points.map(() => 0);
    const sums = this.series.map(({ key }) => {
      const below = floor;
      const values = points.map((point, i) => {
        const value = point[key] ?? null;
        if (!this.stacked) return value;
        return value > 0 ? value + below[i] : null;
      });
      if (this.stacked) floor = values.map((value, i) => value ?? below[i]);
      for (const value of values) if (value > most) most = value;
      return { values, floor: below };
    });
    return { sums, most };
  }

  trace(times, { values, floor }, step, x, y) {
    let line = "", area = "", open = [], before = null;
    const close = () => {
      if (!open.length) return;
      const bottom = [...open].reverse()
        .map((i) => `L${x(times[i]).toFixed(1)} ${y(floor[i]).toFixed(1)}`);
      const upper = open.map((i) => `${x(times[i]).toFixed(1)} ${y(values[i]).toFixed(1)}`);
      line += "M" + upper.join("L") + (upper.length === 1 ? "h1" : "");
      area += "M" + upper.join("L") + bottom.join("") + "Z";
      open = [];
    };
    for (let i = (times.length - 1) % step; i < times.length; i += step) {
      const gone = before !== null && times[i] - times[before] > GAP * step;
      if (values[i] === null || gone) close();
      if (values[i] !== null) open.push(i);
      before = i;
    }
    close();
    return { line, area };
  }

  scale(top, y, span) {
    for (const { part, line, words } of this.ticks) {
      const height = y(top * part).toFixed(1);
      for (const [name, value] of [["x1", 0], ["x2", this.width], ["y1", height], ["y2", height]]) {
        put(line, name, String(value));
      }
      put(words, "x", String(PAD.left));
      put(words, "y", String(Number(height) + 12));
      say(words, this.format(top * part));
    }
    const floor = String(HEIGHT - PAD.bottom);
    for (const [name, value] of [["x1", "0"], ["x2", String(this.width)], ["y1", floor],
      ["y2", floor]]) put(this.base, name, value);
    put(this.ends[0], "x", String(PAD.left));
    put(this.ends[1], "x", String(this.width - PAD.right));
    const ago = span / 1000;
    say(this.ends[0], ago < 100 ? `−${Math.round(ago)} s` : `−${(ago / 60).toFixed(1).replace(/\.0$/, "")} min`);
    say(this.ends[1], "now");
  }

  // The legend: the newest figures, or those at a time that is pointed at.
  tell({ times, points }, at, x) {
    let chosen = points.length - 1;
    if (at !== null && points.length) {
      chosen = times.reduce((best, time, i) =>
        (Math.abs(time - at) < Math.abs(times[best] - at) ? i : best), 0);
    }
    const pointed = at !== null && chosen >= 0;
    put(this.cross, "visibility", pointed ? "visible" : "hidden");
    if (pointed) {
      put(this.cross, "x1", x(times[chosen]).toFixed(1));
      put(this.cross, "x2", x(times[chosen]).toFixed(1));
      say(this.when, new Date(times[chosen]).toLocaleTimeString("en-GB"));
    }
    show(this.when, pointed);
    const newest = points[chosen] || {};
    this.series.forEach(({ key }, i) => say(this.legend[i].value, this.format(newest[key])));
    const words = this.series.map(({ key, label }) => `${label} ${this.format(newest[key])}`);
    put(this.svg, "aria-label", `${this.title} over the last minutes. Newest: ${words.join(", ")}`);
  }
}

// A line of a table row: the last minute, without a scale.
export function spark() {
  const line = svg("path", { class: "line" });
  const el = svg("svg", { class: "spark", viewBox: "0 0 60 20", "aria-hidden": "true",
    preserveAspectRatio: "none" }, line);
  return {
    el,
    draw(values = []) {
      const top = Math.max(1, ...values);
      const from = 60 - values.length;
      const marks = values.map((v, i) => `${from + i} ${(18.5 - (17 * v) / top).toFixed(1)}`);
      put(line, "d", marks.length > 1 ? "M" + marks.join("L") : null);
    },
  };
}
