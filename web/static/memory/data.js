// Asks the agent about memory.
import { call } from "/lib/api.js";

// readCells asks for a part of the map; window is {from, span}, or null for all.
export async function readCells(window, cells, owner) {
  const query = new URLSearchParams({ cells });
  if (window) { query.set("from", window.from); query.set("span", window.span); }
  if (owner) query.set("owner", owner);
  return decode(await call("GET", "/memory/map?" + query, undefined, "application/octet-stream"));
}

const counts = ["free", "used", "fragmented", "absent", "uninitialised", "unknown", "unmovable", "run", "owned"]; // in the order of a record

// decode reads the binary map: a header, a record for each cell, the names of
// owners. whole is what is free in whole huge pages.
export function decode(buffer) {
  const view = new DataView(buffer), count = view.getUint32(4, true), size = view.getUint32(8, true), header = 48;
  const out = { count, pageSize: view.getUint32(12, true), from: Number(view.getBigUint64(16, true)), per: Number(view.getBigUint64(24, true)), at: view.getFloat64(32, true) * 1000 };
  for (const key of [...counts, "whole", "first", "node", "age"]) out[key] = new Float64Array(count);
  const names = decodeNames(view, header + count * size, view.getUint32(40, true));
  out.owners = [];
  for (let i = 0; i < count; i++) {
    const at = header + i * size;
    counts.forEach((key, k) => { out[key][i] = view.getUint32(at + 4 * k, true); });
    out.whole[i] = out.free[i] - out.fragmented[i];
    out.first[i] = out.from + i * out.per;
    out.age[i] = view.getFloat32(at + 36, true);
    out.node[i] = view.getInt16(at + 40, true);
    const owners = [];
    for (const place of [at + 42, at + 48]) {
      const number = view.getUint16(place, true);
      if (number) owners.push({ owner: names[number - 1], pages: view.getUint32(place + 2, true) });
    }
    out.owners.push(owners);
  }
  out.span = count * out.per;
  return out;
}

function decodeNames(view, at, count) {
  const text = new TextDecoder(), names = [];
  for (let i = 0; i < count; i++) {
    const length = view.getUint16(at, true);
    names.push(text.decode(new Uint8Array(view.buffer, view.byteOffset + at + 2, length)));
    at += 2 + length;
  }
  return names;
}
