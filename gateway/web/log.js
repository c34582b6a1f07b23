// The log of what the cluster decided, the newest line first.

import { el } from "./dom.js";
import { clock } from "./units.js";

const NAMES = {
  placement: "placement",
  member: "member",
  eviction: "eviction",
  pin: "pin",
  serving: "serving",
  refusal: "refusal",
  store: "store",
};

/** Lines that are drawn. */
const SHOWN_MAX = 200;

export class DecisionLog {
  #box;
  #newest;

  constructor(box) {
    this.#box = box;
  }

  draw(lines) {
    const last = lines[lines.length - 1];
    const known = this.#newest === undefined ? -1 : lines.lastIndexOf(this.#newest);
    if (known === lines.length - 1 && this.#newest !== undefined) return;
    if (known < 0) this.#box.replaceChildren();
    for (const line of lines.slice(known + 1).slice(-SHOWN_MAX)) {
      const time = el("time", { datetime: new Date(line.t).toISOString() }, clock(line.t));
      this.#box.prepend(
        el(
          "li",
          { "data-subject": line.subject },
          time,
          el("span", { class: "subject" }, NAMES[line.subject] ?? line.subject),
          el("p", {}, line.text),
        ),
      );
    }
    while (this.#box.children.length > SHOWN_MAX) this.#box.lastChild.remove();
    this.#newest = last;
  }
}
