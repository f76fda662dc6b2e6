// The table of backends: only the rows that can be seen exist, however many there are.

import { spark } from "./chart.js";
import { $, h, icon, keyed, put, say, show, turn } from "./dom.js";
import { brief, count, millis, number, rate, weightOf } from "./format.js";
import { stateOf } from "./model.js";

const ROW = 52; // px, as .backend-row in the style sheet says
const PHONE_ROW = 92;
const BEYOND = 6; // rows that exist above and below those in sight

const COLUMNS = [
  { key: "name", label: "Backend", of: null },
  { key: "state", label: "State", of: (b) => stateOf(b).rank },
  { key: "rate", label: "Rate", of: (b) => -b.rate },
  { key: "inflight", label: "In flight", of: (b) => -b.inflight },
  { key: "p99", label: "p50 / p99", of: (b) => -(b.live.p99_ms ?? -1) },
  { key: "errors", label: "Errors", of: (b) => -(b.live.errors_per_s ?? 0) },
  { key: "weight", label: "Weight", of: (b) => -b.weight },
];

export class Backends {
  constructor({ actions, history, openBackend }) {
    Object.assign(this, { actions, history, openBackend });
    this.sort = COLUMNS[0];
    this.order = [];
    this.view = $("backend-rows");
    this.body = h("div", { role: "rowgroup", class: "rows" });
    this.view.append(this.body);
    this.table = $("backend-table");
    this.filter = $("backend-filter");
    this.pool = $("backend-pool");
    this.troubled = $("backend-troubled");
    this.heads = COLUMNS.map((column) => this.head(column));
    $("backend-head").append(...this.heads.map(({ el }) => el),
      h("div", { role: "columnheader" }, h("span", { class: "sr", text: "Actions" })));
    for (const input of [this.filter, this.pool, this.troubled]) {
      input.addEventListener("input", () => this.update(this.model, true));
    }
    this.view.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => this.model && this.paint()).observe(this.view);
    this.narrow = matchMedia("(max-width: 720px)");
    $("backend-add").addEventListener("click", () => this.actions.add(this.pool.value));
  }

  head(column) {
    const el = h("div", { role: "columnheader", class: `c-${column.key}` },
      h("button", { type: "button", text: column.label, on: { click: () => {
        this.sort = column;
        this.update(this.model, true);
      } } }));
    return { el, column };
  }

  // Shows only one pool.
  choose(pool) {
    this.pool.value = pool;
    this.filter.value = "";
    this.troubled.checked = false;
    this.update(this.model, true);
    $("backends").scrollIntoView({ block: "start" });
    this.pool.focus({ preventScroll: true });
  }

  pools(model) {
    const names = model.pools.map((pool) => pool.name);
    if (names.join("\n") === this.names) return;
    this.names = names.join("\n");
    const { value } = this.pool;
    this.pool.replaceChildren(h("option", { value: "", text: "All pools" }),
      ...names.map((name) => h("option", { value: name, text: name })));
    this.pool.value = names.includes(value) ? value : "";
  }

  wanted(backend) {
    if (this.pool.value && backend.pool !== this.pool.value) return false;
    if (this.troubled.checked && backend.state === "up" && !backend.forced) return false;
    const words = this.filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const text = `${backend.id} ${backend.address} ${stateOf(backend).word}`.toLowerCase();
    return words.every((word) => text.includes(word));
  }

  // `now`: sort again even if somebody is about to click on a row.
  update(model, now = false) {
    if (!model) return;
    this.model = model;
    this.pools(model);
    // lbcore itself decides on the backends of an application that it runs.
    put($("backend-add"), "disabled", model.pools.every((pool) => pool.app) || null);
    const found = model.backends.filter((backend) => this.wanted(backend));
    if (this.sort.of) {
      const held = !now && this.table.matches(":hover, :focus-within") && this.places;
      const place = held ? (b) => this.places.get(b.id) ?? found.length : this.sort.of;
      const keys = new Map(found.map((b) => [b.id, place(b)]));
      found.sort((a, b) => keys.get(a.id) - keys.get(b.id));
      if (!held) this.places = new Map(found.map((b, i) => [b.id, i]));
    }
    this.order = found;
    for (const { el, column } of this.heads) {
      put(el, "aria-sort", column === this.sort && column.of ? "descending" : null);
      put(el.firstChild, "aria-pressed", String(column === this.sort));
    }
    say($("backend-count"), found.length === model.backends.length
      ? count(found.length, "backend") : `${number(found.length)} of ${count(model.backends.length, "backend")}`);
    show($("backend-none"), !found.length);
    say($("backend-none"), model.backends.length ? "No backend is like that." : "There are no backends.");
    put(this.table, "aria-rowcount", String(found.length + 1));
    this.paint();
  }

  paint() {
    const tall = this.narrow.matches ? PHONE_ROW : ROW;
    const top = this.view.scrollTop, height = this.view.clientHeight || 600;
    const from = Math.max(0, Math.floor(top / tall) - BEYOND);
    const seen = this.order.slice(from, Math.ceil((top + height) / tall) + BEYOND);
    put(this.body, "data-height", String(this.order.length * tall));
    this.body.style.height = `${this.order.length * tall}px`;
    // The row with the focus stays, wherever it is scrolled to.
    const focused = document.activeElement?.closest?.(".backend-row")?.dataset.id;
    const kept = focused && !seen.some((b) => b.id === focused)
      ? this.order.filter((b) => b.id === focused) : [];
    const places = new Map(this.order.map((b, i) => [b.id, i]));
    const rows = [...seen, ...kept].sort((a, b) => places.get(a.id) - places.get(b.id));
    keyed(this.body, rows, (b) => b.id, (b) => this.row(b));
    for (const backend of rows) {
      const { el } = this.body.keyedRows.get(backend.id);
      const place = places.get(backend.id);
      if (el.place !== place * tall) {
        el.place = place * tall;
        el.style.transform = `translateY(${el.place}px)`;
      }
      put(el, "aria-rowindex", String(place + 2));
    }
  }

  row(first) {
    const cell = (key, ...children) => h("div", { role: "cell", class: `c-${key}` }, ...children);
    let told = first;
    const name = h("button", { type: "button", class: "link", "aria-haspopup": "dialog",
      on: { click: () => this.openBackend(told.id) } });
    const where = h("span", { class: "sub" });
    const drawn = icon("up"), word = h("span"), why = h("span", { class: "sub" });
    const trend = spark(), flow = h("b"), inflight = h("span"), times = h("span");
    const errors = h("span"), weight = h("span");
    const drain = h("button", { type: "button", class: "small",
      on: { click: () => this.actions[told.draining ? "undrain" : "drain"](told) } });
    const el = h("div", { role: "row", class: "backend-row", "data-id": first.id },
      cell("name", name, where),
      cell("state", h("span", { class: "state" }, drawn, word), why),
      cell("rate", trend.el, flow), cell("inflight", inflight), cell("p99", times),
      cell("errors", errors), cell("weight", weight), cell("actions", drain));
    return {
      el,
      update: (backend) => {
        told = backend;
        const state = stateOf(told);
        put(el, "data-state", told.state);
        say(name, told.name);
        say(where, [told.pool, told.name === told.address ? null : brief(told.address),
          told.backup && "backup", told.runtime && "not in the file"].filter(Boolean).join(" · "));
        put(where, "title", told.address);
        turn(drawn, state.icon);
        say(word, told.forced ? `${state.word}, forced` : state.word);
        say(why, told.state === "up" && !told.forced ? "" : told.reason || "");
        put(why, "title", told.reason);
        trend.draw(this.history.backends.get(told.id));
        say(flow, rate(told.rate));
        say(inflight, number(told.inflight));
        say(times, told.live.p50_ms == null ? "–"
          : `${millis(told.live.p50_ms)} / ${millis(told.live.p99_ms)}`);
        say(errors, rate(told.live.errors_per_s));
        put(errors, "class", told.live.errors_per_s > 0 ? "bad" : null);
        say(weight, weightOf(told));
        say(drain, told.draining ? "Undrain" : "Drain");
        put(drain, "aria-label", `${told.draining ? "Undrain" : "Drain"} ${told.id}`);
      },
    };
  }
}
