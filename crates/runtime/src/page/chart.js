// Sparklines: one figure over the last minutes, with an optional line that it should stay under.

import { WINDOW_MS } from "/page/source.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 56;

function shape(tag, className) {
  const element = document.createElementNS(SVG, tag);
  element.setAttribute("class", className);
  return element;
}

/** An empty chart; `label` says what it shows to those who cannot see it. */
export function createChart(label) {
  const svg = shape("svg", "chart");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  svg.append(shape("path", "area"), shape("path", "limit"), shape("path", "line"));
  return svg;
}

/**
 * Draws `points` ({ at, value }, `value` null where there was nothing to measure) up to `now`.
 * With `limit` the scale always reaches it. With `fit` the chart shows the course of the values alone: from the
 * first to the last point, from the smallest to the largest value.
 */
export function drawChart(svg, points, now, { limit = null, fit = false } = {}) {
  const values = points.map((point) => point.value).filter((value) => value !== null);
  const top = Math.max(...values, limit === null ? -Infinity : limit * 1.2);
  const bottom = fit ? Math.min(...values) : 0;
  const range = top > bottom ? top - bottom : 1;
  const from = fit ? points[0].at : now - WINDOW_MS;
  const x = (at) => (WIDTH * (at - from)) / Math.max(1, now - from);
  const y = (value) => HEIGHT - 2 - ((HEIGHT - 6) * (value - bottom)) / range;
  const [area, limitLine, line] = svg.children;
  const runs = unbroken(points);
  const path = (run) => run.map((p, i) => `${i ? "L" : "M"}${x(p.at).toFixed(1)} ${y(p.value).toFixed(1)}`).join("");
  line.setAttribute("d", runs.map(path).join(""));
  const close = (run) => `L${x(run.at(-1).at).toFixed(1)} ${HEIGHT}L${x(run[0].at).toFixed(1)} ${HEIGHT}Z`;
  area.setAttribute("d", runs.map((run) => path(run) + close(run)).join(""));
  limitLine.setAttribute("d", limit === null ? "" : `M0 ${y(limit).toFixed(1)}H${WIDTH}`);
}

function unbroken(points) {
  const runs = [[]];
  for (const point of points) {
    if (point.value === null) runs.push([]);
    else runs.at(-1).push(point);
  }
  return runs.filter((run) => run.length > 0);
}

const series = new Map();

/** Remembers a figure of the thing called `key` and returns its last minutes. */
export function remember(key, at, value) {
  const known = series.get(key) ?? [];
  if (known.length && known.at(-1).at >= at) return known;
  const kept = [...known.filter((point) => point.at > at - WINDOW_MS), { at, value }];
  series.set(key, kept);
  return kept;
}

/** Forgets everything that is not named by `keys`. */
export function forgetOthers(keys) {
  for (const key of series.keys()) if (!keys.has(key)) series.delete(key);
}
