// The page: hears the stream, and lets each part show what it is about.

import { Actions } from "./actions.js";
import { Api } from "./api.js";
import { Applications } from "./applications.js";
import { Backends } from "./backends.js";
import { Changes } from "./changes.js";
import { Charts } from "./charts.js";
import { Details } from "./details.js";
import { askToken } from "./dialogs.js";
import { $, put, say, show, turn } from "./dom.js";
import { EventLog, sentence } from "./events.js";
import { duration } from "./format.js";
import { History } from "./history.js";
import { digest } from "./model.js";
import { Stream } from "./stream.js";
import { themeSwitch } from "./themes.js";
import { Topology } from "./topology.js";
import { Workers } from "./workers.js";

const LATE = 3000; // ms without a word until the page says so
const SIGNS = { ok: "up", warn: "ejected", down: "down", gone: "wait" };

class App {
  constructor() {
    this.model = null;
    this.api = new Api(askToken);
    this.history = new History();
    this.actions = new Actions(this);
    const parts = { app: this, api: this.api, history: this.history, actions: this.actions,
      openBackend: (id) => this.details.open(id, this.model) };
    this.details = new Details(parts);
    this.backends = new Backends(parts);
    this.topology = new Topology($("topology-map"), {
      ...parts, filterPool: (name) => this.backends.choose(name) });
    this.charts = new Charts(this.history);
    this.events = new EventLog();
    this.parts = [this.charts, this.topology, this.backends, new Applications(parts),
      new Workers(parts), new Changes(parts), this.details];
    this.stream = new Stream(this.api, {
      path: () => this.begin(), hear: (name, data) => this.hear(name, data),
      found: () => {}, lost: (why) => this.lost(why),
    });
    $("reload").addEventListener("click", () => this.actions.reload());
    $("log-level").addEventListener("click", () => this.actions.logLevel());
    $("reconnect").addEventListener("click", () => this.stream.again());
    addEventListener("online", () => this.stream.again());
    setInterval(() => this.tick(), 500);
    themeSwitch($("theme"));
  }

  // Before each connection: the events so far, and from where the stream goes on. And the signs of
  // states to come: when lbcore is gone it cannot be asked for the one that says so.
  async begin() {
    for (const sign of Object.values($("favicon").dataset)) fetch(sign).catch(() => {});
    const found = await this.api.get("v1/events?limit=500&level=debug");
    this.events.begin(found);
    return `v1/stream?interval=1&window=5&level=debug&after=${found.last}`;
  }

  hear(name, data) {
    if (name === "event") {
      this.events.add(data);
      if (data.event === "backend.state" || data.event === "pool.state") this.announce(data);
    } else if (name === "state") {
      this.why = null;
      this.told = data;
      this.model = digest(data);
      this.history.add(Date.now(), this.model.total, this.model.backends);
      // Once for each frame, and not at all while nobody can see it; but a tab's title can be seen.
      if (document.hidden) this.head();
      this.frame ??= requestAnimationFrame(() => this.draw());
    }
  }

  draw() {
    this.frame = null;
    performance.mark("draw");
    document.documentElement.classList.remove("waiting");
    for (const part of this.parts) part.update(this.model);
    this.head();
    performance.measure("lbcore-draw", "draw");
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn || 0) + 1);
  }

  head() {
    const { status, verdict } = this.model;
    say($("version"), `lbcore ${status.version}`);
    say($("facts"), [`up ${duration(status.uptime_s)}`, `plan ${status.plan_version}`,
      status.config.replace(/.*\//, "")].join(" · "));
    put($("facts"), "title", status.config);
    this.sign(verdict.level, verdict.words);
  }

  // The state of it all: in words, as an icon, in the title and as the page's own icon.
  sign(level, words) {
    const pill = $("verdict");
    put(pill, "data-level", level);
    turn($("verdict-icon"), SIGNS[level]);
    say($("verdict-words"), words);
    const title = `${{ ok: "", warn: "⚠ ", down: "✖ ", gone: "… " }[level]}${words} · lbcore`;
    if (document.title !== title) document.title = title;
    put($("favicon"), "href", $("favicon").dataset[level]);
  }

  // For those who hear the page: changes of state, not figures.
  announce(event) {
    say($("announcer"), sentence(event));
  }

  lost(why) {
    this.why = why;
    this.tick();
  }

  // How long ago something was heard. Says so when it is too long.
  tick() {
    const { heard } = this.stream;
    const ago = heard ? performance.now() - heard : null;
    const live = !this.why && ago !== null && ago < LATE;
    document.documentElement.classList.toggle("stale", !live && ago !== null);
    put($("pulse"), "data-live", live ? "" : null);
    say($("heard"), live ? "live" : ago === null ? "connecting" : `last heard ${duration(ago / 1000)} ago`);
    show($("lost"), Boolean(this.why));
    if (this.why) {
      say($("lost-words"), ago === null ? `No connection to lbcore: ${this.why}.`
        : `No connection to lbcore: ${this.why}. These figures are from ${duration(ago / 1000)} ago; trying again.`);
      this.sign("gone", "not reached");
    }
  }
}

new App().stream.run();
