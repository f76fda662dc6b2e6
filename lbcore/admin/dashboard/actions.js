// What can be done from the page: each says what will happen, asks, and tells the API.

import { path } from "./api.js";
import { described } from "./changes.js";
import { confirm, field, notice, toast } from "./dialogs.js";
import { h } from "./dom.js";
import { count } from "./format.js";

// `app`: {api, model}; the model is the newest that the stream told.
export class Actions {
  constructor(app) {
    this.app = app;
    this.own = { started: null, version: 0 }; // what our last change made of the plan
  }

  // The plan version that the person sees, or has made since the stream last told of it.
  get version() {
    const { started, plan_version: told } = this.app.model.status;
    return started === this.own.started ? Math.max(told, this.own.version) : told;
  }

  // Asks, then calls with the plan version that the person saw. If somebody else has changed
  // something meanwhile, that is said, and the next attempt goes out with the version of then.
  ask({ run, ...rest }) {
    let { version } = this;
    confirm({
      ...rest,
      run: async (form) => {
        const { started } = this.app.model.status;
        try {
          return await run(async (method, where, body) => {
            const done = await this.app.api.call(method, where, { body, version });
            this.own = { started, version: done.plan_version };
            return done;
          }, form);
        } catch (error) {
          if (error.status === 412) {
            version = (await this.app.api.get("v1/changes")).plan_version;
          }
          throw error;
        }
      },
    });
  }

  // How many others of the pool would take its traffic, in words.
  others(backend) {
    const pool = this.app.model.poolsByName.get(backend.pool);
    const left = pool ? pool.backends.filter((b) => b.id !== backend.id && b.state === "up") : [];
    if (left.length) return `New connections go to ${count(left.length, "other backend")} of ${backend.pool}.`;
    return h("p", { class: "warning" }, h("b", { text: `No other backend of ${backend.pool} is up: ` }),
      "clients will get errors until one is.");
  }

  drain(backend) {
    const there = backend.inflight;
    this.ask({
      title: `Drain ${backend.id}?`, verb: "Drain",
      says: [
        this.others(backend),
        there ? `${count(there, "connection")} in flight may finish; nothing is cut.`
          : "Nothing is in flight there now.",
        "It stays drained over reloads and upgrades, until you undrain it.",
      ],
      run: async (call) => {
        await call("POST", path("backends", backend.pool, backend.name, "drain"));
        return `${backend.id} is draining`;
      },
    });
  }

  undrain(backend) {
    this.ask({
      title: `Undrain ${backend.id}?`, verb: "Undrain",
      says: ["It takes new connections again, as soon as its checks say that it works."],
      run: async (call) => {
        await call("POST", path("backends", backend.pool, backend.name, "undrain"));
        return `${backend.id} takes part again`;
      },
    });
  }

  weight(backend) {
    const input = h("input", { type: "number", min: 0, max: 1000, step: 1, value: backend.weight,
      inputmode: "numeric" });
    this.ask({
      title: `Weight of ${backend.id}`, verb: "Set weight", fields: [
        field("Weight", input, `0 to 1000; empty: ${backend.runtime ? "what it was added with"
          : "as in the file"} (${backend.weight_configured}). 0 means no new connections.`),
      ],
      says: ["Its share of the pool's new connections changes at once; those in flight stay."],
      run: async (call) => {
        const weight = input.value.trim() === "" ? null : Number(input.value);
        await call("POST", path("backends", backend.pool, backend.name, "weight"), { weight });
        return weight === null ? `${backend.id} has its own weight again`
          : `${backend.id} has weight ${weight}`;
      },
    });
  }

