// The dashboard: which page is at which path, and what is around all of them.
import { $, write } from "/lib/dom.js";
import { pause, state, watch } from "/lib/live.js";
import { render, serve } from "/lib/router.js";
import { begin } from "/lib/session.js";
import { notices } from "/parts/notices.js";
import * as overview from "/pages/overview.js";
import * as vm from "/pages/vm.js";

serve([ // what is not looked at first is loaded when it is
  [/^\/$/, () => overview],
  [/^\/vms\/([^/]+)$/, () => vm],
  [/^\/autoscaling$/, () => import("/pages/autoscaling.js")],
  [/^\/memory$/, () => import("/pages/memory.js")],
  [/^\/prometheus$/, () => import("/pages/prometheus.js")],
]);

watch({ draw() { if (state.host) write($("hostname"), `${state.host.name} · Linux ${state.host.kernel}`); } });

const alerts = notices();
document.body.append(alerts.node);
watch(alerts);

$("pause").addEventListener("click", () => {
  pause(!state.paused);
  write($("pause"), state.paused ? "Resume" : "Pause");
});

begin(render);
