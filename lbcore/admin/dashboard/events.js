// What happens, as it happens; the newest first.

import { $, h, icon, put, say, show } from "./dom.js";
import { clock } from "./format.js";
import { stateOf } from "./model.js";

const KEPT = 500;
const SHOWN = 200;
const LEVELS = ["debug", "info", "warning", "error"];
const ICONS = { debug: "dot", info: "info", warning: "ejected", error: "down" };
const rank = (level) => Math.max(0, LEVELS.indexOf(level === "critical" ? "error" : level));

export class EventLog {
  constructor() {
    this.kept = [];
    this.last = 0; // sequence number of the newest
    this.list = $("event-list");
    this.level = $("event-level");
    this.words = $("event-filter");
    this.hold = $("event-hold");
    this.level.addEventListener("input", () => this.draw());
    this.words.addEventListener("input", () => this.draw());
    this.hold.addEventListener("click", () => {
      const held = this.hold.getAttribute("aria-pressed") !== "true";
      put(this.hold, "aria-pressed", String(held));
      say($("event-hold-word"), held ? "Go on" : "Hold");
      if (!held) this.draw();
    });
    this.waiting = 0;
  }

  get held() {
    return this.hold.getAttribute("aria-pressed") === "true";
  }

  // Everything the ring of the instance has, at the beginning and after it was away.
  begin({ events, last }) {
    if (last < this.last) this.kept = []; // another life: it counts from the beginning
    const known = this.kept.length ? this.last : 0;
    for (const event of events) if (event.seq > known) this.keep(event);
    this.last = last;
    this.draw();
  }

  add(event) {
    if (event.seq <= this.last) return;
    this.keep(event);
    this.last = event.seq;
    if (this.held) {
      this.waiting += 1;
      say($("event-hold-word"), `Go on (${this.waiting} more)`);
    } else if (this.wanted(event)) {
      this.list.prepend(this.row(event));
      while (this.list.childElementCount > SHOWN) this.list.lastElementChild.remove();
      show($("event-none"), false);
    }
  }

  keep(event) {
    this.kept.push(event);
    if (this.kept.length > KEPT) this.kept.shift();
  }

  wanted(event) {
    if (rank(event.level) < rank(this.level.value)) return false;
    const words = this.words.value.trim().toLowerCase();
    return !words || text(event).toLowerCase().includes(words);
  }

  draw() {
    this.waiting = 0;
    const found = this.kept.filter((event) => this.wanted(event)).slice(-SHOWN).reverse();
    this.list.replaceChildren(...found.map((event) => this.row(event)));
    show($("event-none"), !found.length);
  }

  row(event) {
    const kind = LEVELS[rank(event.level)];
    const said = sentence(event), more = fields(event);
    return h("li", { class: kind }, h("time", { datetime: event.time, text: clock(event.time) }),
      h("span", { class: "level" }, icon(ICONS[kind]), h("span", { text: event.level })),
      h("code", { text: event.event }), h("span", { class: "message" }, said, said && more && " ",
        h("span", { class: said ? "fields" : null, text: more })));
  }
}

// What a change of state says in its fields, as a sentence; others say it themselves.
export function sentence({ event, message, fields: f = {} }) {
  if (message || !f.new) return message || "";
  const who = event === "backend.state" ? `${f.pool}/${f.backend}` : f.pool || event;
  const [now, before] = [f.new, f.old].map((state) => stateOf({ state }).word);
  return `${who} is ${now}, was ${before}${f.reason ? `: ${f.reason}` : ""}`;
}

function fields(event) {
  if (sentence(event) !== (event.message || "")) return "";
  return Object.entries(event.fields || {})
    .filter(([key, value]) => value != null && key !== "message")
    .map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(" ");
}

const text = (event) => `${event.level} ${event.event} ${sentence(event)} ${fields(event)}`;
