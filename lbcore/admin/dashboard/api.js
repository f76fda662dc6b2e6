// Requests to the admin address that served this page, and the token it may want.

const KEY = "lbcore-token"; // in sessionStorage: gone with the tab

// What the API said no with. `hint` and `problems` are for the person at the screen.
export class ApiError extends Error {
  constructor(status, answer) {
    const told = (answer && answer.error) || {};
    super(told.message || `the answer was ${status}`);
    this.status = status;
    this.hint = told.hint || "";
    this.problems = told.problems || [];
  }
}

export class Api {
  // `askToken(wrong)` resolves to a token that a person entered.
  constructor(askToken) {
    this.askToken = askToken;
    this.asking = null;
  }

  headers(more = {}) {
    const token = sessionStorage.getItem(KEY);
    return token ? { ...more, Authorization: `Bearer ${token}` } : more;
  }

  // Asks once, however many requests were refused meanwhile. Another token than the one that was
  // refused may have been entered since: then that one is tried.
  async token(refused) {
    if (sessionStorage.getItem(KEY) !== refused) return;
    this.asking ??= this.askToken(refused != null).then((token) => {
      sessionStorage.setItem(KEY, token);
      this.asking = null;
    });
    await this.asking;
  }

  // The answer to a request, whatever its status but 401: then a token is asked for.
  async fetch(path, options = {}) {
    for (;;) {
      const used = sessionStorage.getItem(KEY);
      const answer = await fetch(path, {
        ...options, headers: this.headers(options.headers), cache: "no-store",
      });
      if (answer.status !== 401) return answer;
      await this.token(used);
    }
  }

  // JSON of the answer; ApiError if it is an error. `version`: refuse if another plan is in force.
  async call(method, path, { body, version } = {}) {
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (version != null) headers["If-Match"] = `"${version}"`;
    let answer;
    try {
      answer = await this.fetch(path, { method, headers, body: JSON.stringify(body) });
    } catch (error) {
      throw new ApiError(0, { error: {
        message: "lbcore could not be reached", hint: `whether it runs is not known: ${error.message}`,
      } });
    }
    const found = await answer.json().catch(() => null);
    if (!answer.ok) throw new ApiError(answer.status, found);
    return found;
  }

  get(path) {
    return this.call("GET", path);
  }

  async text(path) {
    const answer = await this.fetch(path);
    if (!answer.ok) throw new ApiError(answer.status, await answer.json().catch(() => null));
    return answer.text();
  }
}

// A path of segments, each encoded.
export const path = (...segments) => "v1/" + segments.map(encodeURIComponent).join("/");
