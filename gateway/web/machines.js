// The machines with their stages: device, layers, memory to scale, work and link. Rows outside the window are not
// drawn, so that a thousand of them cost as much as twenty.

import { colourNumbers } from "./colours.js";
import { el, setAttribute, setText } from "./dom.js";
import { networkOf, placed, roundTrip } from "./pipeline.js";
import { bytes, layers, number, percent } from "./units.js";

const ROW_HEIGHT = 76;
/** Rows that are drawn above and below the window. */
const MARGIN = 4;
/** Rows up to which the list has no window of its own and is as high as its rows. */
const WHOLE_MAX = 24;

const COLUMNS = ["Stage", "Layers", "Memory", "Work", "Link to the next", "Pin"];

/** The list. `pin(stage)` is called for the button of a row. */
export class Machines {
  #viewport;
  #space;
  #rows = new Map();
  #stages = [];
  #state;
  #pin;

  constructor(box, pin) {
    this.#pin = pin;
    const head = el(
      "div",
      { role: "row", class: "machine-head" },
      COLUMNS.map((name) => el("span", { role: "columnheader" }, name)),
    );
    this.#space = el("div", { class: "machine-space", role: "presentation" });
    this.#viewport = el(
      "div",
      { class: "machine-viewport", role: "rowgroup", tabindex: 0, "aria-label": "Stages" },
      this.#space,
    );
    this.table = el(
      "div",
      { role: "table", "aria-labelledby": "machines-title" },
      el("div", { role: "rowgroup" }, head),
      this.#viewport,
    );
    box.append(this.table);
    this.#viewport.addEventListener("scroll", () => this.#drawRows(), { passive: true });
    new ResizeObserver(() => this.#state && this.#drawRows()).observe(this.#viewport);
  }

  draw(state) {
    this.#state = state;
    const { cluster } = state;
    const order = placed(cluster);
    const names = new Set(order.map((stage) => stage.name));
    const others = Object.values(cluster.stages ?? {}).filter((stage) => !names.has(stage.name));
    this.#stages = [...order, ...others.sort((one, other) => one.name.localeCompare(other.name))];
    this.#state.scale = memoryScale(this.#stages.map((stage) => stage.memory ?? {}));
    this.#state.next = new Map(order.map((stage, at) => [stage.name, order[at + 1]]));
    this.#state.numbers = colourNumbers(cluster.stages);
    this.table.setAttribute("aria-rowcount", this.#stages.length + 1);
    this.#viewport.classList.toggle("windowed", this.#stages.length > WHOLE_MAX);
    this.#space.style.height = `${this.#stages.length * this.#rowHeight()}px`;
    this.#drawRows();
  }

  /** Rows are higher where the columns stand below each other. */
  #rowHeight() {
    return matchMedia("(max-width: 760px)").matches ? 190 : ROW_HEIGHT;
  }

