// Markdown as elements. A model's text is hostile: it becomes text nodes only, links lead to http and https only, and
// no image is loaded. Every loop is bounded by the text's length, and nesting by a constant.

import { codeBlock } from "./code.js";
import { el } from "./dom.js";
import { math } from "./math.js";

const DEPTH_MAX = 8;
/** Longest text between two marks, in characters: a search for the second one ends there. */
const SPAN_MAX = 4000;

/** Draws `text` into `box`. Of a text that has grown, only the blocks that changed are drawn again. */
export function drawMarkdown(box, text) {
  const blocks = splitBlocks(text);
  const known = box.drawn ?? [];
  let same = 0;
  while (same < blocks.length && same < known.length && known[same] === blocks[same]) same += 1;
  while (box.children.length > same) box.lastChild.remove();
  for (const block of blocks.slice(same)) box.append(drawBlock(block, 0));
  box.drawn = blocks;
}

/** The blocks at the top level, each as its source. */
function splitBlocks(text) {
  const blocks = [];
  let lines = [];
  let fence;
  const flush = () => {
    if (lines.some((line) => line.trim())) blocks.push(lines.join("\n"));
    lines = [];
  };
  for (const line of text.split("\n")) {
    const mark = fenceOf(line);
    if (fence) {
      lines.push(line);
      if (closes(line, fence)) {
        fence = undefined;
        flush();
      }
      continue;
    }
    if (mark) {
      // A block of code belongs to a list only if it is indented.
      if (!isList(lines[0]) || !/^\s/.test(line)) flush();
      fence = mark;
      lines.push(line);
    } else if (!line.trim() && !(isList(lines[0]) && lines.length < 4000)) {
      flush();
    } else if (
      isList(lines[0]) &&
      lines[lines.length - 1]?.trim() === "" &&
      line.trim() &&
      !isList(line) &&
      !/^\s/.test(line)
    ) {
      flush();
      lines.push(line);
    } else if (/^#{1,6} /.test(line) || startsList(line, lines[0])) {
      flush();
      lines.push(line);
      if (line.startsWith("#")) flush();
    } else {
      lines.push(line);
    }
  }
  flush();
  return blocks;
}

