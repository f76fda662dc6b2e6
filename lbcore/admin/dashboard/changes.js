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
  add: "added", remove: "removed", set: "backends replaced", weight: "weight", drain: "drained",
  force: "forced", workers: "workers", log_level: "log level",
};

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
    const keyOf = (change) => JSON.stringify(change);
    keyed(this.list, changes, keyOf, (change) => this.row(change, changes));
  }

  row(change, all) {
    const where = [change.pool, change.backend].filter(Boolean).join("/") || "lbcore";
    const back = change.pool && h("button", { type: "button", class: "small",
      "aria-label": `${change.pool} back to the file`, text: "Pool back to the file", on: { click: () =>
        this.actions.forget(change.pool, all.filter((c) => c.pool === change.pool).length) } });
    const el = h("tr", {},
      h("td", {}, h("b", { text: where }), h("span", { class: "sub", text: OPS[change.op] || change.op })),
      h("td", { "data-label": "File", text: words(change.file) }),
      h("td", { "data-label": "Running", text: words(change.running) }),
      h("td", { "data-label": "Since", text: clock(change.since) }), h("td", {}, back || ""));
    return { el, update() {} };
  }

  async toml() {
    const code = h("pre", { tabindex: 0, text: "…", "aria-label": "The running configuration as TOML" });
    const copy = h("button", { type: "button", class: "primary", text: "Copy", on: { click: async () => {
      await navigator.clipboard.writeText(code.textContent);
      say(copy, "Copied");
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
