// Which part of memory the map shows, and how one comes from one part to another.

export const zoomBy = 8;

// View is a stack of windows, the whole memory at the bottom. A window is
// {from, span} in pages, or null for everything.
export class View {
  constructor(from, span) {
    this.stack = [null];
    if (span > 0) this.stack.push({ from: Math.max(0, from), span });
  }

  get window() { return this.stack.at(-1); }
  get deep() { return this.stack.length > 1; }

  // into makes the window around a cell of what is shown; null where it goes no deeper.
  into(shown, cell, cells) {
    if (shown.per <= 1) return null;
    const per = Math.max(1, 2 ** Math.floor(Math.log2(shown.per / zoomBy)));
    const span = Math.min(per * cells, shown.span);
    const middle = shown.from + (cell + 0.5) * shown.per;
    const last = shown.from + shown.span - span;
    return { from: Math.max(0, Math.min(Math.floor((middle - span / 2) / per) * per, Math.floor(last / per) * per)), span };
  }

  push(window) { this.stack.push(window); }

  out() {
    if (this.deep) this.stack.pop();
  }

  // beside moves the window by the given share of itself.
  beside(shown, share) {
    if (!this.deep) return;
    this.stack[this.stack.length - 1] = { from: Math.max(0, shown.from + Math.round((shown.span * share) / shown.per) * shown.per), span: shown.span };
  }

  // to goes to a window that the address names: back in the stack, or a new one on it.
  to(from, span) {
    if (!(span > 0)) { this.stack.length = 1; return; }
    const at = this.stack.findIndex((w) => w && w.from === from && w.span === span);
    if (at > 0) this.stack.length = at + 1; else this.stack = [null, { from, span }];
  }
}
