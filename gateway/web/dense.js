// The picture of a pipeline of very many stages: a canvas, since as many elements would cost more than they show.

import { colourOf, el, setAttribute } from "./dom.js";
import { layers } from "./units.js";

const BAR_TOP = 30;
const BAR_HEIGHT = 44;
const HEIGHT = 92;

const TROUBLED = new Set(["gone", "failed", "evicted", "refused"]);

export class DensePipeline {
  #canvas = el("canvas", { class: "dense", role: "img" });
  #scale = 1;
  #stages = [];
  #colours;

  constructor(box) {
    box.append(this.#canvas);
    document.addEventListener("themechange", () => (this.#colours = undefined));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (this.#colours = undefined));
    this.#canvas.addEventListener("pointermove", (event) => {
      const layer = event.offsetX / this.#scale;
      const stage = this.#stages.find((one) => one.layers[0] <= layer && layer < one.layers[1]);
      this.#canvas.title = stage ? `${stage.name}: layers ${layers(stage.layers)}, ${stage.state}` : "";
    });
  }

  hide() {
    this.#canvas.hidden = true;
  }

  draw(stages, total, width, numbers) {
    this.#canvas.hidden = false;
    this.#stages = stages;
    this.#scale = width / total;
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(HEIGHT * ratio)];
    if (this.#canvas.width !== wide || this.#canvas.height !== high) {
      [this.#canvas.width, this.#canvas.height] = [wide, high];
      this.#canvas.style.height = `${HEIGHT}px`;
    }
    this.#colours ??= this.#readColours();
    const colours = this.#colours;
    const context = this.#canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT);
    context.fillStyle = colours.gap;
    context.fillRect(0, BAR_TOP, width, BAR_HEIGHT);
    const counts = new Map();
    for (const stage of stages) {
      const x = stage.layers[0] * this.#scale;
      const room = Math.max(0.6, (stage.layers[1] - stage.layers[0]) * this.#scale);
      counts.set(stage.state, (counts.get(stage.state) ?? 0) + 1);
      context.globalAlpha = stage.state === "serving" || TROUBLED.has(stage.state) ? 1 : 0.45;
      context.fillStyle = TROUBLED.has(stage.state) ? colours.bad : colours.hosts[numbers.get(stage.name) ?? 0];
      context.fillRect(x, BAR_TOP, room, BAR_HEIGHT);
      context.globalAlpha = 1;
      context.fillStyle = colours.busy;
      const busy = (stage.busy ?? 0) * 14;
      context.fillRect(x, BAR_TOP + BAR_HEIGHT + 17 - busy, room, busy);
    }
    const words = [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
    setAttribute(this.#canvas, "aria-label", `${stages.length} stages hold ${total} layers: ${words}`);
  }

  #readColours() {
    const of = (name) => colourOf(this.#canvas, name);
    const hosts = Array.from({ length: 8 }, (_, number) => of(`--h${number}`));
    return { gap: of("--raised"), bad: of("--bad"), busy: of("--c1"), hosts };
  }
}
