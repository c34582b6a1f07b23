// A server in front of a running baton whose events are made here: of a cluster of any size, whose figures change all
// the time. Everything else is passed on, so that the pages are those of the program.

import http from "node:http";

const HOSTS = ["mini-1", "mini-2", "studio", "attic", "rack-7", "den"];

const INTERFACES = [
  { name: "bridge0", kind: "thunderbolt" },
  { name: "en0", kind: "ethernet", megabits_per_second: 10000 },
  { name: "wlp2s0", kind: "wifi" },
  { name: "eth0", kind: "unknown" },
  undefined,
];

/** More links than the page draws: of each three addresses the second is used, and one is of nobody who is known. */
function links() {
  const all = {};
  for (let n = 0; n < 60; n += 1) {
    const address = `tcp://10.1.${n}.2:7000`;
    const known = { interface: "en0", kind: "ethernet", rtt_us: 94 + n, measured_megabits_per_second: 9412, mtu: 9000 };
    all[`s s ${address}`] = {
      ...(n % 3 ? known : {}),
      from: "s0000",
      to: n % 3 ? "s0001" : "<b>nobody</b>",
      address,
      state: ["dead", "used", "spare"][n % 3],
    };
  }
  return all;
}

/** The state of a cluster of `count` stages. */
export function state(count) {
  const stages = {};
  for (let n = 0; n < count; n += 1) {
    const name = `s${String(n).padStart(4, "0")}`;
    stages[name] = {
      name,
      host: HOSTS[n % HOSTS.length],
      pid: 100 + n,
      version: "0.1.0",
      endpoint: `tcp://10.0.0.${n % 250}:7000`,
      device: "metal",
      chip: "Apple M4",
      threads: 8,
      slot: n,
      layers: [n, n + 1],
      state: "serving",
      memory: {
        total_bytes: 16 << 30,
        budget_bytes: 3 * 2 ** 30,
        bound_bytes: 2.1 * 2 ** 30,
        weights_bytes: 1.6 * 2 ** 30,
        kv_bytes: 0.4 * 2 ** 30,
        scratch_bytes: 0.1 * 2 ** 30,
        used: { rss_bytes: 1.9 * 2 ** 30, pss_bytes: 1.8 * 2 ** 30 },
      },
      interface: INTERFACES[n % INTERFACES.length],
      link_us: 180 + n,
      tokens_per_second: 31.5,
      busy: 0.4,
      idle_input: 0.5,
      idle_output: 0.1,
      sent_bytes_total: 1,
    };
  }
  const now = Date.now();
  const rows = Array.from({ length: 450 }, (_, at) => [
    now - (450 - at) * 2000,
    30 + 8 * Math.sin(at / 20),
    240,
    2,
    6,
    40,
    6,
    0.5,
    0.4,
    0.1,
  ]);
  const columns = [
    "t",
    "tokens_per_second",
    "first_token_ms",
    "waiting",
    "running",
    "batch_rows",
    "batch_sequences",
    "busy",
    "idle_input",
    "idle_output",
  ];
  return {
    cluster: {
      serving: true,
      reason: "",
      missing_layers: [],
      generation: 7,
      tokens_per_second: 31.4,
      running: 6,
      waiting: 2,
      model: { name: "synthetic", architecture: "llama", layers: count, kv_tokens: 8192 },
      stages,
      pins: {},
      gateways: { 0: { slot: 0, url: "-" } },
      links: links(),
      store: { reachable: true, revision: 1 },
      complaints: [],
    },
    requests: {},
    controls: { pins: true, version: "0.1.0" },
    series: { columns, interval_ms: 2000, rows },
    log: [{ t: now, subject: "placement", text: "Generation 7 is complete: every layer is held exactly once." }],
  };
}

/** A patch in which every stage has other figures. */
export function patch(count, step) {
  const stages = {};
  for (let n = 0; n < count; n += 1) {
    const busy = 0.5 + 0.45 * Math.sin(n / 9 + step / 3);
    stages[`s${String(n).padStart(4, "0")}`] = {
      busy,
      idle_input: (1 - busy) * 0.8,
      idle_output: (1 - busy) * 0.2,
      tokens_per_second: 30 + (step % 9),
      sent_bytes_total: 1 + step * 4_000_000,
      memory: { used: { rss_bytes: (1.8 + busy / 5) * 2 ** 30 } },
    };
  }
  return { cluster: { tokens_per_second: 30 + (step % 7), stages } };
}

/** Starts the server. It sends a patch of all `count` stages every `interval` milliseconds. */
export async function start(upstream, count, interval) {
  const timers = new Set();
  const server = http.createServer((request, response) => {
    if (request.url === "/distributed/events") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      let id = 1;
      const write = (event, data) =>
        response.write(`id: x-${id++}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
      write("state", state(count));
      const timer = setInterval(() => write("patch", patch(count, id)), interval);
      timers.add(timer);
      request.on("close", () => clearInterval(timer));
      return;
    }
    const headers = { ...request.headers, host: new URL(upstream).host };
    const onward = http.request(new URL(request.url, upstream), { method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    timers.forEach(clearInterval);
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, close };
}
