// The way of a request, as columns joined by lines: listeners, routes, pools, backends. A line's
// colour (and dashes) says health, its width how much goes there.

import { h, icon, keyed, put, say, show, svg, turn } from "./dom.js";
import { brief, count, millis, number, rate } from "./format.js";
import { stateOf } from "./model.js";

const SINGLY = 8; // backends of a pool that are shown one by one
const FEW = 4; // the same where there are more than
const TOGETHER = 80; // backends in all
const CROWD = 24; // pools, or routes, from which on everything stands close
const NAMED = 4; // troubled ones that are named where the others are cells

const HEALTH = {
  ok: { icon: "up", word: "healthy" },
  warn: { icon: "ejected", word: "in part" },
  down: { icon: "down", word: "takes no traffic" },
};

function mark(level) {
  const drawn = icon(HEALTH[level].icon);
  const words = h("span", { class: "sr", text: HEALTH[level].word });
  return { el: h("span", { class: "mark" }, drawn, words), set(now) {
    turn(drawn, HEALTH[now].icon);
    say(words, HEALTH[now].word);
  } };
}

export class Topology {
  constructor(root, { openBackend, filterPool }) {
    Object.assign(this, { root, openBackend, filterPool });
    this.lines = svg("svg", { class: "lines", "aria-hidden": "true" });
    this.left = h("div", { class: "left" });
    this.right = h("div", { class: "right" });
    this.columns = h("div", { class: "columns" }, this.lines, this.left, this.right);
    root.append(this.columns);
    this.nodes = new Map(); // id -> element that lines end at
    this.edges = new Map(); // "from>to" -> {path, from, to}
    this.links = [];
    this.shape = "";
    new ResizeObserver(() => this.place()).observe(this.columns);
    root.addEventListener("pointerover", (event) => this.light(event.target));
    root.addEventListener("pointerleave", () => this.light(null));
    root.addEventListener("focusin", (event) => this.light(event.target));
    root.addEventListener("focusout", () => this.light(null));
  }

  update(model) {
    this.model = model;
    const routes = model.listeners.reduce((sum, listener) => sum + listener.routes.length, 0);
    const crowded = Math.max(model.pools.length, routes) > CROWD;
    this.root.classList.toggle("crowded", crowded);
    const most = model.pools.length > CROWD ? 0 : model.backends.length > TOGETHER ? FEW : SINGLY;
    for (const pool of model.pools) pool.cells = pool.backends.length > most;
    keyed(this.left, model.listeners, (l) => l.name, (l) => this.listener(l));
    keyed(this.right, model.pools, (p) => p.name + (p.cells ? " cells" : ""), (p) => this.group(p));
    this.join(model);
  }

  node(id, tag, props, ...children) {
    const el = h(tag, { ...props, "data-node": id }, ...children);
    this.nodes.set(id, el);
    return el;
  }

  listener() {
    const name = h("b"), facts = h("span", { class: "facts" }), where = h("span", { class: "sub" });
    const sign = mark("ok"), routes = h("div", { class: "routes" });
    let card = null;
    const el = h("div", { class: "group" });
    return {
      el,
      update: (told) => {
        if (!card) {
          card = this.node(`l:${told.name}`, "div", { class: "node listener" },
            h("span", { class: "top" }, sign.el, name, facts), where);
          el.append(card, routes);
        }
        say(name, told.name);
        say(where, `${told.protocol} on ${told.bind.join(", ")}`);
        say(facts, rate(told.rate));
        sign.set(told.health);
        put(card, "data-health", told.health);
        keyed(routes, told.routes, (r) => r.id, (r) => this.route(r));
      },
    };
  }

  route(first) {
    const match = h("b"), facts = h("span", { class: "facts" }), target = h("span", { class: "sub" });
    const sign = mark("ok");
    const el = this.node(`r:${first.id}`, "div", { class: "node route" },
      h("span", { class: "top" }, sign.el, match, facts), target);
    return {
      el,
      update: (told) => {
        say(match, told.match || told.name || "everything else");
        put(match, "title", told.match || told.name);
        const late = told.live.p99_ms == null ? "" : `p99 ${millis(told.live.p99_ms)}`;
        const wrong = told.live.errors_per_s > 0 ? `${rate(told.live.errors_per_s)} errors` : "";
        const to = told.pool ? `to ${told.pool}` : told.action;
        say(target, [to, wrong || late].filter(Boolean).join(" · "));
        say(facts, rate(told.rate));
        sign.set(told.health);
        put(el, "data-health", told.health);
      },
    };
  }

