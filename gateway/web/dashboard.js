// The dashboard: draws what the events say, and nothing else.

import { PinDialog } from "./boundary.js";
import { colourNumbers } from "./colours.js";
import { byId, onFrame, restoreTheme, setAttribute, setText, themeButton } from "./dom.js";
import { Drill } from "./drill.js";
import { follow } from "./live.js";
import { Links } from "./links.js";
import { DecisionLog } from "./log.js";
import { Machines } from "./machines.js";
import { LinkLoads, Pipeline, placed } from "./pipeline.js";
import { Plots } from "./plots.js";
import { Requests } from "./requests.js";
import { clock, duration, layers, number } from "./units.js";

restoreTheme();
themeButton(byId("theme"));

const loads = new LinkLoads();
const dialog = new PinDialog();
const pipeline = new Pipeline(byId("pipeline"), (left, right, layer, reset) => {
  // The left stage is pinned to what the boundary leaves it; the first stage's boundary at the left end stays.
  dialog.open(left, [left.layers[0], layer], layerCount(), reset);
});
const machines = new Machines(byId("machines"), (name) => {
  const stage = state.cluster.stages[name];
  if (stage) dialog.open(stage, stage.layers, layerCount());
});
const links = new Links(byId("links-panel"));
const plots = new Plots(byId("plots"));
const requests = new Requests(byId("requests"));
const drill = new Drill();
const log = new DecisionLog(byId("log"));

let state;
let isStale = { cluster: true, series: true, log: true };

const layerCount = () => state.cluster.model?.layers ?? 1;

const draw = onFrame(() => {
  const { cluster, controls } = state;
  if (isStale.cluster) {
    const view = { cluster, loads, canPin: controls.pins === true };
    drawHead(cluster);
    drawMoves(cluster);
    pipeline.draw(view);
    machines.draw({ ...view });
    links.draw(cluster);
    drill.draw(state);
    requests.draw({ requests: state.requests, numbers: colourNumbers(cluster.stages) });
    const hasHandles = document.querySelector(".handle") !== null;
    setText(byId("pipeline-hint"), hasHandles ? "Drag a boundary to pin layers." : "");
  }
  if (isStale.series) {
    plots.draw(state.series);
    const rows = state.series.rows;
    setText(byId("plots-at"), rows.length ? `${clock(rows[0][0])} to ${clock(rows.at(-1)[0])}` : "");
  }
  if (isStale.log) log.draw(state.log);
  isStale = {};
});

function drawHead(cluster) {
  const name = cluster.model?.name ?? "no model yet";
  setText(byId("model"), name);
  document.title = `${cluster.serving ? "●" : "○"} ${name} · baton`;
  const stages = placed(cluster);
  const hosts = new Set(
    Object.values(cluster.stages ?? {})
      .map((stage) => stage.host)
      .filter(Boolean),
  );
  const gateways = Object.keys(cluster.gateways ?? {}).length;
  const facts = [
    cluster.model && `${cluster.model.layers} layers`,
    `${stages.length} stage${stages.length === 1 ? "" : "s"} on ${hosts.size} machine${hosts.size === 1 ? "" : "s"}`,
    cluster.generation !== undefined && `generation ${cluster.generation}`,
    cluster.model && `room for ${number(cluster.model.kv_tokens)} tokens`,
    gateways === 1 ? "1 gateway" : `${gateways} gateways`,
    `baton ${state.controls.version}`,
  ];
  setText(byId("facts"), facts.filter(Boolean).join(" · "));
  const pill = byId("serving");
  setAttribute(pill, "data-state", cluster.serving ? "serving" : "down");
  const trouble = cluster.store?.reachable === false ? "serving; the store does not answer" : "serving";
  setText(pill, cluster.serving ? trouble : `not serving: ${cluster.reason || "the pipeline is not complete"}`);
  setText(byId("now-tokens"), number(cluster.tokens_per_second));
  setText(byId("now-running"), number(cluster.running));
  setText(byId("now-waiting"), number(cluster.waiting));
  const at = state.series.columns.indexOf("first_token_ms");
  const first = state.series.rows.findLast((row) => row[at] !== null);
  setText(byId("now-first"), first ? duration(first[at]) : "–");
}

/** Says what moves now, and why. */
function drawMoves(cluster) {
  const moving = placed(cluster).filter((stage) => ["loading", "ready", "unclaimed"].includes(stage.state));
  const box = byId("moving");
  box.hidden = moving.length === 0;
  if (moving.length === 0) return;
  const named = moving.slice(0, 4).map((stage) => `${stage.name} ${stage.state} ${layers(stage.layers)}`);
  const more = moving.length > 4 ? ` and ${moving.length - 4} more` : "";
  const why = state.log.findLast((line) => line.subject === "placement")?.text ?? "";
  setText(box, `Moving now: ${named.join(", ")}${more}. ${why}`);
}

follow({
  changed(next, event) {
    const wasKnown = state !== undefined;
    state = next;
    loads.update(state.cluster, performance.now());
    if (event === "state" || !wasKnown) isStale = { cluster: true, series: true, log: true };
    else if (event === "patch") isStale.cluster = true;
    else if (event === "sample") isStale.series = true;
    else if (event === "log") isStale.log = true;
    draw();
  },
  connection(kind, words) {
    setAttribute(byId("connection"), "data-state", kind);
    setText(byId("connection"), kind === "live" ? "live" : kind === "waiting" ? `reconnecting` : "not connected");
    byId("connection").title = words;
  },
});
