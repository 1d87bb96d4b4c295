// Pages by path, over the history API.
import { $ } from "/lib/dom.js";
import { schedule, watch } from "/lib/live.js";

let routes = [], page = null, shown = "", unwatch = () => {};

// A route is [pattern, open]; open fills the element it is given and returns
// {title, draw?, frame?, resumed?, query?, close?}.
export function serve(table) {
  routes = table;
  addEventListener("popstate", render);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.target || link.hasAttribute("download") || link.origin !== location.origin || link.hash || !match(link.pathname)) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}

export function go(path) {
  history.pushState(null, "", path);
  render();
  scrollTo(0, 0);
}

// leave shows nothing: the next render opens the page anew.
export function leave() {
  unwatch();
  page?.close?.();
  page = null;
  shown = "";
}

export function render() {
  if (page && shown === location.pathname) { // only the query differs
    page.query?.(query());
    return;
  }
  const found = match(location.pathname);
  if (!found) return;
  const first = !page;
  leave();
  shown = location.pathname;
  const board = $("board");
  board.replaceChildren();
  page = found.open(board, found.params, query());
  unwatch = watch(page);
  document.title = page.title ? `${page.title} · CloudFlash` : "CloudFlash";
  for (const link of $("nav").querySelectorAll("a")) {
    if (link.pathname === shown) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (!first) board.querySelector("h1")?.focus();
  schedule();
}

export const query = () => new URLSearchParams(location.search);

// setQuery changes the address: what is chosen on a page can be linked to.
export function setQuery(values, push = false) {
  const next = query();
  for (const [key, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === "") next.delete(key); else next.set(key, value);
  }
  const text = next.toString(), path = location.pathname + (text ? "?" + text : "");
  if (path !== location.pathname + location.search) history[push ? "pushState" : "replaceState"](null, "", path);
}

function match(path) {
  for (const [pattern, open] of routes) {
    const params = pattern.exec(path);
    if (params) return { open, params: params.slice(1).map(decodeURIComponent) };
  }
  return null;
}
