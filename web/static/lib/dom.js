// Small helpers to make and to update elements.

export const $ = (id) => document.getElementById(id);

// el makes an element. Text goes in as text: nothing from the agent is ever HTML.
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

// set writes a text where node says data-k=key, when it is another one.
export function set(node, key, text) {
  const target = node.querySelector(`[data-k="${key}"]`);
  write(target, text);
  return target;
}

export function write(node, text) {
  text = String(text);
  if (node.textContent !== text) node.textContent = text;
}

// level sets a bar, and warns by its colour.
export function level(bar, ratio) {
  bar.value = Math.min(1, Math.max(0, ratio || 0));
  bar.className = ratio > 0.95 ? "bad" : ratio > 0.8 ? "warn" : "";
}

// reconcile keeps the elements of what is still there, so that focus and
// pressed buttons survive a new frame.
export function reconcile(parent, items, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.id, node]));
  let previous = null;
  for (const item of items) {
    const node = old.get(String(item.id)) ?? make(item);
    old.delete(String(item.id));
    node.dataset.id = item.id;
    update(node, item);
    const next = previous ? previous.nextSibling : parent.firstChild;
    if (next !== node) parent.insertBefore(node, next);
    previous = node;
  }
  for (const node of old.values()) node.remove();
}

// section is a part of a page under a heading of its own.
export function section(title, id, ...children) {
  return el("section", { "aria-labelledby": id }, el("div", { class: "section-head" }, el("h2", { id }, title)), ...children);
}

// choice is a row of buttons of which one is pressed.
export function choice(label, options, chosen, onChoose) {
  const group = el("div", { class: "choice", role: "group", "aria-label": label });
  const mark = (value) => { for (const b of group.children) b.setAttribute("aria-pressed", String(b.dataset.value === value)); };
  for (const [value, text] of options) {
    group.append(el("button", { type: "button", class: "small", "data-value": value, onclick: () => { mark(value); onChoose(value); } }, text));
  }
  mark(chosen);
  group.mark = mark;
  return group;
}

// copyButton puts a text on the clipboard, where the browser has one for this page.
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "small quiet copy", onclick: async () => {
    let done = "Copied";
    try { await navigator.clipboard.writeText(typeof text === "function" ? text() : text); } catch { done = "No clipboard here"; }
    write(button, done);
    setTimeout(() => write(button, label), 1500);
  } }, label);
  return button;
}

// save hands a text to the browser's downloads.
export function save(name, text, type = "text/csv") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
