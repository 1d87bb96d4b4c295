// The dashboard: which page is at which path, and what is around all of them.
import { $, write } from "/lib/dom.js";
import { pause, state, watch } from "/lib/live.js";
import { render, serve } from "/lib/router.js";
import { begin } from "/lib/session.js";
import * as overview from "/pages/overview.js";
import * as vm from "/pages/vm.js";

serve([ // what is not looked at first is loaded when it is
  [/^\/$/, () => overview],
  [/^\/vms\/([^/]+)$/, () => vm],
  [/^\/memory$/, () => import("/pages/memory.js")],
  [/^\/prometheus$/, () => import("/pages/prometheus.js")],
]);

watch({ draw() { if (state.host) write($("hostname"), `${state.host.name} · Linux ${state.host.kernel}`); } });

$("pause").addEventListener("click", () => {
  pause(!state.paused);
  write($("pause"), state.paused ? "Resume" : "Pause");
});

begin(render);
