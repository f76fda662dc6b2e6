// The Python applications that lbcore runs itself, and how their processes are.

import { notice } from "./dialogs.js";
import { $, h, icon, keyed, put, say, show, turn } from "./dom.js";
import { count, number } from "./format.js";

const KINDS = { ready: "up", failed: "down" }; // of what a process says; others: not ready yet
const lastLine = (text) => text.trim().split("\n").at(-1);

// What is not as it should be, in words and in its own: a process, or what was to replace it.
function wrong({ servers, failed }) {
  const down = servers.find((one) => one.state === "failed");
  if (down) return ["does not come up: ", down.error || ""];
  return failed ? ["the last restart failed: ", failed.error] : ["", ""];
}

export class Applications {
  constructor({ actions }) {
    this.actions = actions;
    this.list = $("application-rows");
  }

  update({ pools }) {
    const found = pools.filter((pool) => pool.app);
    show($("applications"), found.length > 0);
    show($("application-link"), found.length > 0);
    say($("application-count"), count(found.length, "application"));
    keyed(this.list, found, (pool) => pool.name, (pool) => this.row(pool));
  }

  row(first) {
    let told = first;
    const application = h("b"), server = h("span", { class: "sub" });
    const processes = h("ul", { class: "processes" }), generation = h("span");
    const why = h("button", { type: "button", class: "link bad",
      on: { click: () => notice(`The application of ${told.name}`, [wrong(told.app)]) } });
    const restart = h("button", { type: "button", class: "small", text: "Restart…",
      "aria-label": `Restart the application of ${first.name}`,
      on: { click: () => this.actions.restart(told) } });
    const el = h("tr", {}, h("td", { class: "a-pool" }, h("b", { text: first.name })),
      h("td", { "data-label": "Application" }, application, server),
      h("td", { "data-label": "Processes" }, processes, why),
      h("td", { "data-label": "Generation" }, generation), h("td", { class: "a-actions" }, restart));
    return {
      el,
      update: (pool) => {
        told = pool;
        const { app } = pool;
        say(application, app.application);
        say(server, app.server);
        say(generation, app.retiring ? `${app.generation}, ${app.retiring} of before at their end` : app.generation);
        keyed(processes, app.servers, (one) => one.backend, () => this.process());
        const [words, output] = wrong(app);
        show(why, Boolean(words));
        say(why, words + lastLine(output));
      },
    };
  }

  process() {
    const drawn = icon("up"), words = h("span");
    const el = h("li", { class: "state" }, drawn, words);
    return {
      el,
      update: ({ backend, pid, state, restarts }) => {
        const kind = KINDS[state];
        put(el, "data-state", kind || "drain");
        turn(drawn, kind || "wait");
        say(words, [`${backend} ${state}`, pid && `pid ${pid}`,
          restarts > 0 && `${number(restarts)} restart${restarts === 1 ? "" : "s"}`].filter(Boolean).join(" · "));
      },
    };
  }
}