  group(first) {
    const name = h("b"), facts = h("span", { class: "facts" }), sub = h("span", { class: "sub" });
    const how = h("span", { class: "how" });
    const sign = mark("ok"), bar = h("span", { class: "bar", "aria-hidden": "true" });
    const parts = ["up", "drain", "ejected", "down"].map((kind) => {
      const part = h("i", { class: kind });
      bar.append(part);
      return [kind, part];
    });
    const card = this.node(`p:${first.name}`, "button",
      { class: "node pool", type: "button", on: { click: () => this.filterPool(first.name) } },
      h("span", { class: "top" }, sign.el, name, facts), bar,
      h("span", { class: "split" }, sub, how));
    const list = h("div", { class: "backends" });
    const cells = first.cells ? this.cells(first, list) : null;
    return {
      el: h("div", { class: "group" }, card, list),
      update: (pool) => {
        say(name, pool.name);
        say(facts, rate(pool.rate));
        sign.set(pool.health);
        put(card, "data-health", pool.health);
        for (const [kind, part] of parts) {
          part.style.flexGrow = pool.counts[kind] || 0;
          show(part, Boolean(pool.counts[kind]));
        }
        const late = pool.live.p99_ms == null ? "" : `p99 ${millis(pool.live.p99_ms)}`;
        const special = { normal: "", none: "" }[pool.state] ?? pool.state; // panic, backup
        say(sub, [special, `${pool.counts.up} of ${pool.backends.length} up`,
          pool.waiting ? `${number(pool.waiting)} waiting` : late].filter(Boolean).join(" · "));
        say(how, pool.balance.split(" ")[0].replace("_", " "));
        if (cells) cells(pool);
        else keyed(list, pool.backends, (b) => b.id, (b) => this.backend(b));
      },
    };
  }

  backend(first) {
    const name = h("b"), facts = h("span", { class: "facts" }), sub = h("span", { class: "sub" });
    const drawn = icon("up");
    const el = this.node(`b:${first.id}`, "button", { class: "node backend", type: "button",
      on: { click: () => this.openBackend(first.id) } },
    h("span", { class: "top" }, h("span", { class: "mark" }, drawn), name, facts), sub);
    return {
      el,
      update: (told) => {
        const state = stateOf(told);
        turn(drawn, state.icon);
        put(el, "data-state", told.state);
        say(name, told.name);
        say(facts, told.state === "up" ? rate(told.rate) : state.word);
        const tags = [told.name === told.address ? null : brief(told.address), told.backup && "backup",
          told.forced && "forced", told.weight !== 1 && `weight ${told.weight}`,
          `${number(told.inflight)} in flight`];
        say(sub, tags.filter(Boolean).join(" · "));
      },
    };
  }

  // A pool of many: a cell for each, and by name those that need somebody.
  cells(first, list) {
    const grid = svg("svg", { class: "cells", "aria-hidden": "true" });
    const more = h("span", { class: "sub" });
    const box = this.node(`c:${first.name}`, "div", { class: "node many" }, grid, more);
    const named = h("div", { class: "named" });
    list.append(box, named);
    const shapes = [];
    grid.addEventListener("click", (event) => {
      const id = event.target.closest("[data-id]")?.getAttribute("data-id");
      if (id) this.openBackend(id);
    });
    grid.addEventListener("pointerover", (event) => {
      const id = event.target.closest("[data-id]")?.getAttribute("data-id");
      put(box, "title", id || null);
    });
    let across = 0;
    return (pool) => {
      const busiest = pool.backends.reduce((most, b) => Math.max(most, b.rate), 0);
      const fit = Math.max(8, Math.floor((box.clientWidth - 20) / 16));
      const again = fit !== across || shapes.length !== pool.backends.length;
      across = fit;
      pool.backends.forEach((told, i) => {
        if (!shapes[i]) {
          const use = svg("use", {});
          shapes.push(use);
          grid.append(use);
        }
        const shape = shapes[i];
        if (again) {
          put(shape, "x", String((i % fit) * 16));
          put(shape, "y", String(Math.floor(i / fit) * 16));
        }
        put(shape, "href", `#cell-${told.state in { up: 1, drain: 1, ejected: 1 } ? told.state : "down"}`);
        const warmth = busiest ? Math.ceil((3 * told.rate) / busiest) : 0;
        put(shape, "class", `${told.state} warm-${warmth}`);
        put(shape, "data-id", told.id);
      });
      while (shapes.length > pool.backends.length) shapes.pop().remove();
      if (again) {
        const height = 16 * Math.ceil(shapes.length / fit), width = 16 * Math.min(fit, shapes.length);
        put(grid, "viewBox", `0 0 ${width} ${height}`);
        put(grid, "width", String(width));
        put(grid, "height", String(height));
      }
      say(more, `${count(pool.backends.length, "backend")} · ${number(pool.live.inflight ?? pool.inflight)} in flight`);
      const troubled = pool.backends.filter((b) => b.state !== "up")
        .sort((a, b) => stateOf(a).rank - stateOf(b).rank).slice(0, NAMED);
      keyed(named, troubled, (b) => b.id, (b) => this.backend(b));
    };
  }

