// Blocks of code: the language, a button that copies, and colours by the shape of tokens.

import { el } from "./dom.js";

/** Longest code that is coloured, in characters. */
const COLOURED_MAX = 40000;

const WORDS = new Set(
  `
  abstract and as assert async await bool boolean break case catch char class const continue def default del
  delete do double elif else enum except export extends extern false finally float fn for from func function go if
  impl import in int interface is lambda let long loop match mod module mut namespace new nil none None not null
  or override package pass private protected pub public raise return select self Self SELECT FROM WHERE JOIN
  INSERT UPDATE short static string struct super switch this throw trait true True False try type typedef typeof
  undefined union unsafe unsigned use using var void volatile while with yield
  `.split(/\s+/),
);

const HASH_COMMENTS = new Set([
  "python",
  "py",
  "sh",
  "bash",
  "shell",
  "zsh",
  "yaml",
  "yml",
  "toml",
  "ruby",
  "rb",
  "r",
  "perl",
  "make",
  "dockerfile",
]);

/** The block. */
export function codeBlock(text, language) {
  const name = language.replace(/[^\w+#.-]/g, "").slice(0, 20);
  const copy = el("button", { type: "button", class: "quiet copy" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Not allowed";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  const code = el("code", {}, text.length > COLOURED_MAX ? text : coloured(text, name.toLowerCase()));
  return el(
    "div",
    { class: "code" },
    el("div", { class: "code-head" }, el("span", {}, name || "text"), copy),
    el("pre", { tabindex: 0 }, code),
  );
}

function coloured(text, language) {
  const comment = HASH_COMMENTS.has(language) ? "#[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)";
  const string = "\"(?:[^\"\\\\\\n]|\\\\.)*\"?|'(?:[^'\\\\\\n]|\\\\.)*'?|`(?:[^`\\\\]|\\\\.)*`?";
  const tokens = new RegExp(`(${comment})|(${string})|(\\b\\d[\\w.]*)|([A-Za-z_]\\w*)`, "g");
  const nodes = [];
  let last = 0;
  for (const found of text.matchAll(tokens)) {
    const kind = found[1]
      ? "comment"
      : found[2]
        ? "string"
        : found[3]
          ? "number"
          : WORDS.has(found[4])
            ? "word"
            : undefined;
    if (!kind) continue;
    if (found.index > last) nodes.push(text.slice(last, found.index));
    nodes.push(el("span", { class: `t-${kind}` }, found[0]));
    last = found.index + found[0].length;
  }
  nodes.push(text.slice(last));
  return nodes;
}
