// Writes numbers and times for people.

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR, YEAR = 365 * DAY;

export function count(number) {
  return number === undefined || number === null ? "–" : Math.round(number).toLocaleString("en");
}

export function rate(number) {
  if (number === undefined || Number.isNaN(number)) return "–";
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)}M/s`;
  if (number >= 1e4) return `${(number / 1e3).toFixed(0)}k/s`;
  if (number >= 1e3) return `${(number / 1e3).toFixed(1)}k/s`;
  return `${number >= 10 || number === 0 ? number.toFixed(0) : number.toFixed(1)}/s`;
}

export function bytes(number) {
  if (number === undefined || number === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return `${number.toFixed(number < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

export function duration(ms) {
  if (ms === undefined || ms === null || Number.isNaN(ms)) return "–";
  if (ms < 0) return `${duration(-ms)} ahead`;
  if (ms < SECOND) return `${ms.toFixed(0)} ms`;
  if (ms < MINUTE) return `${(ms / SECOND).toFixed(1)} s`;
  if (ms < HOUR) return `${(ms / MINUTE).toFixed(0)} min`;
  if (ms < 2 * DAY) return `${(ms / HOUR).toFixed(1)} h`;
  if (ms < YEAR) return `${(ms / DAY).toFixed(0)} d`;
  return `${(ms / YEAR).toFixed(1)} y`;
}

/** A time of day where the reader is, with the date where it is not today's. */
export function time(ms) {
  if (ms === undefined || ms === null) return "–";
  const at = new Date(ms);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString("en-GB") : dated(ms);
}

/** A date and a time of day where the reader is; in Swedish, dates are written as by ISO 8601. */
export function dated(ms) {
  const at = new Date(ms);
  return `${at.toLocaleDateString("sv")} ${at.toLocaleTimeString("en-GB")}`;
}

/** A moment of event time, in UTC. */
export function moment(ms) {
  if (ms === undefined || ms === null) return "–";
  const at = new Date(ms);
  return Number.isNaN(at.getTime()) ? `${ms} ms` : at.toISOString().replace("T", " ").replace(".000Z", "Z");
}

export function percent(share) {
  if (share === undefined || share === null || Number.isNaN(share)) return "–";
  return share > 0 && share < 0.1 ? `${(share * 100).toFixed(1)}%` : `${Math.round(share * 100)}%`;
}

/** The node that the address asks a view to show. */
export function wantedNode() {
  const [, node] = location.hash.split("?");
  return node && decodeURIComponent(node);
}