/** The mark that opens a block of code or mathematics. */
function fenceOf(line) {
  const trimmed = line.trimStart();
  if (trimmed.startsWith("```") || trimmed.startsWith("~~~")) return trimmed.match(/^(`+|~+)/)[0];
  const math = trimmed.trimEnd();
  return math === "$$" || math === "\\[" ? math : undefined;
}

function closes(line, fence) {
  const trimmed = line.trim();
  if (fence === "\\[") return trimmed === "\\]";
  if (fence === "$$") return trimmed === "$$";
  return trimmed.startsWith(fence) && trimmed.replaceAll(fence[0], "") === "";
}

/** True if the line starts a list of another kind than that of the block, or the first one. */
const startsList = (line, first) =>
  isList(line) && !/^\s/.test(line) && (!isList(first) || /^\d/.test(line) !== /^\s*\d/.test(first));

const isList = (line) => line !== undefined && /^\s*([-*+]|\d{1,9}[.)])\s/.test(line);

function drawBlock(source, depth) {
  const lines = source.split("\n");
  const first = lines[0];
  const fence = fenceOf(first);
  if (fence) {
    const body = lines.slice(1, closes(lines[lines.length - 1], fence) && lines.length > 1 ? -1 : undefined);
    if (fence === "$$" || fence === "\\[") return el("div", { class: "math-block" }, math(body.join("\n"), true));
    return codeBlock(body.join("\n"), first.trim().slice(fence.length).trim().split(/\s/)[0] ?? "");
  }
  const heading = first.match(/^(#{1,6}) (.*)$/);
  if (heading) return el(`h${Math.min(6, heading[1].length + 2)}`, {}, inline(heading[2], depth));
  if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(first) && lines.length === 1 && first.length < 200) return el("hr", {});
  if (depth < DEPTH_MAX) {
    if (lines.every((line) => line.startsWith(">"))) {
      const inner = lines.map((line) => line.replace(/^> ?/, "")).join("\n");
      return el(
        "blockquote",
        {},
        splitBlocks(inner).map((block) => drawBlock(block, depth + 1)),
      );
    }
    if (isList(first)) return drawList(lines, depth);
  }
  if (
    lines.length > 1 &&
    lines[0].includes("|") &&
    lines[1].length < 1000 &&
    /^[\s|:-]*-[\s|:-]*$/.test(lines[1]) &&
    lines[1].includes("|")
  )
    return drawTable(lines, depth);
  const oneLine = source.trim();
  if (oneLine.startsWith("$$") && oneLine.endsWith("$$") && oneLine.length > 4)
    return el("div", { class: "math-block" }, math(oneLine.slice(2, -2), true));
  if (oneLine.startsWith("\\[") && oneLine.endsWith("\\]"))
    return el("div", { class: "math-block" }, math(oneLine.slice(2, -2), true));
  return el(
    "p",
    {},
    lines.flatMap((line, at) => (at ? [el("br", {}), ...inline(line, depth)] : inline(line, depth))),
  );
}

function drawList(lines, depth) {
  const indent = lines[0].match(/^\s*/)[0].length;
  const isOrdered = /^\s*\d/.test(lines[0]);
  const items = [];
  for (const line of lines) {
    const own = isList(line) && line.match(/^\s*/)[0].length <= indent;
    if (own) items.push([line.replace(/^\s*([-*+]|\d{1,9}[.)])\s+/, "")]);
    else
      items[items.length - 1]?.push(line.slice(Math.min(line.match(/^\s*/)[0].length, indent + (isOrdered ? 3 : 2))));
  }
  const start = isOrdered ? Number.parseInt(lines[0].trim(), 10) : undefined;
  const drawn = items.map((item) => {
    const task = item[0].match(/^\[([ xX])\] /);
    const text = task ? item[0].slice(4) : item[0];
    const rest = item.slice(1).join("\n");
    const box =
      task &&
      el(
        "span",
        { class: "task", role: "img", "aria-label": task[1] === " " ? "open" : "done" },
        task[1] === " " ? "☐" : "☑",
      );
    return el(
      "li",
      {},
      box,
      inline(text, depth),
      rest.trim() ? splitBlocks(rest).map((block) => drawBlock(block, depth + 1)) : [],
    );
  });
  return el(isOrdered ? "ol" : "ul", { start: start > 1 ? start : undefined }, drawn);
}

function drawTable(lines, depth) {
  const cells = (line) =>
    line
      .trim()
      .replace(/^\|/, "")
      .replace(/\|$/, "")
      .split("|")
      .map((cell) => cell.trim());
  const head = cells(lines[0]).map((cell) => el("th", { scope: "col" }, inline(cell, depth)));
  const rows = lines.slice(2).map((line) =>
    el(
      "tr",
      {},
      cells(line)
        .slice(0, head.length)
        .map((cell) => el("td", {}, inline(cell, depth))),
    ),
  );
  return el(
    "div",
    { class: "table", role: "region", "aria-label": "table", tabindex: 0 },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)),
  );
}

/** Marks around text, the longer ones first, and what they make. */
const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "s"],
  ["*", "em"],
  ["_", "em"],
];

/** A line's text as nodes. */
function inline(text, depth) {
  const nodes = [];
  let plain = "";
  const push = (node) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
  };
  let at = 0;
  /** Marks without a partner in the rest of the line, which need not be searched again. */
  const alone = new Set();
  const until = (mark, from) => {
    if (alone.has(mark)) return -1;
    const end = text.indexOf(mark, from);
    if (end < 0) alone.add(mark);
    return end < 0 || end - from > SPAN_MAX ? -1 : end;
  };
  while (at < text.length) {
    const letter = text[at];
    if (letter === "\\" && at + 1 < text.length) {
      const close = { "(": "\\)", "[": "\\]" }[text[at + 1]];
      const end = close ? until(close, at + 2) : -1;
      if (end >= 0) {
        push(math(text.slice(at + 2, end), false));
        at = end + 2;
      } else {
        plain += /[\\`*_{}[\]()#+\-.!|~>$]/.test(text[at + 1]) ? text[at + 1] : letter + text[at + 1];
        at += 2;
      }
      continue;
    }
    if (letter === "`") {
      const ticks = text.slice(at).match(/^`{1,8}/)[0];
      const end = until(ticks, at + ticks.length);
      if (end > at) {
        push(el("code", {}, text.slice(at + ticks.length, end).trim()));
        at = end + ticks.length;
        continue;
      }
      plain += ticks;
      at += ticks.length;
      continue;
    }
    if (letter === "$" && text[at + 1] !== "$" && /\S/.test(text[at + 1] ?? " ")) {
      const end = until("$", at + 1);
      // Two prices in a sentence are no formula.
      if (end > at && /\S/.test(text[end - 1]) && !/\d/.test(text[end + 1] ?? "")) {
        push(math(text.slice(at + 1, end), false));
        at = end + 1;
        continue;
      }
    }
    if (letter === "[" && depth < DEPTH_MAX) {
      const link = linkAt(text, at, until);
      if (link) {
        push(anchor(link.target, inline(link.label, DEPTH_MAX)));
        at = link.end;
        continue;
      }
    }
    if (letter === "h" && !/\w/.test(text[at - 1] ?? " ")) {
      const address = text.slice(at, at + 2000).match(/^https?:\/\/[^\s<>"'`\])}]+/);
      if (address) {
        const trimmed = address[0].replace(/[.,;:!?*_]+$/, "");
        push(anchor(trimmed, [trimmed]));
        at += trimmed.length;
        continue;
      }
    }
    const mark = depth < DEPTH_MAX && MARKS.find(([mark]) => text.startsWith(mark, at));
    if (mark) {
      const [sign, tag] = mark;
      const inWord = sign[0] === "_" && /\w/.test(text[at - 1] ?? " ");
      const end = inWord || /\s/.test(text[at + sign.length] ?? " ") ? -1 : until(sign, at + sign.length);
      if (end > at + sign.length && !/\s/.test(text[end - 1])) {
        push(el(tag, {}, inline(text.slice(at + sign.length, end), depth + 1)));
        at = end + sign.length;
        continue;
      }
      plain += sign;
      at += sign.length;
      continue;
    }
    plain += letter;
    at += 1;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function linkAt(text, at, until) {
  const middle = until("](", at + 1);
  if (middle < 0) return undefined;
  const end = text.indexOf(")", middle + 2);
  if (end < 0 || end - middle > 2000) return undefined;
  return {
    label: text.slice(at + 1, middle),
    target: text
      .slice(middle + 2, end)
      .trim()
      .split(/\s/)[0],
    end: end + 1,
  };
}

/** A link, or the label alone where the target is no address of the web. */
function anchor(target, label) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return el("span", {}, label);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return el("span", {}, label);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: url.href }, label);
}
