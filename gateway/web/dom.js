// Makes elements. Text becomes text nodes only: no function here reads markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false),
  );
  return element;
}

/** An element of HTML with attributes, listeners (`on`) and children. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of SVG. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets an element's text if it differs, so that nothing is drawn for nothing. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Sets an attribute if it differs. */
export function setAttribute(element, name, value) {
  const wanted = String(value);
  if (element.getAttribute(name) !== wanted) element.setAttribute(name, wanted);
}

/** The colour that a variable of the style sheet stands for at an element, as a canvas takes it. */
export function colourOf(element, name) {
  element.style.color = `var(${name})`;
  const colour = getComputedStyle(element).color;
  element.style.color = "";
  return colour;
}

/** Calls `draw` once before the next frame, however often it is asked. */
export function onFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

/** Shows a short message at the bottom of the page. */
export function toast(text, action) {
  const box = byId("toasts");
  const close = () => item.remove();
  const button = action && el("button", { type: "button", on: { click: () => (close(), action.run()) } }, action.label);
  const item = el("div", { class: "toast", role: "status" }, el("span", {}, text), button);
  box.append(item);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(close, action ? 20000 : 7000);
}

/** Lets the reader choose dark, light or the system's colours. */
export function themeButton(button) {
  const show = () => {
    const chosen = document.documentElement.dataset.theme;
    button.setAttribute("aria-label", `Colours: ${chosen ?? "as the system"}`);
    button.title = button.getAttribute("aria-label");
    button.textContent = chosen === "dark" ? "☾" : chosen === "light" ? "☀" : "◐";
  };
  const order = [undefined, "dark", "light"];
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    try {
      if (next) localStorage.setItem("baton.theme", next);
      else localStorage.removeItem("baton.theme");
    } catch {
      // A browser that keeps nothing still shows the colours.
    }
    show();
    document.dispatchEvent(new Event("themechange"));
  });
  show();
}

/** Applies the colours that were chosen before. */
export function restoreTheme() {
  try {
    const theme = localStorage.getItem("baton.theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch {
    // As above.
  }
}
