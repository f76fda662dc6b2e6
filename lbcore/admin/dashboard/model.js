// What the stream says, put in the order in which the page needs it. No document in here.

// By how much they need somebody: the order of "troubled first", and of the words.
export const STATES = {
  down: { rank: 0, icon: "down", word: "down" },
  ejected: { rank: 1, icon: "ejected", word: "ejected" },
  drain: { rank: 2, icon: "drain", word: "draining" },
  up: { rank: 3, icon: "up", word: "up" },
};
const UNKNOWN = { rank: 1, icon: "wait", word: "unknown" };

export const stateOf = (backend) => STATES[backend.state] || { ...UNKNOWN, word: backend.state };

const NONE = {};
const flow = (live) => live.requests_per_s ?? live.connections_per_s ?? 0;

function digestPool(pool, live) {
  const figures = live.pools?.[pool.name] || NONE;
  const each = live.backends?.[pool.name] || NONE;
  const counts = { up: 0, down: 0, ejected: 0, drain: 0 };
  const backends = pool.backends.map((told) => {
    const found = each[told.name] || NONE;
    counts[told.state] = (counts[told.state] || 0) + 1;
    return { ...told, pool: pool.name, id: `${pool.name}/${told.name}`, live: found,
      rate: flow(found), inflight: found.inflight ?? told.inflight ?? 0 };
  });
  const troubled = counts.down + counts.ejected;
  let health = troubled ? "warn" : "ok";
  // In panic, traffic goes to all rather than to nobody.
  if (!counts.up) health = pool.state.includes("panic") ? "warn" : "down";
  return { ...pool, backends, counts, health, troubled, live: figures, rate: flow(figures) };
}

function digestListener(listener, live, pools) {
  const figures = live.listeners?.[listener.name] || NONE;
  const told = live.routes?.[listener.name] || NONE;
  let routes = (listener.routes || []).map((route) => {
    const found = told[route.name] || NONE;
    return { ...route, id: `${listener.name} ${route.name}`, live: found, rate: flow(found),
      health: route.pool ? pools.get(route.pool)?.health || "down" : "ok" };
  });
  if (!routes.length) {
    routes = [{ id: `${listener.name} *`, name: "", match: "every connection", action: "pool",
      pool: listener.pool, live: figures, rate: flow(figures),
      health: pools.get(listener.pool)?.health || "down" }];
  }
  const worst = ["down", "warn", "ok"].find((level) => routes.some((r) => r.health === level));
  return { ...listener, routes, live: figures, rate: flow(figures),
    health: worst === "down" && routes.some((r) => r.health !== "down") ? "warn" : worst || "ok" };
}

function verdict(status, pools, backends) {
  const dead = pools.filter((pool) => pool.health === "down");
  const troubled = pools.reduce((sum, pool) => sum + pool.troubled, 0);
  const away = status.workers_wanted - status.workers.filter((w) => w.state === "serving").length;
  if (status.state && status.state !== "running") {
    return { level: "warn", words: status.state };
  }
  if (dead.length) {
    const [first] = dead;
    const words = dead.length === 1 ? `${first.name} takes no traffic`
      : `${dead.length} pools take no traffic`;
    return { level: "down", words };
  }
  if (troubled) return { level: "warn", words: `${troubled} of ${backends.length} backends down` };
  if (away > 0) return { level: "warn", words: `${away} of ${status.workers_wanted} workers away` };
  return { level: "ok", words: backends.length ? "all backends up" : "no backends" };
}

// Everything that the page shows of one `state` event.
export function digest({ status, live }) {
  const figures = live || NONE;
  const pools = status.pools.map((pool) => digestPool(pool, figures));
  const poolsByName = new Map(pools.map((pool) => [pool.name, pool]));
  const backends = pools.flatMap((pool) => pool.backends);
  const listeners = status.listeners.map((l) => digestListener(l, figures, poolsByName));
  const drained = backends.filter((backend) => backend.state === "drain").length;
  const judged = verdict(status, pools, backends);
  if (judged.level === "ok" && drained) judged.words = `${drained} draining, the others up`;
  return {
    status, listeners, backends, poolsByName, verdict: judged,
    pools: inOrderOfUse(pools, listeners), total: figures.total || NONE,
    byId: new Map(backends.map((backend) => [backend.id, backend])),
  };
}

// Pools as the routes name them from top to bottom, so that few lines cross.
function inOrderOfUse(pools, listeners) {
  const order = new Map();
  for (const listener of listeners) {
    for (const route of listener.routes) {
      if (route.pool && !order.has(route.pool)) order.set(route.pool, order.size);
    }
  }
  const place = (pool) => order.get(pool.name) ?? order.size;
  return [...pools].sort((a, b) => place(a) - place(b));
}
