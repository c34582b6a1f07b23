// Requests to this server, with the API key if there is one. The key is kept for this tab alone unless its owner wants
// this browser to remember it.

import { byId } from "./dom.js";

const NAME = "baton.key";

let asking;

/** The API key, if one is known. */
function key() {
  try {
    return sessionStorage.getItem(NAME) ?? localStorage.getItem(NAME) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Sends a request. Where the server wants a key, asks for it first. */
export async function send(path, { body, headers, signal, method } = {}) {
  for (;;) {
    const all = { ...headers };
    const secret = key();
    if (secret) all.authorization = `Bearer ${secret}`;
    if (body !== undefined) all["content-type"] = "application/json";
    const response = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
    if (response.status !== 401) return response;
    await askForKey(secret !== undefined);
  }
}

/** Sends a request and reads its answer. An error has the server's sentence. */
export async function sendJson(path, options) {
  const response = await send(path, options);
  const text = await response.text();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(`the server answered with status ${response.status} and no JSON`);
  }
  if (!response.ok) throw new Error(value?.error?.message ?? `the server answered with status ${response.status}`);
  return value;
}

/** Asks for the key. Several requests at a time ask once. */
export function askForKey(wasWrong) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    const form = byId("key-form");
    byId("key-error").textContent = wasWrong ? "The server does not know this key." : "";
    const input = byId("key-input");
    input.value = "";
    form.onsubmit = (event) => {
      event.preventDefault();
      const secret = input.value.trim();
      if (!secret) return;
      try {
        sessionStorage.setItem(NAME, secret);
        if (byId("key-remember").checked) localStorage.setItem(NAME, secret);
        else localStorage.removeItem(NAME);
      } catch {
        byId("key-error").textContent = "This browser keeps nothing for this page: allow it to store data.";
        return;
      }
      dialog.close();
      asking = undefined;
      resolve();
    };
    dialog.oncancel = (event) => event.preventDefault();
    if (!dialog.open) dialog.showModal();
    input.focus();
  });
  return asking;
}