  // The lines, with what each carries.
  join(model) {
    const links = [];
    const link = (from, to, flow, health) => links.push({ from, to, flow, health });
    for (const listener of model.listeners) {
      for (const route of listener.routes) {
        link(`l:${listener.name}`, `r:${route.id}`, route.rate, route.health);
        if (route.pool) link(`r:${route.id}`, `p:${route.pool}`, route.rate, route.health);
      }
    }
    for (const pool of model.pools) {
      if (pool.cells) link(`p:${pool.name}`, `c:${pool.name}`, pool.rate, pool.health);
      else {
        for (const b of pool.backends) link(`p:${pool.name}`, `b:${b.id}`, b.rate, b.state);
      }
    }
    this.links = links;
    const wanted = new Set(links.map((l) => `${l.from}>${l.to}`));
    for (const [key, edge] of this.edges) {
      if (!wanted.has(key)) {
        edge.path.remove();
        this.edges.delete(key);
      }
    }
    const most = Math.max(1, ...links.map((l) => l.flow));
    for (const { from, to, flow, health } of links) {
      const key = `${from}>${to}`;
      let edge = this.edges.get(key);
      if (!edge) {
        edge = { path: svg("path"), from, to };
        this.edges.set(key, edge);
        this.lines.append(edge.path);
      }
      // Steps of half a pixel, so that not every line changes every second.
      const width = flow > 0 ? Math.round(2 * (1.5 + 7 * Math.sqrt(flow / most))) / 2 : 1;
      put(edge.path, "stroke-width", String(width));
      put(edge.path, "data-health", health);
      put(edge.path, "data-idle", flow > 0 ? null : "");
    }
    const shape = `${[...wanted].join()} ${this.columns.offsetHeight}`;
    if (shape !== this.shape) {
      this.shape = shape;
      for (const [id, el] of this.nodes) if (!el.isConnected) this.nodes.delete(id);
      this.place();
    }
  }

  // Where the lines go: measured all at once, then drawn.
  place() {
    if (getComputedStyle(this.lines).display === "none") return;
    const origin = this.columns.getBoundingClientRect();
    const boxes = new Map();
    for (const { from, to } of this.edges.values()) {
      for (const id of [from, to]) {
        if (!boxes.has(id)) boxes.set(id, this.nodes.get(id)?.getBoundingClientRect());
      }
    }
    put(this.lines, "width", String(Math.round(origin.width)));
    put(this.lines, "height", String(Math.round(origin.height)));
    for (const { path, from, to } of this.edges.values()) {
      const a = boxes.get(from), b = boxes.get(to);
      if (!a?.width || !b?.width) continue;
      const x1 = a.right - origin.left, y1 = a.top + a.height / 2 - origin.top;
      const x2 = b.left - origin.left, y2 = b.top + b.height / 2 - origin.top;
      const bend = (x2 - x1) / 2;
      put(path, "d", `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
    }
  }

  // Shows what belongs to the node under the pointer or with the focus: all ways through it.
  light(target) {
    const chosen = target?.closest?.("[data-node]")?.getAttribute("data-node") ?? null;
    if (chosen === this.lit) return;
    this.lit = chosen;
    const lit = new Set();
    const walk = (id, near, far) => {
      lit.add(id);
      for (const link of this.links) {
        if (link[near] === id) {
          lit.add(`${link.from}>${link.to}`);
          walk(link[far], near, far);
        }
      }
    };
    if (chosen) {
      walk(chosen, "from", "to");
      walk(chosen, "to", "from");
    }
    this.root.classList.toggle("choosing", chosen !== null);
    for (const [id, el] of this.nodes) el.classList.toggle("lit", lit.has(id));
    for (const [key, { path }] of this.edges) path.classList.toggle("lit", lit.has(key));
  }
}
