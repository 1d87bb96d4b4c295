// The log of what happened.
import { el } from "/lib/dom.js";
import { clock } from "/lib/format.js";

// eventList makes the list; update draws it when something is new.
export function eventList(most = 100) {
  const node = el("ol", { id: "events", class: "events", tabIndex: 0, "aria-label": "Events" });
  return { node, update(events) {
    const newest = events.slice(-most).reverse();
    const key = newest.length ? `${newest[0].seq}/${newest.length}` : "";
    if (node.dataset.key === key) return;
    node.dataset.key = key;
    node.replaceChildren(...newest.map((e) => el("li", {}, el("time", { dateTime: e.at, title: e.at }, clock(e.at)), el("span", { class: e.level }, e.message))));
    if (!newest.length) node.append(el("li", { class: "muted" }, "Nothing has happened yet."));
  } };
}
