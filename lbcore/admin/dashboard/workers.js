// The worker processes.

import { $, h, icon, keyed, put, say, show, turn } from "./dom.js";
import { bytes, count, number, percent, rate } from "./format.js";

const LABELS = { slot: "Slot", connections: "Connections", accepts: "New", requests: "Requests now",
  memory: "Memory" };

export class Workers {
  constructor({ actions, app }) {
    this.list = $("worker-rows");
    $("worker-more").addEventListener("click", () => actions.workers(app.model.status.workers_wanted + 1));
    $("upgrade").addEventListener("click", () => actions.upgrade());
    $("worker-less").addEventListener("click", () => actions.workers(app.model.status.workers_wanted - 1));
  }

  update({ status }) {
    const serving = status.workers.filter((w) => w.state === "serving").length;
    const { state: upgrade, error } = status.upgrade;
    const number = serving === status.workers_wanted ? count(serving, "worker")
      : `${serving} of ${count(status.workers_wanted, "worker")} serving`;
    say($("worker-count"), upgrade === "running" ? `upgrading, ${number}` : number);
    show($("upgrade-failed"), upgrade === "failed");
    if (upgrade === "failed") say($("upgrade-failed"), `The last upgrade failed: ${error}`);
    put($("worker-less"), "disabled", status.workers_wanted <= 1 || null);
    keyed(this.list, status.workers, (w) => `${w.slot} ${w.pid}`, () => this.row());
  }

  row() {
    const cells = Object.fromEntries(["slot", "connections", "accepts", "requests", "memory"]
      .map((key) => [key, h("td", { class: `w-${key}`, "data-label": LABELS[key] })]));
    const drawn = icon("up"), word = h("span"), fill = h("i"), cpu = h("span");
    const state = h("td", { class: "w-state" }, h("span", { class: "state" }, drawn, word));
    const load = h("td", { class: "w-cpu", "data-label": "CPU" }, h("span", { class: "meter", "aria-hidden": "true" }, fill), cpu);
    const el = h("tr", {}, cells.slot, state, load, cells.connections, cells.accepts,
      cells.requests, cells.memory);
    return {
      el,
      update: (told) => {
        say(cells.slot, told.pid ? `${told.slot} · pid ${told.pid}` : told.slot);
        const kind = told.state === "serving" ? "up" : told.state === "down" ? "down" : "drain";
        turn(drawn, kind === "drain" ? "wait" : kind);
        put(el, "data-state", kind);
        say(word, told.state);
        say(cpu, percent(told.cpu_percent));
        fill.style.width = `${Math.min(100, told.cpu_percent || 0)}%`;
        say(cells.connections, number(told.connections));
        say(cells.accepts, rate(told.accepts_per_s));
        say(cells.requests, number(told.requests));
        say(cells.memory, bytes(told.rss_bytes));
      },
    };
  }
}