  // What it may have at once is not in the stream: it is asked for.
  async limit(backend) {
    const where = path("backends", backend.pool, backend.name);
    const told = await this.asked(where);
    if (!told) return;
    const input = h("input", { type: "number", min: 0, step: 1, value: told.max_connections,
      inputmode: "numeric" });
    this.ask({
      title: `Connections of ${backend.id} at most`, verb: "Set limit", fields: [
        field("Connections at most", input, "at once, over all workers; 0: no limit; empty: as in the file"),
      ],
      says: ["What comes beyond goes to other backends, or waits for one in the pool's queue. "
        + "Connections that are established stay."],
      run: async (call) => {
        const most = input.value.trim() === "" ? null : Number(input.value);
        await call("PATCH", where, { max_connections: most });
        return most === null ? `${backend.id} has its limit of the file`
          : most ? `${backend.id} takes ${count(most, "connection")} at most` : `${backend.id} has no limit`;
      },
    });
  }

  force(backend, state) {
    const says = {
      up: ["It takes traffic whatever its checks say, also if it does not work: clients then get "
        + "errors. Use it when the checks are wrong."],
      down: [this.others(backend), "It takes no new traffic, whatever its checks say, until you "
        + "take this back."],
      null: ["Its checks decide again, from now on, whether it takes traffic."],
    }[state];
    const verb = { up: "Force up", down: "Force down", null: "Let checks decide" }[state];
    this.ask({
      title: state ? `Force ${backend.id} ${state}?` : `Let checks decide about ${backend.id}?`,
      verb, says, danger: state !== null,
      run: async (call) => {
        await call("POST", path("backends", backend.pool, backend.name, "force"), { state });
        return state ? `${backend.id} is forced ${state}` : `checks decide about ${backend.id}`;
      },
    });
  }

  remove(backend, done) {
    this.ask({
      title: `Remove ${backend.id}?`, verb: "Remove", danger: true,
      says: [
        this.others(backend),
        "Connections that are established finish. Its counters go with it.",
        backend.runtime ? "It is not in the file: afterwards nothing remembers it."
          : "It stays in the file: “back to the file” brings it back.",
      ],
      run: async (call) => {
        await call("DELETE", path("backends", backend.pool, backend.name));
        done?.();
        return `${backend.id} is removed`;
      },
    });
  }

  add(chosen) {
    const open = this.app.model.pools.filter((pool) => !pool.app);
    const pool = h("select", {}, open.map((p) => h("option", { value: p.name, text: p.name,
      selected: p.name === chosen })));
    const address = h("input", { type: "text", required: true, placeholder: "10.0.0.7:8000",
      autocomplete: "off", spellcheck: "false" });
    const name = h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    const weight = h("input", { type: "number", min: 0, max: 1000, inputmode: "numeric",
      placeholder: "1" });
    const most = h("input", { type: "number", min: 1, inputmode: "numeric",
      placeholder: "no limit" });
    const backup = h("input", { type: "checkbox" });
    this.ask({
      title: "Add a backend", verb: "Add backend",
      says: ["It takes traffic at once, and its first failed check takes it out. It is not written "
        + "to the file: under “Changes” it can be looked at, and taken back."],
      fields: [
        field("Pool", pool), field("Address", address, "host:port, or unix:/path"),
        field("Name", name, "empty: its address"),
        h("div", { class: "pair" }, field("Weight", weight), field("Connections at most", most)),
        h("label", { class: "check" }, backup, " Backup: only when no other is up"),
      ],
      run: async (call) => {
        const table = { address: address.value.trim() };
        if (name.value.trim()) table.name = name.value.trim();
        if (weight.value.trim()) table.weight = Number(weight.value);
        if (most.value.trim()) table.max_connections = Number(most.value);
        if (backup.checked) table.backup = true;
        await call("POST", path("pools", pool.value, "backends"), table);
        return `${table.name || table.address} is in ${pool.value}`;
      },
    });
    address.focus();
  }

  reload() {
    this.ask({
      title: "Read the file again?", verb: "Reload",
      says: [`${this.app.model.status.config} is read, validated, and put into force in place. No connection `
        + "is cut. If something is wrong with it, it is said here and nothing changes.",
      "Changes made at run time stay on top of it, as far as they still apply."],
      run: async (call) => {
        const done = await call("POST", "v1/reload");
        const words = `The file is in force, as plan ${done.plan_version}`;
        const notes = [
          ...done.needs_restart.map((key) => ["Needs a restart of lbcore to change: ", key]),
          ...(done.not_in_force ?? []).map((why) => ["Could not be put into force: ", why]),
          ...done.workers_failed.map((why) => ["A worker was replaced: ", why]),
          ...done.dropped.map((change) => ["No longer applies, and has ended: ", described(change)]),
        ];
        return notes.length ? () => notice(words, notes) : words;
      },
    });
  }

