// Pages by path, over the history API.
import { $, el } from "/lib/dom.js";
import { schedule, watch } from "/lib/live.js";

let routes = [], page = null, shown = "", first = true, unwatch = () => {};

// A route is [pattern, load]; load answers a module whose open fills the element
// it is given and returns {title, draw?, frame?, resumed?, query?, close?}.
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

export async function render() {
  if (page && shown === location.pathname) { // only the query differs
    page.query?.(query());
    return;
  }
  const found = match(location.pathname);
  if (!found) return;
  leave();
  const path = shown = location.pathname, board = $("board");
  for (const link of $("nav").querySelectorAll("a")) {
    if (link.pathname === path) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  let module;
  try { module = await found.load(); } catch {
    if (path === location.pathname) board.replaceChildren(el("p", { class: "empty", role: "alert" }, "This page could not be loaded. ", el("a", { href: path, target: "_self" }, "Try again")));
    return;
  }
  if (path !== location.pathname || page) return; // somewhere else meanwhile
  board.replaceChildren();
  page = module.open(board, found.params, query());
  unwatch = watch(page);
  document.title = page.title ? `${page.title} · CloudFlash` : "CloudFlash";
  if (!first) board.querySelector("h1")?.focus();
  first = false;
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
  for (const [pattern, load] of routes) {
    const params = pattern.exec(path);
    if (params) return { load, params: params.slice(1).map(decodeURIComponent) };
  }
  return null;
}
