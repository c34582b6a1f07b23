// What every work needs: a real Chromium that may reach one server only, and checks that say what they found.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { chromium } from "playwright-core";

/** Chromium talks to nobody by itself, and keeps nothing. */
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Starts a browser whose requests are all listed, and fails at the end if one went to another server than `url`. */
export async function withBrowser(program, url, options, work) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "baton-browser-"));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: program,
    headless: true,
    args: ARGUMENTS,
    viewport: { width: 1360, height: 900 },
    ...options,
  });
  const requests = [];
  const problems = [];
  context.on("request", (request) => requests.push(request.url()));
  context.on("page", (page) => watch(page, problems));
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    await work(page, { context, problems, requests });
    const own = new URL(url).origin;
    const foreign = requests.filter((address) => !/^(data|blob):/.test(address) && new URL(address).origin !== own);
    same("no request went to another server", foreign, []);
    same("no script failed, and nothing broke the page's policy", problems, []);
  } finally {
    await context.close();
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

function watch(page, problems) {
  page.on("pageerror", (error) => problems.push(`a script failed: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() !== "error") return;
    // Status codes and a server that is gone are part of some works.
    if (!/Failed to load resource/.test(message.text())) problems.push(message.text());
  });
}

/** Fails unless `holds`, and shows what was found. */
export function check(what, holds, found) {
  if (!holds) throw new Error(`${what}: found ${JSON.stringify(found)?.slice(0, 2000)}`);
  console.log(`ok  ${what}`);
}

/** Fails unless both are equal. */
export function same(what, found, expected) {
  check(what, JSON.stringify(found) === JSON.stringify(expected), found);
}

/** Waits until `holds` returns something true, and returns that. */
export async function until(what, holds, most = 20000) {
  const began = Date.now();
  for (;;) {
    const found = await holds();
    if (found) {
      console.log(`ok  ${what} (${Date.now() - began} ms)`);
      return found;
    }
    if (Date.now() - began > most) throw new Error(`${what}: not within ${most} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The JSON of a page of the server. */
export async function json(url, options) {
  const response = await fetch(url, options);
  return response.json();
}

/** Keeps a picture of the page if the variable SCREENSHOTS names a folder for it. */
export async function picture(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (folder) await page.screenshot({ path: path.join(folder, `${name}.png`) });
}
