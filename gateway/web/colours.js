// The colour of each stage: that of its machine, or its own where there is only one machine.

const COLOURS = 8;

/** The number of each stage's colour, by the stage's name. `stages` has the stages by name. */
export function colourNumbers(stages) {
  const all = Object.values(stages ?? {});
  const hosts = [...new Set(all.map((stage) => stage.host).filter(Boolean))].sort();
  if (hosts.length > 1) {
    return new Map(all.map((stage) => [stage.name, Math.max(0, hosts.indexOf(stage.host)) % COLOURS]));
  }
  const place = (stage) => stage.layers?.[0] ?? Number.MAX_SAFE_INTEGER;
  all.sort((one, other) => place(one) - place(other) || one.name.localeCompare(other.name));
  return new Map(all.map((stage, at) => [stage.name, at % COLOURS]));
}
