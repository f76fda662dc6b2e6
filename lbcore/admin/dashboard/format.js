// Numbers as people read them. null and undefined mean that nothing was counted: a dash.

const NOTHING = "–";
const THIN = "\u202f"; // a narrow space that does not break

function short(value) {
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(1);
}

export function number(value) {
  if (value == null) return NOTHING;
  if (value >= 1e6) return short(value / 1e6) + "M";
  if (value >= 1e4) return short(value / 1e3) + "k";
  if (value >= 1e3) return Math.round(value).toLocaleString("en");
  if (value > 0 && value < 0.05) return "<0.1";
  return short(value);
}

export const rate = (value) => (value == null ? NOTHING : number(value) + "/s");

export function millis(value) {
  if (value == null) return NOTHING;
  if (value >= 1000) return short(value / 1000) + THIN + "s";
  if (value < 0.1) return value.toFixed(2) + THIN + "ms";
  return short(value) + THIN + "ms";
}

export function bytes(value) {
  if (value == null) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return (unit ? short(value) : String(Math.round(value))) + THIN + units[unit];
}

export const byteRate = (value) => (value == null ? NOTHING : bytes(value) + "/s");

export const percent = (value) => (value == null ? NOTHING : short(value) + THIN + "%");

export function share(part, whole) {
  if (part == null || !whole) return NOTHING;
  const found = (100 * part) / whole;
  if (found > 0 && found < 0.1) return "<0.1" + THIN + "%";
  return percent(found);
}

export function duration(seconds) {
  if (seconds == null) return NOTHING;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}${THIN}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}${THIN}min`;
  if (whole < 86400) {
    return `${Math.floor(whole / 3600)}${THIN}h ${Math.floor((whole % 3600) / 60)}${THIN}min`;
  }
  const days = Math.floor(whole / 86400);
  return `${days}${THIN}d ${Math.floor((whole % 86400) / 3600)}${THIN}h`;
}

// A backend's weight, and what it would be without an order.
export const weightOf = ({ weight, weight_configured: of, runtime }) => (weight === of ? number(weight)
  : `${number(weight)} (${runtime ? "added with" : "file:"} ${number(of)})`);

// An address where there is little room: of a unix socket, its name is what differs.
export const brief = (address) => address.replace(/^unix:.*\//, "unix:…/");

export const clock = (iso) => (iso ? new Date(iso).toLocaleTimeString("en-GB") : NOTHING);

export const since = (iso, now = Date.now()) =>
  iso ? duration((now - Date.parse(iso)) / 1000) : NOTHING;

// "1 backend", "3 backends"
export const count = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
