// The four cards at the top: figures of now, and charts of the last minutes.

import { Chart } from "./chart.js";
import { $, h, put, say } from "./dom.js";
import { byteRate, count, millis, number, rate, share } from "./format.js";

const CARDS = [
  {
    title: "Requests", format: number, stacked: true, series: [
      { key: "2xx", label: "2xx", kind: "s2" }, { key: "3xx", label: "3xx", kind: "s3" },
      { key: "4xx", label: "4xx", kind: "s4" }, { key: "5xx", label: "5xx", kind: "s5" }],
    big: (t) => (t.requests_per_s == null ? rate(t.connections_per_s) : rate(t.requests_per_s)),
    sub: (t) => (t.requests_per_s == null ? "connections"
      : `${rate(t.connections_per_s)} new connections`),
  },
  {
    title: "Latency", format: millis, series: [
      { key: "p50", label: "p50", kind: "p50" }, { key: "p90", label: "p90", kind: "p90" },
      { key: "p99", label: "p99", kind: "p99" }],
    big: (t) => millis(t.p99_ms), sub: () => "99 of 100 requests take less",
  },
  {
    title: "Errors", format: rate, series: [{ key: "errors", label: "errors", kind: "s5" }],
    big: (t) => rate(t.errors_per_s),
    sub: (t) => `${share(t.errors_per_s, t.requests_per_s ?? t.connections_per_s)} of ${
      t.requests_per_s == null ? "connections" : "requests"}`,
  },
  {
    title: "Traffic", format: byteRate, least: 1024, radix: 1024, series: [
      { key: "down", label: "to clients", kind: "down" }, { key: "up", label: "from clients", kind: "up" }],
    big: (t) => byteRate(t.bytes_down_per_s), sub: (t) => `${count(t.connections ?? 0, "connection")} open`,
  },
];

// One of a hundred is where somebody should look.
const troubling = (t) => t.errors_per_s > 0.01 * (t.requests_per_s ?? t.connections_per_s ?? 0);

export class Charts {
  constructor(history) {
    this.history = history;
    this.at = null;
    this.cards = CARDS.map((card) => this.card(card));
    $("cards").append(...this.cards.map(({ el }) => el));
    this.range = $("range");
    this.range.addEventListener("input", () => this.draw());
  }

  card(told) {
    const big = h("p", { class: "figure" }), sub = h("p", { class: "sub" });
    const chart = new Chart({ ...told, onPoint: (at) => {
      this.at = at;
      this.draw();
    } });
    const el = h("article", { class: "card" },
      h("header", {}, h("h3", { text: told.title }), big, sub), chart.el);
    return { el, big, sub, chart, told };
  }

  update({ total }) {
    for (const { big, sub, told, el } of this.cards) {
      say(big, told.big(total));
      say(sub, told.sub(total));
      put(el, "data-trouble", told.title === "Errors" && troubling(total) ? "" : null);
    }
    this.draw();
  }

  draw() {
    const until = this.history.times.at(-1) ?? Date.now();
    // Not more than there is to show, but a minute at least.
    const known = (until - (this.history.times[0] ?? until)) / 1000;
    const seconds = Math.min(Number(this.range.value), Math.max(60, Math.ceil(known)));
    const found = this.history.last(seconds, until);
    for (const { chart } of this.cards) chart.draw(found, until - 1000 * seconds, until, this.at);
  }
}
