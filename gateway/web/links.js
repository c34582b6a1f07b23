// The links between machines: each address of a peer, as the machine that sends there finds it.

import { byId, el, setText } from "./dom.js";
import { duration } from "./units.js";

/** Links that are drawn. The others are counted. */
const SHOWN_MAX = 40;

const HEADINGS = ["from", "to", "interface", "address", "RTT", "Gbit/s", "MTU", "use"];

export class Links {
  #panel;
  #rows = el("tbody", {});
  #drawn = "";

  constructor(panel) {
    this.#panel = panel;
    const heading = HEADINGS.map((text) => el("th", { scope: "col" }, text));
    byId("links").append(el("table", { class: "links small" }, el("thead", {}, el("tr", {}, heading)), this.#rows));
  }

  draw(cluster) {
    const links = Object.values(cluster.links ?? {});
    this.#panel.hidden = links.length === 0;
    // Those in use first; the rest stays in the order of the names.
    links.sort((one, other) => (one.state !== "used") - (other.state !== "used"));
    const shown = links.slice(0, SHOWN_MAX).map(cells);
    const more = links.length - shown.length;
    setText(byId("links-count"), more > 0 ? `and ${more} more: baton status` : "");
    const drawn = JSON.stringify(shown);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    this.#rows.replaceChildren(
      ...shown.map((row) => el("tr", { "data-use": row.at(-1) }, row.map((text) => el("td", {}, text)))),
    );
  }
}

/** The texts of a row. */
function cells(link) {
  const megabits = link.measured_megabits_per_second ?? link.megabits_per_second;
  return [
    link.from,
    link.to,
    link.interface ? `${link.interface}${link.kind ? ` (${link.kind})` : ""}` : "–",
    link.address.replace(/^tcp:\/\//, ""),
    link.rtt_us === undefined ? "–" : duration(link.rtt_us / 1000),
    megabits === undefined ? "–" : (megabits / 1000).toPrecision(2),
    link.mtu ?? "–",
    link.state,
  ].map(String);
}
