// Asks again and again, while somebody looks.
import { state } from "/lib/live.js";

const wait = (ms) => new Promise((next) => setTimeout(next, ms));

// unseen is when nothing needs to be asked for: the tab is hidden, or held still.
export const unseen = () => document.hidden || state.paused;

// Poll calls read again and again, every ms at most once, and not while nobody looks.
export class Poll {
  constructor(ms, read, idle = unseen) {
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
