// The conversations, kept in this browser only, within bounds.

const NAME = "baton.conversations";
/** Most conversations, and most characters of all together: browsers keep about five million for one server. */
const COUNT_MAX = 60;
const CHARS_MAX = 4_000_000;

/** The conversations, the newest first. Those that do not fit any more go, the oldest first. */
export class Conversations {
  #all = [];

  constructor() {
    try {
      const kept = JSON.parse(localStorage.getItem(NAME) ?? "[]");
      if (Array.isArray(kept)) this.#all = kept.filter(isConversation);
    } catch {
      // What cannot be read is as good as nothing.
    }
  }

  get all() {
    return this.#all;
  }

  /** A new one, in front of the others. An empty one that is in front already is used again. */
  add() {
    const first = this.#all[0];
    if (first && first.messages.length === 0) return first;
    const conversation = {
      id: crypto.randomUUID?.() ?? String(Date.now() + Math.random()),
      title: "New conversation",
      changed: Date.now(),
      settings: {},
      messages: [],
    };
    if (first) conversation.settings = structuredClone(first.settings);
    this.#all.unshift(conversation);
    return conversation;
  }

  remove(id) {
    this.#all = this.#all.filter((conversation) => conversation.id !== id);
    this.save();
  }

  /** Puts a conversation that has changed in front. */
  touch(conversation) {
    conversation.changed = Date.now();
    this.#all = [conversation, ...this.#all.filter((other) => other !== conversation)];
    this.save();
  }

  /** Keeps all. Returns the number of conversations that had to go. */
  save() {
    let gone = 0;
    const drop = () => {
      this.#all.pop();
      gone += 1;
    };
    while (this.#all.length > COUNT_MAX) drop();
    for (;;) {
      const text = JSON.stringify(this.#all.filter((conversation) => conversation.messages.length > 0));
      if (text.length > CHARS_MAX && this.#all.length > 1) {
        drop();
        continue;
      }
      try {
        localStorage.setItem(NAME, text);
        return gone;
      } catch {
        if (this.#all.length <= 1) return gone;
        drop();
      }
    }
  }
}

function isConversation(value) {
  const isMessage = (message) => ["user", "assistant"].includes(message?.role) && typeof message.text === "string";
  return (
    typeof value?.id === "string" &&
    typeof value.title === "string" &&
    Array.isArray(value.messages) &&
    value.messages.every(isMessage) &&
    typeof (value.settings ?? {}) === "object"
  );
}

/** A conversation as Markdown. */
export function asMarkdown(conversation) {
  const parts = [`# ${conversation.title}`];
  if (conversation.settings.system) parts.push(`> ${conversation.settings.system.replaceAll("\n", "\n> ")}`);
  for (const message of conversation.messages) {
    parts.push(`## ${message.role === "user" ? "You" : (message.model ?? "Assistant")}`);
    for (const file of message.files ?? []) parts.push(`*${file.name}*\n\n\`\`\`\`\n${file.text}\n\`\`\`\``);
    parts.push(message.text);
  }
  return `${parts.join("\n\n")}\n`;
}

/** Hands the reader a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
