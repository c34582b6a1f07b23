// The series of the last 15 minutes as small plots.

import { colourOf, el, setText } from "./dom.js";
import { clock, duration, number, percent } from "./units.js";

/** Shortest and longest time that the plots show, in milliseconds: as long as there are figures for. */
const SPAN_MIN = 60 * 1000;
const SPAN_MAX = 15 * 60 * 1000;
const HEIGHT = 120;

/** The plots: title, columns with their names and colours, and the figure's format. */
const PLOTS = [
  { title: "Tokens per second", format: number, lines: [["tokens_per_second", "generated", "--c1"]] },
  { title: "Time to first token", format: duration, lines: [["first_token_ms", "mean", "--c2"]], dots: true },
  {
    title: "Queue",
    format: number,
    lines: [
      ["running", "running", "--c1"],
      ["waiting", "waiting", "--c4"],
    ],
  },
  {
    title: "Batch size",
    format: number,
    lines: [
      ["batch_rows", "rows", "--c3"],
      ["batch_sequences", "sequences", "--c5"],
    ],
    dots: true,
  },
  {
    title: "Stages: busy and idle",
    format: percent,
    max: 1,
    stacked: true,
    lines: [
      ["busy", "busy", "--c1"],
      ["idle_input", "nothing to compute", "--idle-in"],
      ["idle_output", "waiting for the link", "--c4"],
    ],
  },
];

export class Plots {
  #plots;
  #series;

  constructor(box) {
    this.#plots = PLOTS.map((kind) => new Plot(box, kind));
    new ResizeObserver(() => this.#series && this.draw(this.#series)).observe(box);
    document.addEventListener("themechange", () => this.#series && this.draw(this.#series));
  }

  draw(series) {
    this.#series = series;
    for (const plot of this.#plots) plot.draw(series);
  }
}

class Plot {
  #kind;
  #canvas;
  #figure;
  #hover;
  #last;

  constructor(box, kind) {
    this.#kind = kind;
    this.#figure = el("span", { class: "plot-now" });
    this.#canvas = el("canvas", { role: "img" });
    const keys =
      kind.lines.length > 1 &&
      el(
        "ul",
        { class: "legend" },
        kind.lines.map(([, name, colour]) => {
          const mark = el("i", { class: "key" });
          mark.style.background = `var(${colour})`;
          return el("li", {}, mark, name);
        }),
      );
    box.append(
      el("figure", { class: "plot" }, el("figcaption", {}, el("h3", {}, kind.title), this.#figure), this.#canvas, keys),
    );
    this.#canvas.addEventListener("pointermove", (event) => {
      this.#hover = event.offsetX;
      if (this.#last) this.draw(this.#last);
    });
    this.#canvas.addEventListener("pointerleave", () => {
      this.#hover = undefined;
      if (this.#last) this.draw(this.#last);
    });
  }

  draw(series) {
    this.#last = series;
    const { lines, format, max, stacked, dots } = this.#kind;
    const at = Object.fromEntries(series.columns.map((name, position) => [name, position]));
    const rows = series.rows;
    const end = rows.length ? rows[rows.length - 1][0] : Date.now();
    const span = Math.min(SPAN_MAX, Math.max(SPAN_MIN, end - (rows[0]?.[0] ?? end)));
    const values = lines.map(([column]) => rows.map((row) => row[at[column]]));
    if (stacked) {
      for (let line = 1; line < values.length; line += 1) {
        values[line] = values[line].map((value, row) => (value === null ? null : value + (values[line - 1][row] ?? 0)));
      }
    }
    const known = values.flat().filter((value) => value !== null);
    const top = max ?? nice(Math.max(0, ...known) || 1);
    const ratio = window.devicePixelRatio || 1;
    const width = this.#canvas.clientWidth;
    if (this.#canvas.width !== Math.round(width * ratio)) {
      this.#canvas.width = Math.round(width * ratio);
      this.#canvas.height = Math.round(HEIGHT * ratio);
    }
    const context = this.#canvas.getContext("2d");
    const colour = (name) => colourOf(this.#canvas, name);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT);
    const x = (t) => width - ((end - t) / span) * width;
    const y = (value) => HEIGHT - 4 - (Math.min(value, top) / top) * (HEIGHT - 22);
    context.strokeStyle = colour("--line");
    context.fillStyle = colour("--muted");
    context.font = "11px system-ui, sans-serif";
    context.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      context.beginPath();
      context.moveTo(0, y(top * share) + 0.5);
      context.lineTo(width, y(top * share) + 0.5);
      context.stroke();
    }
    context.fillText(known.length ? format(top) : "nothing yet", 0, 11);
    for (let line = lines.length - 1; line >= 0; line -= 1) {
      const fill = stacked || (lines.length === 1 && !dots);
      this.#drawLine(context, rows, values[line], { x, y, colour: colour(lines[line][2]), dots, fill, stacked });
    }
    const shown =
      this.#hover === undefined ? rows.length - 1 : nearest(rows, end - ((width - this.#hover) / width) * span);
    const row = rows[shown];
    if (row && this.#hover !== undefined) {
      context.strokeStyle = colour("--text");
      context.beginPath();
      context.moveTo(x(row[0]), 14);
      context.lineTo(x(row[0]), HEIGHT - 4);
      context.stroke();
    }
    const now = row
      ? lines
          .slice(0, stacked ? 1 : 2)
          .map(([column, name]) => `${lines.length > 1 ? `${name} ` : ""}${format(row[at[column]])}`)
          .join(" · ")
      : "–";
    setText(this.#figure, this.#hover === undefined || !row ? now : `${clock(row[0])}  ${now}`);
    const words = lines.map(([column, name]) => {
      const all = rows.map((one) => one[at[column]]).filter((value) => value !== null);
      return all.length
        ? `${name}: now ${format(rows.at(-1)[at[column]])}, ${format(Math.min(...all))} to ${format(Math.max(...all))}`
        : `${name}: nothing yet`;
    });
    this.#canvas.setAttribute("aria-label", `${this.#kind.title} over the last 15 minutes. ${words.join("; ")}`);
  }

  #drawLine(context, rows, values, { x, y, colour, dots, fill, stacked }) {
    context.strokeStyle = colour;
    context.fillStyle = colour;
    context.lineWidth = 1.6;
    context.lineJoin = "round";
    let run = [];
    const flush = () => {
      if (run.length === 1 || dots) {
        for (const [px, py] of run) context.fillRect(px - 1.2, py - 1.2, 2.4, 2.4);
      }
      if (run.length > 1) {
        context.beginPath();
        run.forEach(([px, py], at) => (at ? context.lineTo(px, py) : context.moveTo(px, py)));
        if (!stacked) context.stroke();
        if (fill) {
          context.lineTo(run[run.length - 1][0], HEIGHT - 4);
          context.lineTo(run[0][0], HEIGHT - 4);
          context.globalAlpha = stacked ? 0.9 : 0.16;
          context.fill();
          context.globalAlpha = 1;
        }
      }
      run = [];
    };
    rows.forEach((row, at) => {
      if (values[at] === null || values[at] === undefined) flush();
      else run.push([x(row[0]), y(values[at])]);
    });
    flush();
  }
}

/** The next larger number of the form 1, 2 or 5 times a power of ten. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

function nearest(rows, t) {
  let best = 0;
  rows.forEach((row, at) => {
    if (Math.abs(row[0] - t) < Math.abs(rows[best][0] - t)) best = at;
  });
  return best;
}
