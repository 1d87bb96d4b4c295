// What a cloudlet writes, followed in a dialog.
import { follow } from "/lib/api.js";
import { $ } from "/lib/dom.js";

let reading = null;
const shown = { id: "", stream: "stdout" };
const maxShown = 500000;

export function openOutput(id, name) {
  shown.id = id;
  $("output-title").textContent = `Output of ${name}`;
  $("output-dialog").showModal();
  readOutput("stdout");
}

async function readOutput(kind) {
  reading?.abort();
  const own = reading = new AbortController();
  shown.stream = kind;
  for (const s of ["stdout", "stderr"]) $("tab-" + s).setAttribute("aria-selected", String(s === kind));
  const pane = $("output");
  pane.textContent = "";
  try {
    await follow(`/cloudlets/${encodeURIComponent(shown.id)}/output?stream=${kind}&follow=true&tail=2000`, own.signal, (text) => {
      const atEnd = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 20;
      const all = pane.textContent + text;
      pane.textContent = all.length > maxShown ? all.slice(-maxShown) : all;
      if (atEnd) pane.scrollTop = pane.scrollHeight;
    });
    if (!pane.textContent) pane.textContent = `(nothing on ${kind})`;
  } catch (refusal) {
    if (!own.signal.aborted) pane.textContent = refusal.message;
  }
}

for (const kind of ["stdout", "stderr"]) $("tab-" + kind).addEventListener("click", () => readOutput(kind));
$("output-dialog").addEventListener("close", () => reading?.abort());
