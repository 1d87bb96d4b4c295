import { el } from "/lib/dom.js";
export function open(root) { root.append(el("h1", { tabIndex: -1 }, "Prometheus")); return { title: "Prometheus" }; }
