// Figures as people read them.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"];

/** A number of bytes with a binary unit. */
export function bytes(count) {
  if (count === undefined || count === null) return "–";
  let unit = 0;
  while (count >= 1024 && unit < BINARY.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? count : count.toFixed(count < 10 ? 2 : count < 100 ? 1 : 0)} ${BINARY[unit]}`;
}

/** A number with as many decimals as matter. */
export function number(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

/** A share of 0 to 1. */
export function percent(share) {
  return share === undefined || share === null ? "–" : `${Math.round(share * 100)} %`;
}

/** A duration in milliseconds. */
export function duration(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 90
    ? `${minutes} min ${Math.round(seconds % 60)} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The time of day of milliseconds since 1970. */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

/** A layer range, `[first, one past last]`. */
export function layers(range) {
  return range ? `${range[0]}–${range[1] - 1}` : "–";
}