  restart({ name, app }) {
    this.ask({
      title: `Restart the application of ${name}?`, verb: "Restart",
      says: [`${app.application} is started anew beside the processes that serve now. The new ones `
        + "have to answer before they get requests; the old ones end after their last. No request fails.",
      "If the new ones do not come up, the old ones stay, and the reason is said here."],
      run: async (call) => {
        const done = await call("POST", path("pools", name, "restart"));
        return `${name} serves with generation ${done.generation} of ${done.application}`;
      },
    });
  }

  upgrade() {
    const { version } = this.app.model.status;
    this.ask({
      title: "Upgrade to the version that is installed?", verb: "Upgrade",
      says: [`Version ${version} runs. What is installed now is tried first; then it takes over the `
        + "sockets, and workers are replaced one by one. Old workers finish their connections.",
      "Reload this page afterwards: it may have a newer one, too."],
      run: async (call) => {
        await call("POST", "v1/upgrade");
        return "what is installed takes over";
      },
    });
  }

  // `level` null: as the file says, without asking which. What is logged is not in the stream.
  async logLevel(level) {
    if (level === null) {
      this.setLevel({ title: "Log what the file says?", says: [], level: () => null });
      return;
    }
    const told = await this.asked("v1/config");
    if (!told) return;
    const names = ["debug", "info", "warning", "error"];
    const choice = h("select", {}, [...names, ""].map((name) => h("option", {
      value: name, text: name || "as in the file", selected: name === told.config.log.level })));
    this.setLevel({ title: "What is logged", fields: [field("From level", choice, "and above")],
      level: () => choice.value || null });
  }

  setLevel({ level, ...rest }) {
    this.ask({
      ...rest, verb: "Set level",
      says: ["It is for lbcore's own log. The events on this page have all levels anyhow."],
      run: async (call) => {
        const done = await call("PUT", "v1/log", { level: level() });
        return `logged from level ${done.level} up`;
      },
    });
  }

  // What the API says, for a question that needs it; nothing if it says no, which is shown.
  async asked(where) {
    try {
      return await this.app.api.get(where);
    } catch (error) {
      toast(error.message, true);
      return null;
    }
  }

  // `wanted` null: as many as the file says.
  workers(wanted) {
    const { workers_wanted: now } = this.app.model.status;
    if (wanted === null) {
      this.ask({
        title: "As many workers as the file says?", verb: "Back to the file",
        says: ["Those that are too many stop accepting; their connections end in their own time, at "
          + "most drain_timeout."],
        run: async (call) => {
          const done = await call("POST", "v1/workers", { count: null });
          return `${count(done.workers, "worker")} from now on`;
        },
      });
      return;
    }
    this.ask({
      title: `Run ${count(wanted, "worker")} instead of ${now}?`, verb: wanted > now ? "Add a worker" : "Take one away",
      says: [wanted > now
        ? "A process more serves every listener. Each does best with a CPU of its own."
        : "The last worker stops accepting; its connections end in their own time, at most "
          + "drain_timeout. What waits to be accepted goes to the others."],
      run: async (call) => {
        await call("POST", "v1/workers", { count: wanted });
        return `${count(wanted, "worker")} from now on`;
      },
    });
  }

  forget(pool, number) {
    this.ask({
      title: pool ? `${pool} back to the file?` : "Back to the file?", verb: "Back to the file",
      danger: true,
      says: [`${count(number, "change")} made at run time ${number === 1 ? "is" : "are"} taken back`
        + `${pool ? ` in ${pool}` : ""}: what the file says is in force again, in place. `
        + "Established connections are left alone."],
      run: async (call) => {
        await call("DELETE", pool ? path("pools", pool, "changes") : "v1/changes");
        return "what the file says is in force";
      },
    });
  }
}
