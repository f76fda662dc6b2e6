// The live stream: server-sent events read with fetch(), because EventSource cannot send a token.
// It connects again for as long as the page is open.

const SILENCE = 8000; // ms without a byte until the connection is held to be dead
const WAITS = [250, 500, 1000, 2000, 3000]; // ms before each further attempt

export class Stream {
  // `path()` says what to ask for, `hear(name, data, id)` takes each event, `lost(error)` and
  // `found()` learn of the connection.
  constructor(api, { path, hear, found, lost }) {
    Object.assign(this, { api, path, hear, found, lost });
    this.heard = 0; // performance.now() of the last bytes
    this.attempts = 0;
  }

  async run() {
    for (;;) {
      let why = "the connection ended";
      try {
        await this.once();
      } catch (error) {
        why = error.name === "AbortError" ? "nothing was heard" : error.message;
      }
      this.lost(why);
      await this.pause(WAITS[Math.min(this.attempts, WAITS.length - 1)]);
      this.attempts += 1;
    }
  }

  pause(ms) {
    return new Promise((resolve) => {
      this.hurry = resolve;
      setTimeout(resolve, ms);
    });
  }

  // Tries now instead of after the pause.
  again() {
    this.hurry?.();
  }

  async once() {
    const stop = new AbortController();
    let watch = setTimeout(() => stop.abort(), SILENCE);
    try {
      const path = await this.path();
      clearTimeout(watch); // a person may be entering a token for as long as it takes
      const answer = await this.api.fetch(path, { signal: stop.signal });
      if (!answer.ok) {
        const told = await answer.json().catch(() => null);
        throw new Error(told?.error?.message || `the answer was ${answer.status}`);
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const events = new Events(this.hear);
      this.found();
      for (;;) {
        watch = setTimeout(() => stop.abort(), SILENCE);
        const { done, value } = await reader.read();
        clearTimeout(watch);
        if (done) return;
        this.heard = performance.now();
        this.attempts = 0;
        events.feed(value);
      }
    } finally {
      clearTimeout(watch);
      stop.abort();
    }
  }
}

// Takes text/event-stream apart (HTML standard, 9.2.6).
export class Events {
  constructor(hear) {
    this.hear = hear;
    this.rest = "";
    this.clear();
  }

  clear() {
    this.name = "message";
    this.data = [];
    this.id = null;
  }

  feed(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.hear(this.name, JSON.parse(this.data.join("\n")), this.id);
      this.clear();
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment, which says that the connection lives
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.name = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id") this.id = value;
  }
}
