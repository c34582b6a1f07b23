// Formulas: the common part of TeX as MathML. A command that is not known is shown as it was written.

const MATHML = "http://www.w3.org/1998/Math/MathML";
const DEPTH_MAX = 24;
const LENGTH_MAX = 4000;

const LETTERS = {
  alpha: "α",
  beta: "β",
  gamma: "γ",
  delta: "δ",
  epsilon: "ϵ",
  varepsilon: "ε",
  zeta: "ζ",
  eta: "η",
  theta: "θ",
  vartheta: "ϑ",
  iota: "ι",
  kappa: "κ",
  lambda: "λ",
  mu: "μ",
  nu: "ν",
  xi: "ξ",
  pi: "π",
  rho: "ρ",
  sigma: "σ",
  tau: "τ",
  upsilon: "υ",
  phi: "ϕ",
  varphi: "φ",
  chi: "χ",
  psi: "ψ",
  omega: "ω",
  Gamma: "Γ",
  Delta: "Δ",
  Theta: "Θ",
  Lambda: "Λ",
  Xi: "Ξ",
  Pi: "Π",
  Sigma: "Σ",
  Phi: "Φ",
  Psi: "Ψ",
  Omega: "Ω",
  infty: "∞",
  partial: "∂",
  nabla: "∇",
  hbar: "ℏ",
  ell: "ℓ",
  emptyset: "∅",
  Re: "ℜ",
  Im: "ℑ",
  aleph: "ℵ",
  dots: "…",
  ldots: "…",
  cdots: "⋯",
  vdots: "⋮",
  ddots: "⋱",
  angle: "∠",
  top: "⊤",
  bot: "⊥",
};
const OPERATORS = {
  cdot: "⋅",
  times: "×",
  div: "÷",
  pm: "±",
  mp: "∓",
  leq: "≤",
  le: "≤",
  geq: "≥",
  ge: "≥",
  neq: "≠",
  ne: "≠",
  approx: "≈",
  equiv: "≡",
  sim: "∼",
  propto: "∝",
  to: "→",
  rightarrow: "→",
  leftarrow: "←",
  Rightarrow: "⇒",
  Leftarrow: "⇐",
  iff: "⇔",
  Leftrightarrow: "⇔",
  implies: "⇒",
  mapsto: "↦",
  in: "∈",
  notin: "∉",
  subset: "⊂",
  subseteq: "⊆",
  supset: "⊃",
  cup: "∪",
  cap: "∩",
  setminus: "∖",
  forall: "∀",
  exists: "∃",
  neg: "¬",
  land: "∧",
  wedge: "∧",
  lor: "∨",
  vee: "∨",
  oplus: "⊕",
  otimes: "⊗",
  circ: "∘",
  ast: "∗",
  star: "⋆",
  mid: "∣",
  parallel: "∥",
  perp: "⟂",
  ll: "≪",
  gg: "≫",
  colon: ":",
  langle: "⟨",
  rangle: "⟩",
  lfloor: "⌊",
  rfloor: "⌋",
  lceil: "⌈",
  rceil: "⌉",
  vert: "|",
  Vert: "‖",
  prime: "′",
  "{": "{",
  "}": "}",
  "|": "‖",
  "%": "%",
  "&": "&",
  "#": "#",
  _: "_",
  $: "$",
};
const LARGE = { sum: "∑", prod: "∏", int: "∫", iint: "∬", oint: "∮", bigcup: "⋃", bigcap: "⋂", coprod: "∐" };
const FUNCTIONS = new Set(
  `sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim max min sup inf det dim ker deg gcd
  arg argmax argmin mod Pr`.split(/\s+/),
);
const UNDER = new Set(["lim", "max", "min", "sup", "inf", "argmax", "argmin"]);
const SPACES = { ",": 0.17, ":": 0.22, ";": 0.28, "!": -0.17, " ": 0.25, quad: 1, qquad: 2 };
const ACCENTS = {
  hat: "^",
  bar: "‾",
  overline: "‾",
  vec: "→",
  tilde: "~",
  dot: "˙",
  ddot: "¨",
  widehat: "^",
  underline: "_",
};
const VARIANTS = {
  mathbb: "double-struck",
  mathbf: "bold",
  mathcal: "script",
  mathfrak: "fraktur",
  mathrm: "normal",
  boldsymbol: "bold",
  mathit: "italic",
  mathsf: "sans-serif",
};
const MATRICES = {
  matrix: ["", ""],
  pmatrix: ["(", ")"],
  bmatrix: ["[", "]"],
  vmatrix: ["|", "|"],
  Bmatrix: ["{", "}"],
  cases: ["{", ""],
  aligned: ["", ""],
  align: ["", ""],
  "align*": ["", ""],
  gathered: ["", ""],
  array: ["", ""],
};

