// The picture of the pipeline: each stage's layers to scale in the order in which a token passes through them, the
// links between them, and handles at the boundaries.

import { colourNumbers } from "./colours.js";
import { DensePipeline } from "./dense.js";
import { el, setAttribute, setText, svg } from "./dom.js";
import { bytes, duration, layers, percent } from "./units.js";

/** Most stages that are elements with handles: with more, a handle is too small to hit, and rows have a button. */
const ELEMENTS_MAX = 48;
const HEIGHT = 92;
const BAR_TOP = 30;
const BAR_HEIGHT = 44;
/** Narrowest segment with a text in it, and with a text about its link above it, in pixels. */
const TEXT_WIDTH_MIN = 54;
const LINK_WIDTH_MIN = 150;

/** The stages that hold layers, in layer order. */
export function placed(cluster) {
  const stages = Object.values(cluster.stages ?? {}).filter((stage) => stage.layers);
  return stages.sort((one, other) => one.layers[0] - other.layers[0]);
}

/** The carrier of the frames to a stage: its interface as its system names it, in few words if `isBrief`. */
export function networkOf({ endpoint, interface: found }, isBrief) {
  if (!endpoint) return "–";
  if (endpoint.startsWith("ipc:")) return "same machine";
  if (!found) return "unknown interface";
  const kind = found.kind === "unknown" ? "" : found.kind === "wifi" ? "Wi-Fi" : found.kind;
  if (isBrief) return kind || found.name;
  const speed = found.megabits_per_second;
  const rate = speed && (speed < 1000 ? `${speed} Mbit/s` : `${speed / 1000} Gbit/s`);
  return [found.name, kind || "kind unknown", rate].filter(Boolean).join(" · ");
}

/** The time to the next stage and back, in words. */
export function roundTrip(stage) {
  return stage.link_us ? `RTT ${duration((stage.link_us * 2) / 1000)}` : "";
}

/** Bytes per second that stages have sent since their last reports, by name. */
export class LinkLoads {
  #seen = new Map();
  #rates = new Map();

  update(cluster, now) {
    for (const [name, stage] of Object.entries(cluster.stages ?? {})) {
      const total = stage.sent_bytes_total;
      if (total === undefined) continue;
      const before = this.#seen.get(name);
      if (!before) {
        this.#seen.set(name, { total, now });
      } else if (total !== before.total || now - before.now > 8000) {
        this.#rates.set(name, Math.max(0, total - before.total) / Math.max(0.001, (now - before.now) / 1000));
        this.#seen.set(name, { total, now });
      }
    }
  }

  of(name) {
    return this.#rates.get(name);
  }
}

/** The picture. `boundary(left, right, layer)` is called when a boundary is moved. */
export class Pipeline {
  #box;
  #svg;
  #dense;
  #handles = [];
  #segments = new Map();
  #shape = "";
  #width = 0;
  #state;
  #boundary;

