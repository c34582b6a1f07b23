// The chat: conversations, the composer and the running answer.

import { sendJson } from "./api.js";
import { MessageView, asRequest, receive } from "./answer.js";
import { Conversations, asMarkdown, download } from "./conversations.js";
import { byId, el, restoreTheme, setText, themeButton, toast } from "./dom.js";

/** Longest attached file, in bytes, and most files of a message: what a context may hold. */
const FILE_BYTES_MAX = 256 << 10;
const FILES_MAX = 8;
const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed", "repetition_penalty"];

restoreTheme();
themeButton(byId("theme"));

const conversations = new Conversations();
let conversation = conversations.all[0] ?? conversations.add();
let views = [];
let running;
let files = [];
let model = "";
let cluster;

/** The stages by name, for the machines that computed an answer. */
async function readCluster() {
  try {
    const status = await sendJson("/distributed/status");
    cluster = Object.fromEntries(status.stages.map((stage) => [stage.name, stage]));
    model = status.model?.name ?? model;
    setText(
      byId("model"),
      status.serving
        ? `${model} · ${status.stages.filter((stage) => stage.layers).length} stages`
        : `not serving: ${status.reason ?? ""}`,
    );
  } catch (error) {
    setText(byId("model"), error.message);
  }
}

// === The page ===

function showList() {
  const rows = conversations.all.map((one) => {
    const open = el(
      "button",
      {
        type: "button",
        class: "quiet open",
        "aria-current": one === conversation ? "true" : undefined,
        on: { click: () => choose(one) },
      },
      one.title,
    );
    const remove = el(
      "button",
      {
        type: "button",
        class: "quiet remove",
        "aria-label": `Delete ${one.title}`,
        on: { click: () => removeConversation(one) },
      },
      "✕",
    );
    return el("li", {}, open, remove);
  });
  byId("conversations").replaceChildren(...rows);
  setText(byId("title"), conversation.title);
}

function showThread() {
  views = conversation.messages.map(viewOf);
  const empty = el(
    "div",
    { class: "hello" },
    el("h2", {}, "What shall the machines compute?"),
    el("p", { class: "muted" }, "Each answer says which machine computed what. Conversations stay in this browser."),
  );
  byId("thread").replaceChildren(...(views.length ? views.map((view) => view.element) : [empty]));
  for (const view of views) view.draw(cluster, true);
  scrollDown(true);
}

function viewOf(message) {
  const actions =
    message.role === "user"
      ? [["Edit", () => edit(message)]]
      : [
          ["Copy", () => copy(message)],
          ["Regenerate", () => regenerate(message)],
        ];
  return new MessageView(message, actions);
}

function scrollDown(isForced) {
  const thread = byId("thread");
  const isNear = thread.scrollHeight - thread.scrollTop - thread.clientHeight < 140;
  if (isForced || isNear) thread.scrollTop = thread.scrollHeight;
}

function choose(one) {
  stop();
  conversation = one;
  toggleList(false);
  showList();
  showThread();
  byId("input").focus();
}

function removeConversation(one) {
  if (one === conversation) stop();
  conversations.remove(one.id);
  if (one === conversation) conversation = conversations.all[0] ?? conversations.add();
  showList();
  showThread();
}

function toggleList(isOpen) {
  document.body.classList.toggle("list-open", isOpen);
  byId("list-toggle").setAttribute("aria-expanded", String(isOpen));
}

// === The answer ===

async function ask() {
  if (running) return;
  const message = { role: "assistant", text: "" };
  const body = asRequest(conversation, model);
  conversation.messages.push(message);
  const view = viewOf(message);
  if (views.length === 0 || !views[0].element.isConnected) byId("thread").replaceChildren();
  views.push(view);
  byId("thread").append(view.element);
  const own = { control: new AbortController(), conversation };
  running = own;
  byId("stop").hidden = false;
  byId("submit").disabled = true;
  view.changed(cluster);
  scrollDown(true);
  try {
    await receive(body, message, own.control.signal, () => {
      view.changed(cluster);
      scrollDown(false);
    });
  } catch (error) {
    if (own.control.signal.aborted) message.finish = "stopped";
    else message.error = String(error?.message ?? error);
  }
  await readCluster();
  view.draw(cluster, true);
  conversations.touch(own.conversation);
  if (running === own) running = undefined;
  byId("stop").hidden = true;
  byId("submit").disabled = false;
  showList();
  scrollDown(false);
}

function stop() {
  running?.control.abort();
  running = undefined;
}

