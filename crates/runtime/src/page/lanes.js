// Each device as a lane over the last minutes, coloured by who held it. A lane is cut into slices in which
// the holders stay the same; holders that share the device lie above each other.

import { colour, make, mirror, short, swatch, write } from "/page/dom.js";
import { WINDOW_MS } from "/page/source.js";

const lanes = document.getElementById("lanes");
const legend = document.getElementById("legend");
const axis = document.getElementById("axis");

// More names than these are no legend; each lane tells its own.
const LEGEND = 40;

/** Draws lanes for `devices` from `spans`, ending at `now`. */
export function draw(devices, spans, now) {
  const from = now - WINDOW_MS;
  mirror(lanes, devices, (device) => device.id, createLane, (lane, device) => {
    updateLane(lane, device);
    const own = spans.filter((span) => span.device === device.id);
    mirror(lane.querySelector(".track"), slices(own, from, now), (slice) => slice.key, createSlice, (element, slice) => {
      element.style.left = `${((slice.from - from) / WINDOW_MS) * 100}%`;
      element.style.width = `${((slice.to - slice.from) / WINDOW_MS) * 100}%`;
      element.title = slice.holders.map(describe).join(", ");
    });
  });
  drawLegend(devices, spans);
}

function createLane(device) {
  const name = make("strong", "", short(device.id));
  name.title = device.id;
  const what = make("small", "", `${device.class}${device.simulated ? ", simulated" : ""}`);
  const lane = make("div", "lane", make("div", "device", name, what), make("div", "track"), make("div", "holder"));
  lane.dataset.device = device.id;
  lane.setAttribute("role", "img");
  return lane;
}

function updateLane(lane, device) {
  const holders = device.holders.map(({ kind, name }) => `${kind}/${name}`);
  lane.dataset.holder = holders.join(",") || "idle";
  lane.dataset.health = device.health;
  const words = device.holders.map(({ name, phase, lent }) => {
    const notes = [lent && "lent", phase !== "running" && phase].filter(Boolean).join(", ");
    return notes ? `${name} (${notes})` : name;
  });
  if (device.health !== "ok") words.unshift(device.why ? `${device.health}: ${device.why}` : device.health);
  const text = words.join(", ") || "idle";
  write(lane.querySelector(".holder"), text);
  lane.setAttribute("aria-label", `${device.id}, ${device.class}: ${holders.length ? `held by ${text}` : text}`);
}

/** Stretches of time with the same holders. */
export function slices(spans, from, now) {
  const visible = spans
    .map((span) => ({ ...span, start: Math.max(span.from_ms, from), end: Math.min(span.to_ms ?? now, now) }))
    .filter((span) => span.end > span.start);
  const cuts = [...new Set(visible.flatMap((span) => [span.start, span.end]))].sort((a, b) => a - b);
  const out = [];
  for (let i = 0; i + 1 < cuts.length; i++) {
    const holders = visible
      .filter((span) => span.start <= cuts[i] && span.end >= cuts[i + 1])
      .sort((a, b) => a.kind.localeCompare(b.kind) || a.name.localeCompare(b.name));
    if (!holders.length) continue;
    const last = out.at(-1);
    const same = JSON.stringify(holders.map(({ kind, name, lent }) => [kind, name, lent]));
    if (last && last.to === cuts[i] && last.same === same) last.to = cuts[i + 1];
    // The leftmost slice begins where the window does; any other keeps its own begin for as long as it is seen.
    else out.push({ key: `${same}@${i ? cuts[i] : "left"}`, same, holders, from: cuts[i], to: cuts[i + 1] });
  }
  return out;
}

function createSlice(slice) {
  const rows = slice.holders.map(({ kind, name, lent }) => make("span", `${colour(kind, name)}${lent ? " lent" : ""}`, make("b", "", name)));
  return make("div", "slice", ...rows);
}

function describe({ kind, name, lent }) {
  return `${kind}/${name}${lent ? " (lent)" : ""}`;
}

function drawLegend(devices, spans) {
  const seen = [...spans, ...devices.flatMap((device) => device.holders)];
  const holders = new Map(seen.map(({ kind, name }) => [`${kind}/${name}`, { kind, name }]));
  const items = [...holders.entries()].map(([key, holder]) => ({ key, ...holder }));
  items.sort((a, b) => b.kind.localeCompare(a.kind) || a.name.localeCompare(b.name));
  items.splice(LEGEND);
  if (spans.some((span) => span.lent)) items.push({ key: "lent" });
  mirror(legend, items, (item) => item.key, createEntry, () => {});
}

function createEntry({ key, kind, name }) {
  if (!kind) return make("li", "", make("span", "swatch lent plain"), "lent");
  return make("li", "", swatch(kind, name), make("span", "kind", `${kind} `), name);
}

for (let seconds = WINDOW_MS / 1000; seconds >= 0; seconds -= 30) {
  const minutes = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  axis.append(make("span", "", seconds ? `−${minutes}` : "now"));
}
