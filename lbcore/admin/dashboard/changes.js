// What runs and is not in the file.

import { open } from "./dialogs.js";
import { $, h, keyed, say, show } from "./dom.js";
import { clock, count } from "./format.js";

const words = (value) => {
  if (value === null || value === undefined) return "nothing";
  if (value === true) return "yes";
  if (value === false) return "no";
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) return value.map(words).join(", ");
  return Object.entries(value).filter(([, v]) => v !== null).map(([k, v]) => `${k} ${words(v)}`).join(", ");
};

const OPS = {
  add: "added", remove: "removed", set: "changed", weight: "weight", drain: "drained",
  force: "forced", workers: "workers", log_level: "log level",
};

const named = ({ op }) => OPS[op] || op;

// A change in a line.
export function described(change) {
  const { pool, backend, running } = change;
  const where = [pool, backend].filter(Boolean).join("/") || "lbcore";
  return `${where}: ${named(change)}${running == null ? "" : ` ${words(running)}`}`;
}

// The changes of each pool under a line of its own; those of no pool come first.
function grouped(changes) {
  const pools = new Map([[null, []]]);
  for (const change of changes) {
    const pool = change.pool || null;
    if (!pools.has(pool)) pools.set(pool, []);
    pools.get(pool).push(change);
  }
  return [...pools].flatMap(([of, its]) => (of ? [{ of, number: its.length }, ...its] : its));
}

export class Changes {
  constructor({ api, actions, app }) {
    Object.assign(this, { api, app });
    this.known = "";
    this.list = $("change-list");
    this.actions = actions;
    $("change-forget").addEventListener("click", () => actions.forget(null, this.number));
    $("change-show").addEventListener("click", () => this.toml());
  }

  // Asks what has changed when the number or the plan says that something has.
  async update({ status }) {
    this.number = status.changes || 0;
    const version = `${status.pid} ${status.plan_version} ${status.changes}`;
    if (version === this.known) return;
    this.known = version;
    try {
      this.draw((await this.api.get("v1/changes")).changes);
    } catch {
      this.known = ""; // the next `state` asks again
    }
  }

  draw(changes) {
    this.number = changes.length;
    say($("change-count"), changes.length ? count(changes.length, "difference") : "");
    show($("change-none"), !changes.length);
    show($("change-table"), changes.length > 0);
    show($("change-forget"), changes.length > 0);
    keyed(this.list, grouped(changes), (line) => JSON.stringify(line), (line) =>
      (line.of ? this.head(line) : this.row(line)));
  }

  // The line above the changes of a pool, with what takes them back.
  head({ of, number }) {
    const back = h("button", { type: "button", class: "small", text: "Back to the file",
      "aria-label": `${of} back to the file`, on: { click: () => this.actions.forget(of, number) } });
    return { el: h("tr", { class: "of-pool" }, h("td", { colspan: 2 }, `Pool ${of}`), h("td", {}, back)),
      update() {} };
  }

  row(change) {
    const what = `${named(change)} at ${clock(change.since)}`;
    const el = h("tr", {},
      h("td", {}, h("b", { text: change.backend || change.pool || "lbcore" }),
        h("span", { class: "sub", text: what })),
      h("td", { "data-label": "File", text: words(change.file) }),
      h("td", { "data-label": "Running" }, h("span", { text: words(change.running) }), this.back(change)));
    return { el, update() {} };
  }

  // A change of the instance itself belongs to no pool, with which it would be taken back.
  back({ op }) {
    const undo = { workers: () => this.actions.workers(null), log_level: () => this.actions.logLevel(null) }[op];
    return undo && h("button", { type: "button", class: "small", text: "Back to the file",
      "aria-label": `${named({ op })} back to the file`, on: { click: undo } });
  }

  async toml() {
    const code = h("pre", { tabindex: 0, text: "…", "aria-label": "The running configuration as TOML" });
    const copy = h("button", { type: "button", class: "primary", text: "Copy", on: { click: async () => {
      getSelection().selectAllChildren(code);
      // Browsers have a clipboard only for localhost and HTTPS: elsewhere a person presses the keys.
      await navigator.clipboard?.writeText(code.textContent);
      say(copy, navigator.clipboard ? "Copied" : "Selected");
    } } });
    open({ title: "What runs, as a file", wide: true, children: [
      h("p", { text: "Written to the file, it makes these changes permanent. The same as “lbcore show --running”." }),
      code, h("footer", {}, copy)] });
    try {
      say(code, await this.api.text("v1/config.toml"));
    } catch (error) {
      say(code, `${error.message}\n${error.hint || ""}`);
    }
  }
}
