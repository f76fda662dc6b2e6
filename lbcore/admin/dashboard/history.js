// What the figures were during the last minutes: one point for each `state` event.

const KEPT = 15 * 60; // points, that is seconds
const BRIEF = 60; // points kept for each backend

export class History {
  constructor() {
    this.times = [];
    this.points = [];
    this.backends = new Map();
  }

  add(time, total, backends) {
    const status = total.status || {};
    const codes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    this.push(this.times, time, KEPT);
    this.push(this.points, {
      ...Object.fromEntries(codes.map((code) => [code, status[code] ?? 0])),
      requests: total.requests_per_s, connections: total.connections_per_s,
      errors: total.errors_per_s, p50: total.p50_ms, p90: total.p90_ms, p99: total.p99_ms,
      up: total.bytes_up_per_s, down: total.bytes_down_per_s,
    }, KEPT);
    for (const backend of backends) {
      let known = this.backends.get(backend.id);
      if (!known) this.backends.set(backend.id, (known = []));
      this.push(known, backend.rate, BRIEF);
    }
    if (this.backends.size > 2 * backends.length + 100) this.forget(backends);
  }

  push(list, value, most) {
    list.push(value);
    if (list.length > most) list.shift();
  }

  // Backends that are no longer there.
  forget(backends) {
    const there = new Set(backends.map((backend) => backend.id));
    for (const id of this.backends.keys()) if (!there.has(id)) this.backends.delete(id);
  }

  // Points of the last `seconds` before `now` (ms), oldest first: [{time, ...figures}].
  last(seconds, now) {
    const from = now - 1000 * seconds;
    let start = this.times.length;
    while (start > 0 && this.times[start - 1] >= from) start -= 1;
    return { times: this.times.slice(start), points: this.points.slice(start) };
  }
}
