// Reads the text format of Prometheus.

// parse answers the families by name, in their order: {name, type, help, samples: [{name, labels, value}]}.
export function parse(text) {
  const families = new Map(), family = (name) => {
    if (!families.has(name)) families.set(name, { name, type: "untyped", help: "", samples: [] });
    return families.get(name);
  };
  let last = null;
  for (const line of text.split("\n")) {
    if (!line) continue;
    if (line[0] === "#") {
      const [, what, name, rest] = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line) ?? [];
      if (!what) continue;
      last = family(name);
      if (what === "TYPE") last.type = rest; else last.help = rest.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
      continue;
    }
    const sample = parseSample(line);
    if (!sample) continue;
    const own = last && (sample.name === last.name || (sample.name.startsWith(last.name) && /^_(bucket|sum|count|total)$/.test(sample.name.slice(last.name.length))));
    (own ? last : family(sample.name)).samples.push(sample);
  }
  return families;
}

function parseSample(line) {
  const name = /^[a-zA-Z_:][a-zA-Z0-9_:]*/.exec(line)?.[0];
  if (!name) return null;
  const labels = {};
  let at = name.length;
  if (line[at] === "{") {
    const label = /[{,]\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/y;
    label.lastIndex = at;
    for (let found; (found = label.exec(line)); at = label.lastIndex) labels[found[1]] = found[2].replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    at = line.indexOf("}", at) + 1;
    if (!at) return null;
  }
  const value = line.slice(at).trim().split(/\s+/)[0];
  return { name, labels, value: { "+Inf": Infinity, "-Inf": -Infinity }[value] ?? Number(value) };
}

// labelText writes labels as PromQL does.
export const labelText = (labels) => {
  const list = Object.entries(labels).map(([k, v]) => `${k}=${JSON.stringify(v)}`);
  return list.length ? `{${list.join(", ")}}` : "";
};

// promql is what one asks for first about a family.
export function promql({ name, type }) {
  if (type === "counter") return `rate(${name}[5m])`;
  if (type === "histogram") return `histogram_quantile(0.9, sum by (le) (rate(${name}_bucket[5m])))`;
  return name;
}

// byLabel sums a family by the values of one label.
export function byLabel(family, label) {
  const sums = new Map();
  for (const s of family?.samples ?? []) if (s.labels[label] !== undefined) sums.set(s.labels[label], (sums.get(s.labels[label]) ?? 0) + s.value);
  return sums;
}

export const single = (family) => family?.samples[0]?.value ?? null;
