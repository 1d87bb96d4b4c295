// Numbers and times as people read them.

function scaled(n, step, units) {
  let i = 0;
  while (n >= step - 0.5 && i < units.length - 1) { n /= step; i++; }
  const digits = Number.isInteger(n) ? 0 : n < 10 ? 2 : n < 100 ? 1 : 0;
  return `${n.toFixed(digits)} ${units[i]}`;
}

export const bytes = (n) => scaled(n ?? 0, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
export const bits = (n) => scaled(n ?? 0, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
export const cores = (n) => (n === null || n === undefined ? "no limit" : String(Math.round(n * 100) / 100));
export const percent = (ratio) => `${Math.round(ratio * 100)} %`;

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

export const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });
