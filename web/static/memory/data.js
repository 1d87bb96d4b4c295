// Asks the agent about memory.
import { call } from "/lib/api.js";

const wait = (ms) => new Promise((next) => setTimeout(next, ms));

// readCells asks for a part of the map; window is {from, span}, or null for all.
export async function readCells(window, cells, owner) {
  const query = new URLSearchParams({ cells });
  if (window) { query.set("from", window.from); query.set("span", window.span); }
  if (owner) query.set("owner", owner);
  return arrays(await call("GET", "/memory/map?" + query));
}

// arrays turns a list of cells into lists of numbers. whole is what is free in whole huge pages.
function arrays(answer) {
  const { cells } = answer, pick = (key) => Float64Array.from(cells, (c) => c[key] ?? 0);
  const out = { from: answer.from, span: answer.span, per: answer.pages_per_cell, pageSize: answer.page_size, owner: answer.owner ?? "", count: cells.length, at: answer.at };
  for (const key of ["first", "free", "used", "fragmented", "absent", "uninitialised", "unknown", "unmovable", "node"]) out[key] = pick(key);
  out.whole = out.free.map((n, i) => n - out.fragmented[i]);
  out.run = pick("largest_free_run");
  out.age = pick("age_seconds");
  out.owned = answer.owner ? pick("owned") : null;
  out.owners = cells.map((c) => c.owners ?? []);
  return out;
}

// Poll calls read again and again, every ms at most once, and not while nobody looks.
export class Poll {
  constructor(ms, read, idle) {
    Object.assign(this, { ms, read, idle, on: true, asked: false });
    this.run();
  }

  async run() {
    while (this.on) {
      this.asked = false;
      if (!this.idle()) await this.read();
      for (let waited = 0; this.on && !this.asked && waited < this.ms; waited += 100) await wait(100);
    }
  }

  // soon has it read now, or again when it is just reading.
  soon() { this.asked = true; }

  stop() { this.on = false; }
}