  constructor(box, boundary) {
    this.#box = box;
    this.#boundary = boundary;
    this.#svg = svg("svg", { class: "ribbon", height: HEIGHT, role: "img" });
    box.append(this.#svg);
    this.#dense = new DensePipeline(box);
    new ResizeObserver(() => {
      this.#width = 0;
      if (this.#state) this.draw(this.#state);
    }).observe(box);
  }

  draw(state) {
    this.#state = state;
    const { cluster, loads, canPin } = state;
    const stages = placed(cluster);
    const total = Math.max(cluster.model?.layers ?? 0, ...stages.map((stage) => stage.layers[1]), 1);
    const width = Math.max(this.#box.clientWidth, 280);
    const isDense = stages.length > ELEMENTS_MAX;
    this.#svg.toggleAttribute("hidden", isDense);
    if (isDense) {
      this.#shape = "";
      this.#handles.forEach((handle) => handle.remove());
      this.#dense.draw(stages, total, width, colourNumbers(cluster.stages));
      return;
    }
    this.#dense.hide();
    const shape = JSON.stringify([canPin, total, stages.map((stage) => [stage.name, stage.layers, stage.host])]);
    if (shape !== this.#shape || width !== this.#width) {
      [this.#shape, this.#width] = [shape, width];
      this.#build(stages, total, width, colourNumbers(cluster.stages), canPin);
    }
    stages.forEach((stage, at) => this.#update(stage, stages[at + 1], loads));
    const words =
      stages.length > 12 ? [] : stages.map((stage) => `${stage.name}: layers ${layers(stage.layers)}, ${stage.state}`);
    setAttribute(this.#svg, "aria-label", `${stages.length} stages hold ${total} layers. ${words.join("; ")}`);
  }

  #build(stages, total, width, numbers, canPin) {
    const scale = (layer) => (layer / total) * width;
    this.#segments.clear();
    this.#handles.forEach((handle) => handle.remove());
    this.#handles = [];
    setAttribute(this.#svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    setAttribute(this.#svg, "width", width);
    const parts = [svg("rect", { class: "gap", x: 0, y: BAR_TOP, width, height: BAR_HEIGHT, rx: 10 })];
    stages.forEach((stage, at) => {
      const [x, end] = [scale(stage.layers[0]), scale(stage.layers[1])];
      const room = Math.max(end - x - 2, 0.6);
      const rect = svg("rect", {
        class: `segment host-${numbers.get(stage.name)}`,
        x,
        y: BAR_TOP,
        width: room,
        height: BAR_HEIGHT,
        rx: Math.min(8, room / 3),
      });
      const busy = svg("rect", { class: "busy", x, y: BAR_TOP + BAR_HEIGHT + 4, height: 5, rx: 2.5, width: 0 });
      const title = svg("title", {});
      const group = svg("g", {}, rect, busy, title);
      const texts = {};
      if (room >= TEXT_WIDTH_MIN) {
        const fits = Math.floor((room - 12) / 8);
        const name = stage.name.length > fits ? `${stage.name.slice(0, Math.max(1, fits - 1))}…` : stage.name;
        texts.name = svg("text", { class: "name", x: x + 9, y: BAR_TOP + 19 }, name);
        texts.layers = svg("text", { class: "sub", x: x + 9, y: BAR_TOP + 35 }, layers(stage.layers));
        group.append(texts.name, texts.layers);
      }
      if (at + 1 < stages.length) {
        group.append(svg("path", { class: "arrow", d: `M${end - 7} 22h11m-4 -3.5l4 3.5l-4 3.5` }));
        if (room >= LINK_WIDTH_MIN) texts.link = svg("text", { class: "link", x: end, y: 14, "text-anchor": "middle" });
        if (texts.link) group.append(texts.link);
      }
      this.#segments.set(stage.name, { rect, busy, title, room, texts });
      parts.push(group);
      const right = stages[at + 1];
      if (right && canPin) this.#addHandle(stage, right, width, total);
    });
    this.#svg.replaceChildren(...parts);
  }

  #addHandle(left, right, width, total) {
    const [min, max] = [left.layers[0] + 1, right.layers[1] - 1];
    let layer = left.layers[1];
    const handle = el("div", {
      class: "handle",
      role: "slider",
      tabindex: 0,
      "aria-label": `Boundary between ${left.name} and ${right.name}: the first layer of ${right.name}`,
      "aria-valuemin": min,
      "aria-valuemax": max,
      "aria-valuenow": layer,
    });
    const bubble = el("span", { class: "bubble" });
    handle.append(bubble);
    const show = (value) => {
      layer = Math.min(max, Math.max(min, value));
      // A share of the box, so that a handle stays inside while the box changes its width.
      handle.style.left = `${(layer / total) * 100}%`;
      setAttribute(handle, "aria-valuenow", layer);
      const [before, after] = [layers([left.layers[0], layer]), layers([layer, right.layers[1]])];
      bubble.textContent = `${left.name} ${before} │ ${right.name} ${after}`;
      handle.classList.toggle("moved", layer !== left.layers[1]);
    };
    const reset = () => show(left.layers[1]);
    const ask = () => layer !== left.layers[1] && this.#boundary(left, right, layer, reset);
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
      const origin = this.#box.getBoundingClientRect().left;
      const move = (moved) => show(Math.round(((moved.clientX - origin) / width) * total));
      handle.addEventListener("pointermove", move);
      const end = () => {
        handle.removeEventListener("pointermove", move);
        handle.removeEventListener("pointerup", end);
        handle.removeEventListener("pointercancel", end);
        ask();
      };
      handle.addEventListener("pointerup", end);
      handle.addEventListener("pointercancel", end);
    });
    handle.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -4, PageUp: 4 };
      if (event.key in steps) show(layer + steps[event.key]);
      else if (event.key === "Home") show(min);
      else if (event.key === "End") show(max);
      else if (event.key === "Enter" || event.key === " ") ask();
      else if (event.key === "Escape") reset();
      else return;
      event.preventDefault();
    });
    show(layer);
    this.#handles.push(handle);
    this.#box.append(handle);
  }

  #update(stage, next, loads) {
    const segment = this.#segments.get(stage.name);
    if (!segment) return;
    setAttribute(segment.rect, "data-state", stage.state);
    setAttribute(segment.busy, "width", (segment.room * (stage.busy ?? 0)).toFixed(1));
    const reason = stage.reason ? `: ${stage.reason}` : "";
    setText(
      segment.title,
      `${stage.name}: layers ${layers(stage.layers)}, ${stage.state}${reason}, ${percent(stage.busy)} busy`,
    );
    if (segment.texts.link) {
      const rate = loads.of(stage.name);
      const parts = [next && networkOf(next, true), roundTrip(stage), rate && `${bytes(Math.round(rate))}/s`];
      setText(segment.texts.link, parts.filter(Boolean).join(" · "));
    }
  }
}
