// Who is in front of the page: login, logout, and what an expired session means.
import { call } from "/lib/api.js";
import { $ } from "/lib/dom.js";
import * as live from "/lib/live.js";

let onIn = () => {};

// begin logs in with the code of the link, if there is one, and shows the page
// or the login.
export async function begin(whenIn = onIn) {
  onIn = whenIn;
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) {
    history.replaceState(null, "", location.pathname + location.search); // used up: keep it out of the history
    try { await call("POST", "/login", { code }); } catch (refusal) { return showLogin(refusal.message); }
  }
  try {
    const [host, session] = await Promise.all([call("GET", "/host"), call("GET", "/session")]);
    Object.assign(live.state, { host, role: session.role });
  } catch (refusal) {
    if (refusal.problem.status === 401) return showLogin("");
    live.setLink("lost");
    return setTimeout(begin, 2000);
  }
  show(true);
  live.start(check);
  onIn();
}

function show(inside) {
  $("login").hidden = inside;
  for (const id of ["board", "logout", "link", "pause", "nav"]) $(id).hidden = !inside;
}

export function showLogin(error) {
  live.stop();
  $("login-error").textContent = error;
  show(false);
  $("code").focus();
}

// check asks whether it is the session that is over.
async function check() {
  try { await call("GET", "/host"); } catch (refusal) { if (refusal.problem.status === 401) showLogin("Your session is over."); }
}

let toastTimer = 0;
export function toast(text, good = false) {
  $("toast").textContent = text;
  $("toast").className = good ? "good" : "";
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 6000);
}

// attempt runs what may be refused and says why when it is.
export async function attempt(act) {
  try { return await act(); } catch (refusal) {
    if (refusal.problem?.status === 401) showLogin("Your session is over.");
    else toast(refusal.message + (refusal.problem?.hint ? `. ${refusal.problem.hint}` : ""));
  }
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const code = $("code").value.trim().replace(/^.*#code=/, "");
  try {
    await call("POST", "/login", { code });
    $("code").value = "";
    begin();
  } catch (refusal) {
    $("login-error").textContent = refusal.message;
  }
});

$("logout").addEventListener("click", async () => {
  try { await call("POST", "/logout"); } catch { /* over either way */ }
  showLogin("");
});
