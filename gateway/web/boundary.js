// Pins: the dialog with the planner's preview, the write that compares, and its undoing.

import { sendJson } from "./api.js";
import { byId, el, toast } from "./dom.js";
import { pinText } from "./machines.js";
import { bytes, layers, number } from "./units.js";

/** Time after the last change before the planner is asked, in milliseconds. */
const PAUSE = 150;

/** The dialog. One at a time. */
export class PinDialog {
  #dialog = byId("pin-dialog");
  #stage;
  #pin;
  #preview;
  #asked = 0;
  #timer;
  #closed = () => {};

  constructor() {
    for (const id of ["pin-first", "pin-last"]) byId(id).addEventListener("input", () => this.#readFields());
    byId("pin-none").addEventListener("click", () => this.#choose({ layers: [] }));
    byId("pin-remove").addEventListener("click", () => this.#choose(null));
    byId("pin-cancel").addEventListener("click", () => this.#dialog.close());
    byId("pin-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#write();
    });
    this.#dialog.addEventListener("close", () => {
      clearTimeout(this.#timer);
      this.#asked += 1;
      this.#closed();
    });
  }

  /** Opens the dialog for a stage with these layers proposed. `closed` is called when it is closed in any way. */
  open(stage, range, layerCount, closed = () => {}) {
    this.#stage = stage.name;
    this.#closed = closed;
    byId("pin-title").textContent = `Pin ${stage.name}`;
    for (const id of ["pin-first", "pin-last"]) byId(id).max = layerCount - 1;
    const [first, end] = range ?? stage.layers ?? [0, 1];
    byId("pin-first").value = first;
    byId("pin-last").value = end - 1;
    // The preview of the pin before is not about this one.
    this.#show();
    this.#dialog.showModal();
    this.#readFields();
  }

  #readFields() {
    const [first, last] = [byId("pin-first").valueAsNumber, byId("pin-last").valueAsNumber];
    if (!Number.isInteger(first) || !Number.isInteger(last) || last < first || first < 0) {
      this.#show(el("p", { class: "error" }, "Expected a first layer and a last layer that is not before it."));
      byId("pin-confirm").disabled = true;
      return;
    }
    this.#choose({ layers: [first, last + 1] });
  }

  #choose(pin) {
    this.#pin = pin;
    byId("pin-confirm").disabled = true;
    byId("pin-confirm").textContent = pin === null ? "Remove the pin" : "Write the pin";
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), PAUSE);
  }

  async #ask() {
    const asked = ++this.#asked;
    try {
      const preview = await sendJson("/distributed/plan", { body: { stage: this.#stage, pin: this.#pin } });
      if (asked !== this.#asked) return;
      this.#preview = preview;
      this.#show(...drawn(preview));
      const isNothing = this.#pin === null && preview.seen === null;
      byId("pin-confirm").disabled = preview.refused !== null || isNothing;
    } catch (error) {
      if (asked === this.#asked) this.#show(el("p", { class: "error" }, error.message));
    }
  }

  async #write() {
    if (byId("pin-confirm").disabled) return;
    byId("pin-confirm").disabled = true;
    const { stage, seen } = this.#preview;
    try {
      const written = await sendJson("/distributed/pins", { body: { stage, pin: this.#pin, seen } });
      this.#dialog.close();
      const words = written.pin ? `${stage}: ${pinText(written.pin)}.` : `The pin of ${stage} is removed.`;
      toast(words, { label: "Undo", run: () => undo(written) });
    } catch (error) {
      this.#show(el("p", { class: "error", role: "alert" }, error.message));
    }
  }

  #show(...content) {
    byId("pin-preview").replaceChildren(...content);
  }
}

/** Writes the pin that stood before, if nobody has changed it since. */
async function undo({ stage, before, seen }) {
  try {
    await sendJson("/distributed/pins", { body: { stage, pin: before, seen } });
    toast(before ? `${stage}: ${pinText(before)} again.` : `The pin of ${stage} is removed again.`);
  } catch (error) {
    toast(`Not undone: ${error.message}`);
  }
}

/** The class of a speed that was another one: changes below a hundredth are none. */
function change(before, after) {
  if (Math.abs(after - before) < before / 100) return "same";
  return after < before ? "worse" : "better";
}

/** The preview as elements: who moves, what is loaded, the speed before and after, and what the store will hold. */
function drawn({ plan, refused, key, pin, current }) {
  const content = [];
  if (refused !== null) content.push(el("p", { class: "error" }, `The stages would not obey this pin: ${refused}.`));
  else if (plan.reason) content.push(el("p", { class: "error" }, plan.reason));
  else if (!plan.moves) content.push(el("p", {}, "Nothing moves."));
  const moved = plan.stages.filter((change) => String(change.before) !== String(change.after));
  if (plan.moves && moved.length > 0) {
    const row = ({ stage, before, after, load_bytes: load }) =>
      el(
        "tr",
        {},
        [stage, layers(before), layers(after), load ? bytes(load) : "–"].map((text, at) =>
          el(at ? "td" : "th", at ? {} : { scope: "row" }, text),
        ),
      );
    const head = ["Stage", "Now", "Then", "Loads"].map((text) => el("th", { scope: "col" }, text));
    const rows = moved.slice(0, 40).map(row);
    if (moved.length > 40) rows.push(el("tr", {}, el("td", { colspan: 4 }, `and ${moved.length - 40} more`)));
    content.push(el("table", { class: "moves" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
  }
  const speed = (kind, name) =>
    plan.before &&
    plan.after &&
    el(
      "li",
      {},
      `${name}: `,
      el("b", {}, number(plan.before[kind])),
      " → ",
      el("b", { class: change(plan.before[kind], plan.after[kind]) }, number(plan.after[kind])),
      " tokens/s",
    );
  const speeds = [speed("one_stream", "one stream"), speed("many_streams", "many streams")].filter(Boolean);
  content.push(
    speeds.length
      ? el("ul", { class: "speeds" }, speeds)
      : el("p", { class: "muted" }, "Expected speed: unknown until every stage has measured itself."),
  );
  for (const other of plan.refused_pins) {
    if (refused === null)
      content.push(el("p", { class: "muted" }, `The pin of ${other.stage} would change nothing: ${other.reason}.`));
  }
  if (key) {
    const held =
      pin === null ? (current === null ? "nothing, as now" : "nothing: the key is deleted") : JSON.stringify(pin);
    content.push(
      el("p", { class: "store" }, "The store will hold at ", el("code", {}, key), ": ", el("code", {}, held)),
    );
  }
  return content;
}
