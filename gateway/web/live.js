// The live picture of the cluster: the state of `GET /distributed/events`, kept true by its changes.

import { send } from "./api.js";
import { merge } from "./merge.js";
import { events } from "./sse.js";

/** Waits before coming back, in milliseconds. */
const WAITS = [250, 500, 1000, 2000, 4000];
/** Time without a byte after which the connection counts as dead: the server sends something every 10 s. */
const SILENCE_MAX = 25000;
/** Rows and lines that are kept, as many as the server keeps. */
const ROWS_MAX = 450;
const LINES_MAX = 400;

/**
 * Follows the events for ever. `changed` is called after each with the state and the event's name, `connection` with
 * "live", "waiting" or "away" and a sentence.
 */
export async function follow({ changed, connection }) {
  let state;
  let last;
  let failures = 0;
  for (;;) {
    const control = new AbortController();
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => control.abort(), SILENCE_MAX);
    };
    try {
      connection(state ? "waiting" : "away", "connecting");
      const headers = last && state ? { "last-event-id": last } : {};
      const response = await send("/distributed/events", { headers, signal: control.signal });
      if (!response.ok) throw new Error(`the server answered with status ${response.status}`);
      connection("live", "live");
      heard();
      for await (const event of events(response)) {
        heard();
        failures = 0;
        last = event.id ?? last;
        if (event.event === "behind") {
          last = undefined;
          continue;
        }
        state = apply(state, event.event, JSON.parse(event.data));
        if (state) changed(state, event.event);
      }
      throw new Error("the server ended the stream");
    } catch (error) {
      clearTimeout(silence);
      connection(state ? "waiting" : "away", String(error?.message ?? error));
      await new Promise((resolve) => setTimeout(resolve, WAITS[Math.min(failures, WAITS.length - 1)]));
      failures += 1;
    }
  }
}

/** The state after an event. Before the first whole state there is none. */
export function apply(state, name, data) {
  if (name === "state") return data;
  if (!state) return state;
  if (name === "patch") return merge(state, data);
  if (name === "sample") {
    state.series.rows.push(data);
    if (state.series.rows.length > ROWS_MAX) state.series.rows.shift();
  } else if (name === "log") {
    state.log.push(...data);
    state.log.splice(0, Math.max(0, state.log.length - LINES_MAX));
  }
  return state;
}