  #drawRows() {
    const height = this.#rowHeight();
    const isWindowed = this.#stages.length > WHOLE_MAX;
    const first = isWindowed ? Math.max(0, Math.floor(this.#viewport.scrollTop / height) - MARGIN) : 0;
    const shown = isWindowed ? Math.ceil(this.#viewport.clientHeight / height) + 2 * MARGIN : this.#stages.length;
    const wanted = this.#stages.slice(first, first + shown);
    const names = new Set(wanted.map((stage) => stage.name));
    for (const [name, row] of this.#rows) {
      if (!names.has(name)) {
        row.element.remove();
        this.#rows.delete(name);
      }
    }
    wanted.forEach((stage, at) => {
      let row = this.#rows.get(stage.name);
      if (!row) {
        row = new Row(stage.name, () => this.#pin(stage.name));
        this.#rows.set(stage.name, row);
        this.#space.append(row.element);
      }
      row.element.style.top = `${(first + at) * height}px`;
      row.element.setAttribute("aria-rowindex", first + at + 2);
      row.draw(stage, this.#state);
    });
  }
}

/** Factor by which budgets exceed all that is used before the strips show only the beginning of what is free. */
const CUT_FACTOR = 4;

/** What a process uses, as the operating system counts it. */
function usedBytes(memory) {
  return memory.used ? Math.max(memory.used.pss_bytes ?? 0, memory.used.rss_bytes ?? 0) : undefined;
}

/** The bytes that a whole strip stands for, the same in all rows. */
function memoryScale(memories) {
  const needed = Math.max(1, ...memories.map((memory) => Math.max(memory.bound_bytes ?? 0, usedBytes(memory) ?? 0)));
  const budget = Math.max(needed, ...memories.map((memory) => memory.budget_bytes ?? 0));
  const isCut = needed > 1 && budget > CUT_FACTOR * needed;
  return isCut ? needed * 1.4 : budget;
}

class Row {
  constructor(name, pin) {
    const cell = (kind, ...children) => el("div", { role: "cell", class: `cell ${kind}` }, ...children);
    this.dot = el("i", { class: "dot" });
    this.title = el("b", {}, name);
    this.word = el("span", { class: "state" });
    this.device = el("span", { class: "muted small" });
    this.layers = el("b", { class: "mono" });
    this.standby = el("span", { class: "muted small" });
    this.parts = Object.fromEntries(
      ["weights", "kv", "scratch", "free"].map((part) => [part, el("i", { class: part })]),
    );
    this.measured = el("i", { class: "measured" });
    this.strip = el("div", { class: "strip", role: "img" }, Object.values(this.parts), this.measured);
    this.memory = el("span", { class: "muted small" });
    this.shares = Object.fromEntries(["busy", "idle-in", "idle-out"].map((part) => [part, el("i", { class: part })]));
    this.work = el("div", { class: "work", role: "img" }, Object.values(this.shares));
    this.speed = el("span", { class: "muted small" });
    this.link = el("span", { class: "small" });
    this.load = el("span", { class: "muted small" });
    this.pinned = el("span", { class: "muted small" });
    this.button = el(
      "button",
      { type: "button", class: "quiet", "aria-label": `Pin ${name}`, on: { click: pin } },
      "Pin…",
    );
    this.element = el(
      "div",
      { role: "row", class: "machine" },
      cell("who", el("span", { class: "line" }, this.dot, this.title, this.word), this.device),
      cell("layers", this.layers, this.standby),
      cell("memory", this.strip, this.memory),
      cell("load", this.work, this.speed),
      cell("link", this.link, this.load),
      cell("pin", this.button, this.pinned),
    );
  }

  draw(stage, { cluster, loads, canPin, scale, numbers, next }) {
    setAttribute(this.element, "data-state", stage.state);
    setAttribute(this.dot, "class", `dot host-${numbers.get(stage.name)}`);
    setText(this.word, stage.reason && stage.state !== "serving" ? `${stage.state}: ${stage.reason}` : stage.state);
    this.word.title = stage.reason ?? "";
    const device = [stage.host, stage.chip, stage.device, stage.threads && `${stage.threads} threads`];
    setText(this.device, device.filter(Boolean).join(" · ") || "not here");
    setText(this.layers, layers(stage.layers));
    const ready = (stage.standby ?? []).map(layers).join(", ");
    setText(
      this.standby,
      ready ? `ready for ${ready}` : stage.layers ? `${stage.layers[1] - stage.layers[0]} layers` : "",
    );
    this.#drawMemory(stage.memory ?? {}, scale);
    this.#drawWork(stage);
    this.#drawLink(stage, next.get(stage.name), loads);
    this.button.hidden = !canPin;
    const pin = cluster.pins?.[stage.name];
    setText(this.pinned, pin ? (pin.honoured === false ? "refused" : pinText(pin.pin)) : "");
    this.pinned.title = pin?.reason ?? "";
  }

  #drawMemory(memory, scale) {
    const budget = memory.budget_bytes ?? 0;
    const bound = memory.bound_bytes ?? 0;
    const weights = memory.weights_bytes ?? 0;
    const kv = Math.min(memory.kv_bytes ?? Math.max(0, bound - weights), Math.max(0, bound - weights));
    const parts = { weights, kv, scratch: Math.max(0, bound - weights - kv), free: Math.max(0, budget - bound) };
    for (const [part, size] of Object.entries(parts)) {
      const shown = part === "free" ? Math.min(size, Math.max(0, scale - bound)) : size;
      this.parts[part].style.width = `${(shown / scale) * 100}%`;
    }
    this.parts.free.classList.toggle("cut", budget > scale);
    const used = usedBytes(memory);
    this.measured.hidden = used === undefined;
    this.measured.style.left = `${Math.min(100, ((used ?? 0) / scale) * 100)}%`;
    const free = `${bytes(parts.free)} free of ${bytes(budget)}`;
    const words = bound
      ? `weights ${bytes(weights)}, keys and values ${bytes(kv)}, scratch ${bytes(parts.scratch)}, ${free}`
      : budget
        ? free
        : "unknown";
    setAttribute(this.strip, "aria-label", used === undefined ? words : `${words}; measured ${bytes(used)}`);
    this.strip.title = this.strip.getAttribute("aria-label");
    const measured = used === undefined ? "" : `measured ${bytes(used)}`;
    setText(
      this.memory,
      bound ? `bound ${bytes(bound)} of ${bytes(budget)}${measured && ` · ${measured}`}` : budget ? free : "–",
    );
  }

  #drawWork(stage) {
    const [busy, input, output] = [stage.busy ?? 0, stage.idle_input ?? 0, stage.idle_output ?? 0];
    this.shares.busy.style.width = `${busy * 100}%`;
    this.shares["idle-in"].style.width = `${Math.min(input, 1 - busy) * 100}%`;
    this.shares["idle-out"].style.width = `${Math.min(output, Math.max(0, 1 - busy - input)) * 100}%`;
    const idle = `nothing to compute ${percent(stage.idle_input)}, waiting for the link ${percent(stage.idle_output)}`;
    const words = `busy ${percent(stage.busy)}, ${idle}`;
    setAttribute(this.work, "aria-label", stage.busy === undefined ? "unknown" : words);
    this.work.title = this.work.getAttribute("aria-label");
    setText(
      this.speed,
      stage.busy === undefined ? "–" : `${percent(busy)} busy · ${number(stage.tokens_per_second)} rows/s`,
    );
  }

  #drawLink(stage, next, loads) {
    setText(this.link, !stage.layers ? "" : next ? networkOf(next) : "gateway");
    this.link.title = next?.endpoint ?? "";
    const rate = loads.of(stage.name);
    setText(this.load, [roundTrip(stage), rate && `sends ${bytes(Math.round(rate))}/s`].filter(Boolean).join(" · "));
  }
}

/** A pin in words. */
export function pinText(pin) {
  if (!pin) return "unreadable";
  if (pin.memory) return `at most ${pin.memory}`;
  if (pin.cordon) return "nothing new";
  return pin.layers?.length ? `pinned ${layers(pin.layers)}` : "no layers";
}
