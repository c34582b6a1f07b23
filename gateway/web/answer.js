// Answers: how one is asked for and arrives, and how a message is drawn, with the machines that computed it.

import { send } from "./api.js";
import { colourNumbers } from "./colours.js";
import { el } from "./dom.js";
import { drawMarkdown } from "./markdown.js";
import { events } from "./sse.js";
import { duration, layers, number } from "./units.js";

/** Characters of an answer after which no more are kept: what the server may send is bounded, too, but not here. */
const ANSWER_CHARS_MAX = 2_000_000;

/** The messages as the API takes them. */
export function asRequest(conversation, model) {
  const { system, tools, ...sampling } = conversation.settings;
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const message of conversation.messages) {
    if (message.role === "assistant" && !message.text && !message.calls?.length) continue;
    const files = (message.files ?? []).map((file) => `File ${file.name}:\n\`\`\`\n${file.text}\n\`\`\`\n\n`).join("");
    messages.push({ role: message.role, content: files + message.text });
  }
  const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...sampling };
  if (tools?.length) body.tools = tools;
  return body;
}

/** Asks for an answer and puts it into `message` as it comes. `changed` is called after each part. */
export async function receive(body, message, signal, changed) {
  const began = performance.now();
  const response = await send("/v1/chat/completions", { body, signal });
  if (!response.ok) {
    const found = await response.json().catch(() => undefined);
    throw new Error(found?.error?.message ?? `the server answered with status ${response.status}`);
  }
  for await (const { data } of events(response)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    message.model = chunk.model ?? message.model;
    if (chunk.timings) message.timings = chunk.timings;
    if (chunk.usage)
      message.usage = { prompt_tokens: chunk.usage.prompt_tokens, completion_tokens: chunk.usage.completion_tokens };
    const choice = chunk.choices?.[0];
    if (choice) {
      const delta = choice.delta ?? {};
      const text = delta.content ?? "";
      const thought = delta.reasoning_content ?? "";
      if (text || thought) message.first_ms ??= Math.round(performance.now() - began);
      if (thought) message.reasoning = (message.reasoning ?? "") + thought;
      message.text += text;
      for (const call of delta.tool_calls ?? []) addCall(message, call);
      if (choice.finish_reason) message.finish = choice.finish_reason;
      if (message.text.length + (message.reasoning?.length ?? 0) > ANSWER_CHARS_MAX)
        throw new Error("the answer is too long for this page");
    }
    changed();
  }
}

function addCall(message, part) {
  message.calls ??= [];
  const at = Number.isInteger(part.index) && part.index >= 0 && part.index < 128 ? part.index : 0;
  while (message.calls.length <= at) message.calls.push({ name: "", arguments: "" });
  message.calls[at].name += part.function?.name ?? "";
  message.calls[at].arguments += part.function?.arguments ?? "";
}

/** A message on the page. */
export class MessageView {
  #text = el("div", { class: "text" });
  #reasoning;
  #calls = el("div", { class: "calls" });
  #note = el("p", { class: "note", role: "status" });
  #foot = el("div", { class: "made" });
  #last = 0;
  #cost = 0;
  #timer;

  /** `actions` are the buttons: a label with what it does. */
  constructor(message, actions) {
    this.message = message;
    const isUser = message.role === "user";
    const buttons = actions.map(([label, run]) =>
      el("button", { type: "button", class: "quiet small", on: { click: run } }, label),
    );
    const files = (message.files ?? []).map((file) =>
      el(
        "details",
        { class: "file" },
        el("summary", {}, `${file.name} · ${number(file.text.length)} characters`),
        el("pre", { tabindex: 0 }, file.text),
      ),
    );
    this.element = el(
      "article",
      { class: `message ${message.role}`, "aria-label": isUser ? "You" : "Answer" },
      files,
      this.#text,
      this.#calls,
      this.#note,
      this.#foot,
      el("div", { class: "actions" }, buttons),
    );
    this.draw(undefined, true);
  }