const node = (tag, attributes, ...children) => {
  const element = document.createElementNS(MATHML, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

/** The formula as MathML; `isBlock` if it stands by itself. */
export function math(source, isBlock) {
  const root = node("math", isBlock ? { display: "block" } : {});
  root.setAttribute("aria-label", source.trim());
  if (source.length > LENGTH_MAX) {
    root.append(node("mtext", {}, source));
    return root;
  }
  const parser = new Parser(source);
  root.append(node("mrow", {}, ...parser.row(() => parser.isOver(), 0)));
  return root;
}

class Parser {
  #tokens;
  #at = 0;

  constructor(source) {
    this.#tokens = source.match(/\\[A-Za-z]+\*?|\\[^]|[{}^_&]|\d+(?:\.\d+)?|\s+|[^]/gu) ?? [];
  }

  isOver = () => this.#at >= this.#tokens.length;

  #peek() {
    while (/^\s+$/.test(this.#tokens[this.#at] ?? "")) this.#at += 1;
    return this.#tokens[this.#at];
  }

  #take() {
    const token = this.#peek();
    this.#at += 1;
    return token;
  }

  /** The nodes up to where `ends` holds. */
  row(ends, depth) {
    const nodes = [];
    while (this.#peek() !== undefined && !ends(this.#peek())) {
      const before = this.#at;
      nodes.push(this.#scripted(depth));
      if (this.#at === before) this.#at += 1;
    }
    return nodes;
  }

  /** One thing with what stands above and below it. */
  #scripted(depth) {
    const token = this.#peek();
    const base = token === "^" || token === "_" ? node("mrow", {}) : this.#thing(depth);
    let sub, sup;
    for (let more = 0; more < 2; more += 1) {
      const next = this.#peek();
      if (next === "_" && !sub) {
        this.#take();
        sub = this.#thing(depth + 1);
      } else if (next === "^" && !sup) {
        this.#take();
        sup = this.#thing(depth + 1);
      } else if (next === "'" && !sup) {
        this.#take();
        sup = node("mo", {}, "′");
      } else break;
    }
    if (!sub && !sup) return base;
    const name = token?.slice(1);
    const stands = UNDER.has(name) || (name in LARGE && !name.includes("int"));
    if (sub && sup) return node(stands ? "munderover" : "msubsup", {}, base, sub, sup);
    return sub ? node(stands ? "munder" : "msub", {}, base, sub) : node(stands ? "mover" : "msup", {}, base, sup);
  }

  #group(depth) {
    if (depth > DEPTH_MAX) return node("mtext", {}, this.#take() ?? "");
    const inner = this.row((token) => token === "}", depth + 1);
    this.#take();
    return node("mrow", {}, ...inner);
  }

  /** The text of a group, as it is written. */
  #words() {
    if (this.#peek() !== "{") return this.#take() ?? "";
    this.#take();
    let [text, open] = ["", 1];
    while (!this.isOver()) {
      const token = this.#tokens[this.#at];
      this.#at += 1;
      if (token === "{") open += 1;
      if (token === "}" && --open === 0) break;
      text += token;
    }
    return text;
  }

  #thing(depth) {
    const token = this.#take();
    if (token === undefined) return node("mrow", {});
    if (depth > DEPTH_MAX) return node("mtext", {}, token);
    if (token === "{") return this.#group(depth);
    if (/^\d/.test(token)) return node("mn", {}, token);
    if (token.startsWith("\\")) return this.#command(token.slice(1), depth);
    if (/^\p{L}$/u.test(token)) return node("mi", {}, token);
    if (token === "&" || token === "}") return node("mrow", {});
    return node(
      "mo",
      "()[]|".includes(token) ? { stretchy: "false" } : {},
      token === "-" ? "−" : token === "*" ? "∗" : token,
    );
  }

  #command(name, depth) {
    if (Object.hasOwn(LETTERS, name)) return node("mi", {}, LETTERS[name]);
    if (Object.hasOwn(LARGE, name)) return node("mo", { largeop: "true" }, LARGE[name]);
    if (Object.hasOwn(OPERATORS, name)) return node("mo", {}, OPERATORS[name]);
    if (FUNCTIONS.has(name)) return node("mi", { mathvariant: "normal" }, name);
    if (Object.hasOwn(SPACES, name)) return node("mspace", { width: `${SPACES[name]}em` });
    if (Object.hasOwn(ACCENTS, name)) {
      const over = node("mo", {}, ACCENTS[name]);
      return node(name === "underline" ? "munder" : "mover", { accent: "true" }, this.#thing(depth + 1), over);
    }
    if (Object.hasOwn(VARIANTS, name)) return this.#variant(VARIANTS[name], this.#words());
    switch (name) {
      case "frac":
      case "dfrac":
      case "tfrac":
        return node("mfrac", {}, this.#thing(depth + 1), this.#thing(depth + 1));
      case "binom":
        return node(
          "mrow",
          {},
          node("mo", {}, "("),
          node("mfrac", { linethickness: "0" }, this.#thing(depth + 1), this.#thing(depth + 1)),
          node("mo", {}, ")"),
        );
      case "sqrt":
        return this.#root(depth);
      case "text":
      case "textbf":
      case "textit":
      case "mbox":
      case "operatorname":
      case "operatorname*":
        return node("mtext", {}, this.#words());
      case "left":
      case "right":
      case "big":
      case "Big":
      case "bigl":
      case "bigr":
      case "Bigl":
      case "Bigr":
        return this.#delimiter();
      case "begin":
        return this.#matrix(this.#words(), depth);
      case "end":
        this.#words();
        return node("mrow", {});
      case "boxed":
        return node("mrow", { class: "boxed" }, this.#thing(depth + 1));
      case "displaystyle":
      case "textstyle":
      case "limits":
      case "nolimits":
      case "\\":
        return node("mrow", {});
      default:
        return node("mtext", {}, `\\${name}`);
    }
  }

  #delimiter() {
    const token = this.#take() ?? "";
    if (token === ".") return node("mrow", {});
    const name = token.startsWith("\\") ? token.slice(1) : "";
    return node("mo", { stretchy: "true" }, Object.hasOwn(OPERATORS, name) ? OPERATORS[name] : token);
  }

  #root(depth) {
    if (this.#peek() !== "[") return node("msqrt", {}, this.#thing(depth + 1));
    this.#take();
    const index = node("mrow", {}, ...this.row((token) => token === "]", depth + 1));
    this.#take();
    return node("mroot", {}, this.#thing(depth + 1), index);
  }

  #variant(variant, text) {
    const doubled = { R: "ℝ", N: "ℕ", Z: "ℤ", Q: "ℚ", C: "ℂ", P: "ℙ", E: "𝔼", F: "𝔽" };
    const shown = variant === "double-struck" ? [...text].map((letter) => doubled[letter] ?? letter).join("") : text;
    return node("mi", { mathvariant: variant === "normal" ? "normal" : "", class: `math-${variant}` }, shown);
  }

  #matrix(name, depth) {
    if (!Object.hasOwn(MATRICES, name) || depth > DEPTH_MAX) return node("mtext", {}, `\\begin{${name}}`);
    if (name === "array") this.#words();
    const rows = [[[]]];
    while (!this.isOver() && this.#peek() !== undefined && this.#peek() !== "\\end") {
      const token = this.#peek();
      const row = rows[rows.length - 1];
      if (token === "&") {
        this.#take();
        row.push([]);
      } else if (token === "\\\\") {
        this.#take();
        rows.push([[]]);
      } else {
        const before = this.#at;
        row[row.length - 1].push(this.#scripted(depth + 1));
        if (this.#at === before) this.#at += 1;
      }
    }
    if (!this.isOver()) {
      this.#take();
      this.#words();
    }
    const [open, close] = MATRICES[name];
    const table = node(
      "mtable",
      {},
      ...rows
        .filter((row) => row.some((cell) => cell.length))
        .map((row) => node("mtr", {}, ...row.map((cell) => node("mtd", {}, ...cell)))),
    );
    return node("mrow", {}, node("mo", { stretchy: "true" }, open), table, node("mo", { stretchy: "true" }, close));
  }
}
