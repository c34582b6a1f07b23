// Reads server-sent events from a response. `EventSource` cannot send an API key, so `fetch` is used.

/** Longest event that is read, in characters: the state of some thousand stages. */
const EVENT_CHARS_MAX = 32 << 20;

/** The events of a response's body, as they come: their `id`, `event` and `data`. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      if (rest.length > EVENT_CHARS_MAX) throw new Error("an event of the server is too long");
      let end;
      let start = 0;
      while ((end = rest.indexOf("\n\n", start)) >= 0) {
        const event = parse(rest.slice(start, end));
        start = end + 2;
        if (event) yield event;
      }
      rest = rest.slice(start);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const event = { id: undefined, event: "message", data: "" };
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "data") data.push(value);
    else if (field === "id") event.id = value;
    else if (field === "event") event.event = value;
  }
  event.data = data.join("\n");
  return data.length > 0 ? event : undefined;
}
