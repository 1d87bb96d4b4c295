// What becomes of a VM in which nothing goes on.
import { span } from "/lib/format.js";
import { now } from "/lib/live.js";

const since = (time) => Math.max(0, Math.floor((now() - Date.parse(time)) / 1000));

// idleText is how long a VM has been idle and when it is deleted; empty while it is
// busy.
export function idleText({ state, idle_since, autoscale }) {
  if (state !== "running" || !idle_since) return autoscale.keep ? "kept when idle" : "";
  const idle = `idle ${whole(since(idle_since))}`;
  if (autoscale.delete_at) return `${idle}, deleted in ${whole(Math.ceil((Date.parse(autoscale.delete_at) - now()) / 1000))}`;
  return autoscale.keep ? `${idle}, kept` : idle;
}

const whole = (seconds) => (seconds < 60 ? `${Math.max(0, seconds)} s` : span(seconds));
