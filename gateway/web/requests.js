// The requests that run or wait, each with its place: in the queue, in its prompt, or in its answer, and the
// micro-batches that carry it now.

import { byId, el, setText } from "./dom.js";
import { duration, number } from "./units.js";

/** Requests that are drawn. The others are counted. */
const SHOWN_MAX = 60;

const PHASES = { waiting: 0, prefill: 1, decode: 2 };

export class Requests {
  #box;
  #rows = new Map();
  #empty = el("p", { class: "muted empty" }, "No request runs or waits.");

  constructor(box) {
    this.#box = box;
    box.append(this.#empty);
  }

  draw({ requests, numbers }) {
    const all = Object.entries(requests ?? {});
    all.sort(
      ([id, one], [otherId, other]) =>
        PHASES[other.phase] - PHASES[one.phase] || (one.before ?? 0) - (other.before ?? 0) || id - otherId,
    );
    setText(byId("requests-count"), all.length ? `${all.length} at this gateway` : "");
    this.#empty.hidden = all.length > 0;
    const shown = all.slice(0, SHOWN_MAX);
    const ids = new Set(shown.map(([id]) => id));
    for (const [id, row] of this.#rows) {
      if (!ids.has(id)) {
        row.element.remove();
        this.#rows.delete(id);
      }
    }
    shown.forEach(([id, request], at) => {
      let row = this.#rows.get(id);
      if (!row) {
        row = new Row(id);
        this.#rows.set(id, row);
      }
      if (this.#box.children[at] !== row.element) this.#box.insertBefore(row.element, this.#box.children[at] ?? null);
      row.draw(request, numbers);
    });
  }
}

class Row {
  constructor(id) {
    this.name = el("b", { class: "mono" }, `#${id}`);
    this.phase = el("span", { class: "phase" });
    this.age = el("span", { class: "muted small" });
    this.bar = el("i", {});
    this.track = el("div", { class: "progress", role: "img" }, this.bar);
    this.place = el("span", { class: "muted small" });
    this.stages = el("div", { class: "spent", role: "img" });
    this.element = el(
      "div",
      { class: "request" },
      el("div", { class: "line" }, this.name, this.phase, this.age),
      this.track,
      this.place,
      this.stages,
    );
  }

  draw(request, numbers) {
    this.element.dataset.phase = request.phase;
    const attempts = request.attempts > 1 ? `, attempt ${request.attempts}` : "";
    setText(this.phase, `${request.phase}${attempts}`);
    setText(this.age, duration(request.age_ms));
    const { prompt_tokens: prompt, generated_tokens: made, sent_tokens: sent, tokens_left: left } = request;
    const history = prompt + made;
    const [share, words] = {
      waiting: () => [0, `${number(request.before)} before it, ${number(prompt)} prompt tokens`],
      prefill: () => [
        sent / Math.max(1, history),
        `${number(Math.min(sent, history))} of ${number(history)} tokens computed or on their way`,
      ],
      decode: () => [made / Math.max(1, made + left), `${number(made)} tokens, at most ${number(left)} more`],
    }[request.phase]();
    this.bar.style.width = `${Math.min(1, share) * 100}%`;
    this.track.setAttribute("aria-label", words);
    const flying = request.in_flight
      ? `micro-batches in the pipeline: ${request.in_flight}, for ${duration(request.in_flight_ms)}`
      : "nothing in the pipeline";
    setText(this.place, `${words} · ${flying}`);
    const total = request.stages.reduce((sum, stage) => sum + stage.compute_ms, 0);
    const parts = request.stages.map((stage) => {
      const part = el("i", { class: `host-${numbers.get(stage.stage) ?? 0}` });
      part.style.width = `${(stage.compute_ms / Math.max(1, total)) * 100}%`;
      part.title = `${stage.stage}: ${duration(stage.compute_ms)}`;
      return part;
    });
    this.stages.replaceChildren(...parts);
    this.stages.setAttribute(
      "aria-label",
      request.stages.map((stage) => `${stage.stage} computed ${duration(stage.compute_ms)}`).join(", ") ||
        "no stage has computed for it yet",
    );
  }
}
