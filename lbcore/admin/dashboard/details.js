// A backend from near: everything known of it, and everything that can be done to it.

import { spark } from "./chart.js";
import { open } from "./dialogs.js";
import { h, icon, put, say, show, turn } from "./dom.js";
import { byteRate, millis, number, rate, since, weightOf } from "./format.js";
import { stateOf } from "./model.js";

const FACTS = [
  ["Address", (b) => b.address + (b.backup ? " (backup)" : "")],
  ["Weight", weightOf],
  ["In flight", (b) => number(b.inflight)],
  ["Rate", (b) => rate(b.rate)],
  ["Errors", (b) => rate(b.live.errors_per_s)],
  ["Latency p50 / p99", (b) => `${millis(b.live.p50_ms)} / ${millis(b.live.p99_ms)}`],
  ["To it / from it", (b) => `${byteRate(b.live.bytes_up_per_s)} / ${byteRate(b.live.bytes_down_per_s)}`],
  ["Last check", (b) => (b.last_check
    ? `${b.last_check.ok ? "passed" : "failed"} in ${millis(b.last_check.ms)}`
      + (b.last_check.detail ? `: ${b.last_check.detail}` : "") : "none")],
  ["Known from", (b) => (b.runtime ? "a change at run time" : "the file")],
];

export class Details {
  constructor({ actions, history }) {
    Object.assign(this, { actions, history });
    this.id = null;
  }

  open(id, model) {
    if (!model.byId.has(id)) return;
    this.id = id;
    this.drawn = icon("up");
    this.word = h("b");
    this.why = h("span");
    this.state = h("p", { class: "state big" }, this.drawn, this.word, this.why);
    this.trend = spark();
    this.values = FACTS.map(() => h("dd"));
    const act = (what, label, kind) => h("button", { type: "button", class: kind || null, text: label,
      on: { click: () => this.told && what(this.told) } });
    const { actions } = this;
    this.drain = act((b) => actions[b.draining ? "undrain" : "drain"](b), "Drain");
    this.up = act((b) => actions.force(b, b.forced === "up" ? null : "up"), "Force up");
    this.down = act((b) => actions.force(b, b.forced === "down" ? null : "down"), "Force down");
    this.buttons = h("footer", { class: "wrap" }, this.drain,
      act((b) => actions.weight(b), "Weight…"), act((b) => actions.limit(b), "Limit…"), this.up, this.down,
      act((b) => actions.remove(b, () => this.dialog?.close()), "Remove…", "danger"));
    this.dialog = open({ title: id, wide: true, onClose: () => { this.id = null; }, children: [
      this.state, h("div", { class: "trend" }, this.trend.el,
        h("span", { class: "sub", text: "rate over the last minute" })),
      h("dl", { class: "facts-list" }, FACTS.map(([label], i) =>
        h("div", {}, h("dt", { text: label }), this.values[i]))),
      this.buttons,
    ] });
    this.update(model);
  }

  update(model) {
    if (this.id === null) return;
    const told = model.byId.get(this.id);
    this.told = told;
    show(this.buttons, Boolean(told));
    if (!told) {
      put(this.state, "data-state", "gone");
      turn(this.drawn, "wait");
      say(this.word, "gone");
      say(this.why, ": it is no longer part of its pool. What is below was its last.");
      return;
    }
    const state = stateOf(told);
    put(this.state, "data-state", told.state);
    turn(this.drawn, state.icon);
    say(this.word, told.forced ? `${state.word}, forced` : state.word);
    say(this.why, ` for ${since(told.since)}${told.reason ? `: ${told.reason}` : ""}`);
    this.trend.draw(this.history.backends.get(told.id));
    FACTS.forEach(([, of], i) => say(this.values[i], of(told)));
    say(this.drain, told.draining ? "Undrain" : "Drain");
    say(this.up, told.forced === "up" ? "No longer force up" : "Force up");
    say(this.down, told.forced === "down" ? "No longer force down" : "Force down");
  }
}