function submit() {
  const text = byId("input").value.trim();
  if (running || (!text && files.length === 0)) return;
  if (!model) return toast("The model is not known yet: the server has not answered.");
  const message = { role: "user", text };
  if (files.length) message.files = files;
  conversation.messages.push(message);
  if (conversation.messages.length === 1) conversation.title = (text || files[0].name).slice(0, 60);
  files = [];
  showFiles();
  byId("input").value = "";
  fitInput();
  const gone = conversations.save();
  if (gone) toast(`${gone} old conversation${gone > 1 ? "s" : ""} had to go: this browser keeps no more.`);
  showList();
  showThread();
  ask();
}

function edit(message) {
  if (running) return;
  const at = conversation.messages.indexOf(message);
  byId("input").value = message.text;
  files = message.files ?? [];
  conversation.messages.splice(at);
  showFiles();
  fitInput();
  showThread();
  byId("input").focus();
}

function regenerate(message) {
  if (running) return;
  conversation.messages.splice(conversation.messages.indexOf(message));
  showThread();
  ask();
}

async function copy(message) {
  try {
    await navigator.clipboard.writeText(message.text);
    toast("Copied.");
  } catch {
    toast("This browser does not let the page copy.");
  }
}

// === The composer ===

function fitInput() {
  const input = byId("input");
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 260)}px`;
}

function showFiles() {
  const rows = files.map((file) =>
    el(
      "li",
      {},
      file.name,
      el(
        "button",
        {
          type: "button",
          class: "quiet",
          "aria-label": `Remove ${file.name}`,
          on: { click: () => ((files = files.filter((other) => other !== file)), showFiles()) },
        },
        "✕",
      ),
    ),
  );
  byId("attachments").replaceChildren(...rows);
}

async function addFiles(list) {
  for (const file of list) {
    if (files.length >= FILES_MAX) return toast(`At most ${FILES_MAX} files a message.`);
    if (file.size > FILE_BYTES_MAX) {
      toast(
        `${file.name} has ${Math.round(file.size / 1024)} KiB: expected at most ${FILE_BYTES_MAX >> 10} KiB of text.`,
      );
      continue;
    }
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      files = [...files, { name: file.name.slice(0, 120), text }];
    } catch {
      toast(`${file.name} is no text in UTF-8.`);
    }
  }
  showFiles();
}

// === The settings ===

function openSettings() {
  const { settings } = conversation;
  byId("set-system").value = settings.system ?? "";
  for (const name of NUMBERS) byId(`set-${name}`).value = settings[name] ?? "";
  byId("set-tools").value = settings.tools ? JSON.stringify(settings.tools, null, 1) : "";
  byId("settings-error").textContent = "";
  byId("settings").showModal();
}

function saveSettings(event) {
  const settings = {};
  const system = byId("set-system").value.trim();
  if (system) settings.system = system;
  for (const name of NUMBERS) {
    const value = byId(`set-${name}`).valueAsNumber;
    if (!Number.isNaN(value)) settings[name] = value;
  }
  const tools = byId("set-tools").value.trim();
  if (tools) {
    try {
      settings.tools = JSON.parse(tools);
      if (!Array.isArray(settings.tools)) throw new Error("expected a list");
    } catch (error) {
      event.preventDefault();
      byId("settings-error").textContent = `The tools are not usable: ${error.message}`;
      return;
    }
  }
  conversation.settings = settings;
  conversations.save();
}

// === Wiring ===

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
byId("input").addEventListener("input", fitInput);
byId("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
byId("stop").addEventListener("click", () => running?.control.abort());
byId("new").addEventListener("click", () => choose(conversations.add()));
byId("list-toggle").addEventListener("click", () => toggleList(!document.body.classList.contains("list-open")));
byId("attach").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", (event) =>
  addFiles([...event.target.files]).then(() => (event.target.value = "")),
);
byId("composer").addEventListener("dragover", (event) => event.preventDefault());
byId("composer").addEventListener("drop", (event) => {
  event.preventDefault();
  addFiles([...event.dataTransfer.files]);
});
byId("settings-open").addEventListener("click", openSettings);
byId("settings-save").addEventListener("click", saveSettings);
byId("export-md").addEventListener("click", () =>
  download("conversation.md", "text/markdown", asMarkdown(conversation)),
);
byId("export-json").addEventListener("click", () =>
  download("conversation.json", "application/json", JSON.stringify(conversation, null, 2)),
);

showList();
showThread();
readCluster().then(() => views.forEach((view) => view.draw(cluster, true)));