  /** Draws what has come. Costly drawings are made less often, so that a long answer does not hold up the page. */
  changed(cluster) {
    clearTimeout(this.#timer);
    const wait = Math.max(40, this.#cost * 5) - (performance.now() - this.#last);
    if (wait <= 0) this.draw(cluster, false);
    else this.#timer = setTimeout(() => this.draw(cluster, false), wait);
  }

  draw(cluster, isComplete) {
    clearTimeout(this.#timer);
    const began = performance.now();
    const { message } = this;
    if (message.role === "user") {
      this.#text.textContent = message.text;
      return;
    }
    this.element.classList.toggle("running", !isComplete);
    if (message.reasoning) this.#drawReasoning(isComplete || message.text !== "");
    drawMarkdown(this.#text, message.text);
    this.#calls.replaceChildren(
      ...(message.calls ?? []).map((call) =>
        el(
          "details",
          { class: "call", open: true },
          el("summary", {}, "calls ", el("b", { class: "mono" }, call.name)),
          el("pre", { tabindex: 0 }, call.arguments),
        ),
      ),
    );
    const ended = { length: "The answer was cut: it has as many tokens as it may.", stopped: "Stopped." }[
      message.finish
    ];
    this.#note.textContent = message.error ? `The answer broke off: ${message.error}` : (ended ?? "");
    this.#note.classList.toggle("error", Boolean(message.error));
    if (message.timings) this.#foot.replaceChildren(...madeBy(message, cluster));
    this.#last = performance.now();
    this.#cost = this.#last - began;
  }

  #drawReasoning(isOver) {
    if (!this.#reasoning) {
      this.#reasoning = el("details", { class: "reasoning" }, el("summary", {}, "Reasoning"), el("div", {}));
      this.element.insertBefore(this.#reasoning, this.#text);
    }
    this.#reasoning.firstChild.textContent = isOver ? "Reasoning" : "Reasoning…";
    this.#reasoning.lastChild.textContent = this.message.reasoning;
  }
}

/** Which machine computed what for an answer: each stage's time, as the server states it, to scale. */
function madeBy(message, cluster) {
  const { timings } = message;
  const stages = timings.stages ?? [];
  const total = stages.reduce((sum, stage) => sum + stage.compute_ms, 0);
  const numbers = colourNumbers(cluster);
  const figures = [
    timings.predicted_per_second > 0 && `${number(timings.predicted_per_second)} tokens/s`,
    `${number(timings.predicted_n)} tokens`,
    message.first_ms !== undefined && `first after ${duration(message.first_ms)}`,
    `prompt ${number(timings.prompt_n)} tokens`,
    timings.cache_n > 0 && `${number(timings.cache_n)} more from the cache`,
    timings.queued_ms >= 1 && `waited ${duration(timings.queued_ms)}`,
    timings.attempts > 1 && `${timings.attempts} attempts`,
  ];
  const bar = el("div", { class: "made-bar", role: "img", "aria-label": "Share of each stage in the computing" });
  const rows = stages.map((stage, at) => {
    const host = cluster?.[stage.stage]?.host;
    const colour = `host-${numbers.get(stage.stage) ?? at % 8}`;
    const part = el("i", { class: colour, title: `${stage.stage}: ${duration(stage.compute_ms)}` });
    part.style.width = `${(stage.compute_ms / Math.max(0.001, total)) * 100}%`;
    bar.append(part);
    const chip = cluster?.[stage.stage]?.chip;
    const cells = [
      [el("i", { class: `dot ${colour}` }), ` ${stage.stage}`],
      [host, chip].filter(Boolean).join(" · ") || "–",
      layers(stage.layers),
      number(stage.rows),
      duration(stage.compute_ms),
      `${Math.round((stage.compute_ms / Math.max(0.001, total)) * 100)} %`,
    ];
    return el(
      "tr",
      {},
      cells.map((cell, column) => el(column ? "td" : "th", column ? {} : { scope: "row" }, cell)),
    );
  });
  const head = ["Stage", "Machine", "Layers", "Rows", "Computed", "Share"].map((name) =>
    el("th", { scope: "col" }, name),
  );
  const table = el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
  return [
    el(
      "details",
      {},
      el("summary", {}, figures.filter(Boolean).join(" · "), stages.length ? bar : ""),
      el("div", { class: "made-table" }, table),
    ),
  ];
}
