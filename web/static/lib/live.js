// What the agent streams, kept for every page: the newest picture of everything
// and who wants to know of it.
import { Stream } from "/lib/api.js";
import { $ } from "/lib/dom.js";
import { span } from "/lib/format.js";

// role is that of who looks: a viewer is offered nothing that would be refused.
export const state = { host: null, role: "viewer", vms: [], cloudlets: [], events: [], frameAt: 0, offset: 0, paused: false, link: "connecting" };

// now is the host's clock, not the browser's.
export const now = () => Date.now() + state.offset;

const sparkPoints = 120;
const past = new Map(); // of each VM: its last samples
export const samples = (id) => past.get(id) ?? [];

const watchers = new Set();
let stream = null, scheduled = false, lost = 0;

// watch calls draw, at most once in every animation frame, when something has
// changed, frame for every frame, and resumed when a lost connection is back.
// The answer ends it.
export function watch(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

export function start(onLost) {
  stop();
  stream = new Stream(["host", "vms", "cloudlets", "events"], onFrame, (link) => onLink(link, onLost));
  stream.start();
}

export function stop() {
  stream?.stop();
  stream = null;
  past.clear();
}

function onFrame(frame) {
  state.frameAt = Date.now();
  state.offset = frame.t - Date.now();
  if (frame.topic === "events" && frame.kind === "append") {
    const known = state.events.length ? state.events[state.events.length - 1].seq : 0;
    state.events = state.events.concat(frame.data.filter((e) => e.seq > known)).slice(-200);
  } else {
    state[frame.topic] = frame.data ?? [];
  }
  if (frame.topic === "vms") remember(state.vms);
  for (const watcher of watchers) watcher.frame?.(frame.topic);
  schedule();
}

function remember(vms) {
  const alive = new Set();
  for (const { id, usage } of vms) {
    alive.add(id);
    const of = past.get(id) ?? [];
    if (!of.length || of[of.length - 1].at !== usage.at) of.push(usage);
    past.set(id, of.slice(-sparkPoints));
  }
  for (const id of past.keys()) if (!alive.has(id)) past.delete(id);
}

function onLink(link, onLost) {
  const before = state.link;
  state.link = link;
  setLink(link);
  if (link === "live") {
    lost = 0;
    if (before !== "live") for (const watcher of watchers) watcher.resumed?.();
  }
  if (link === "lost" && ++lost > 1) onLost();
}

export function setLink(link) {
  const pill = $("link");
  pill.dataset.link = link;
  pill.className = "pill " + { live: "good", connecting: "warn", lost: "bad" }[link];
  pill.textContent = { live: "live", connecting: "connecting…", lost: "reconnecting…" }[link];
}

setInterval(() => { // say so when numbers are old, whatever the socket claims
  if (!state.frameAt || $("board").hidden) return;
  const age = (Date.now() - state.frameAt) / 1000;
  document.body.classList.toggle("stale", age > 5);
  if (age > 5) {
    $("link").className = "pill bad";
    $("link").textContent = `stale, ${span(age)} old`;
  }
  schedule();
}, 1000);

// pause holds every number still; frames are still taken in.
export function pause(paused) {
  state.paused = paused;
  schedule();
}

export function schedule() {
  if (scheduled || document.hidden || state.paused) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    if (!$("board").hidden) for (const watcher of watchers) watcher.draw?.();
  });
}
document.addEventListener("visibilitychange", schedule);
