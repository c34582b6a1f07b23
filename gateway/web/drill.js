// A drill of this cluster, where the server allows it: the stages that it can disturb, the steps, and the verdict.

import { sendJson } from "./api.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { placed } from "./pipeline.js";
import { duration } from "./units.js";

const FAULTS = {
  kill: { verb: "Kill", name: "kill, as a crash does" },
  freeze: { verb: "Freeze", name: "freeze, until the answer ends" },
};
const VERDICTS = { running: "running", passed: "same text", failed: "failed", stopped: "no verdict" };

export class Drill {
  #offered = "";
  #refused = "";
  #steps = byId("drill-steps");

  constructor() {
    byId("drill-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    for (const id of ["drill-stage", "drill-fault"]) byId(id).addEventListener("change", () => this.#name());
  }

  draw({ cluster, controls, drill }) {
    const offered = controls.drill;
    byId("drill-panel").hidden = !offered;
    if (!offered) return;
    const stages = placed(cluster).filter((stage) => stage.host === offered.host && stage.state === "serving");
    const isRunning = drill?.state === "running";
    // A stage that a drill has killed is offered again when the drill is over.
    const names = stages.map((stage) => stage.name);
    if (!isRunning) this.#offer(names, offered.faults);
    byId("drill-start").disabled = isRunning || stages.length === 0;
    const hint = stages.length
      ? "An answer is streamed twice, the second time without a stage from the middle on, and every token compared."
      : `No stage of ${offered.host} serves layers, where this gateway runs: use baton drill on a machine with one.`;
    setText(byId("drill-hint"), hint);
    this.#show(drill);
  }

  /** Offers stages and faults, and keeps what was chosen. */
  #offer(stages, faults) {
    const offered = JSON.stringify([stages, faults]);
    if (offered === this.#offered) return;
    this.#offered = offered;
    const fill = (select, values, name, first) => {
      const chosen = values.includes(select.value) ? select.value : first;
      select.replaceChildren(...values.map((value) => el("option", { value }, name(value))));
      select.value = chosen ?? "";
    };
    fill(byId("drill-stage"), stages, (name) => name, stages[stages.length >> 1]);
    fill(byId("drill-fault"), faults, (fault) => FAULTS[fault]?.name ?? fault, faults[0]);
    this.#name();
  }

  #name() {
    const [stage, fault] = [byId("drill-stage").value, byId("drill-fault").value];
    setText(byId("drill-start"), stage ? `${FAULTS[fault]?.verb ?? fault} ${stage} in a drill` : "Start a drill");
  }

  async #start() {
    byId("drill-start").disabled = true;
    this.#refused = "";
    try {
      const body = { fault: byId("drill-fault").value, stage: byId("drill-stage").value };
      this.#show(await sendJson("/distributed/drill", { body }));
    } catch (error) {
      this.#refused = error.message;
      setText(byId("drill-result"), this.#refused);
      byId("drill-start").disabled = false;
    }
  }

  #show(drill) {
    const pill = byId("drill-verdict");
    pill.hidden = !drill;
    if (!drill) return;
    setAttribute(pill, "data-state", { passed: "serving", running: "waiting" }[drill.state] ?? "down");
    setText(pill, VERDICTS[drill.state] ?? drill.state);
    const steps = drill.steps ?? [];
    while (this.#steps.children.length > steps.length) this.#steps.lastChild.remove();
    steps.forEach((step, at) => {
      if (!this.#steps.children[at]) this.#steps.append(el("li", {}));
      setText(this.#steps.children[at], step);
    });
    setText(byId("drill-result"), this.#refused || result(drill));
  }
}

/** The outcome in a sentence. */
function result({ report, error }) {
  if (error) return `There is no verdict: ${error}.`;
  if (!report) return "";
  const { verdict, disturbed, undisturbed, stage, lacks, difference } = report;
  const gap = (answer) => duration(answer.longest_gap_ms);
  const pause = `The longest pause was ${gap(disturbed)}, ${gap(undisturbed)} without the fault.`;
  const whole = lacks ? `The cluster is not whole: ${lacks}.` : `The cluster is whole again.`;
  const outcome = {
    equal: `All ${disturbed.tokens} tokens are the same without ${stage}.`,
    unfelt: "The fault came too late to disturb the answer, so nothing is proved.",
    different: `The answers differ in their ${difference?.in ?? "text"}, from ${difference?.at ?? "some place"} on.`,
  }[verdict];
  return [outcome, pause, whole].join(" ");
}
