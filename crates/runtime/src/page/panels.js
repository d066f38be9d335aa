// Models as cards, jobs as rows, decisions as sentences, queues as bars, and the figures at the top.

import { createChart, drawChart, forgetOthers, remember } from "/page/chart.js";
import { colour, figure, make, mirror, span, swatch, write } from "/page/dom.js";

const byId = (id) => document.getElementById(id);

/** Draws everything that a state says beside the lanes. */
export function draw(state) {
  drawFigures(state);
  mirror(byId("models"), state.models, (model) => model.name, createModel, (card, model) => updateModel(card, model, state.now_ms));
  mirror(byId("jobs"), state.jobs, (job) => job.name, createJob, (row, job) => updateJob(row, job, state.now_ms));
  mirror(byId("queues"), state.queues, (queue) => queue.name, createQueue, (bar, queue) => updateQueue(bar, queue, state.devices.length));
  drawLeftOut(state.left_out ?? { devices: 0, jobs: 0 });
  forgetOthers(new Set([...state.models.flatMap(({ name }) => [`rate/${name}`, `p99/${name}`]), ...state.jobs.map(({ name }) => `metric/${name}`)]));
}

/** Of a large cluster not everything is shown. */
function drawLeftOut({ devices, jobs }) {
  write(byId("more-devices"), devices ? `${devices.toLocaleString("en")} more GPUs are not shown` : "");
  write(byId("more-jobs"), jobs ? `${jobs.toLocaleString("en")} more jobs are not shown` : "");
}

function drawFigures({ devices, models, jobs, now_ms, started_ms, eviction_cap_reached, left_out }) {
  const busy = devices.filter((device) => device.holders.length).length;
  const lent = devices.filter((device) => device.holders.some((holder) => holder.lent)).length;
  const rate = models.reduce((sum, model) => sum + model.arrival_per_s, 0);
  const running = jobs.filter((job) => job.phase === "running").length;
  const missed = models.reduce((sum, model) => sum + model.refused + model.late + model.failed, 0);
  const figures = [
    ["GPUs held", `${busy} of ${devices.length}${left_out?.devices ? " shown" : ""}`],
    ["lent", `${lent}`],
    ["requests/s", figure(rate)],
    ["refused or late", figure(missed)],
    ["jobs running", `${running} of ${jobs.length}`],
    ["up", span(now_ms - started_ms)],
  ];
  if (eviction_cap_reached) figures.push(["evictions", "at the cap"]);
  mirror(byId("figures"), figures, ([label]) => label, ([label]) => make("div", "", make("dt", "", label), make("dd")),
    (element, [, value]) => write(element.lastChild, value));
}

function chip(phase) {
  const element = make("span", "chip", phase);
  element.dataset.phase = phase;
  return element;
}

function setChip(element, phase) {
  write(element, phase);
  element.dataset.phase = phase;
}

function createModel({ name }) {
  const chart = (className, label) => {
    const head = make("div", "measure", make("span", "label", label), make("span", "value"), make("span", "unit"));
    return make("figure", className, head, createChart(`${label} of ${name} over the last three minutes`));
  };
  const head = make("div", "head", swatch("model", name), make("h3", "", name), chip(""), make("span", "replicas"));
  const card = make("article", `card ${colour("model", name)}`, head, make("div", "charts", chart("rate", "requests"), chart("p99", "p99")), make("p", "reason"));
  card.dataset.model = name;
  return card;
}

function updateModel(card, model, now) {
  const part = (selector) => card.querySelector(selector);
  setChip(part(".chip"), model.phase);
  write(part(".replicas"), replicas(model));
  write(part(".rate .value"), figure(model.arrival_per_s));
  write(part(".rate .unit"), "/s");
  drawChart(part(".rate .chart"), remember(`rate/${model.name}`, now, model.arrival_per_s), now);
  const measured = model.p99_ms > 0;
  write(part(".p99 .value"), measured ? figure(model.p99_ms) : "–");
  write(part(".p99 .unit"), `ms, SLO ${model.slo_ms.toLocaleString("en")} ms`);
  part(".p99").classList.toggle("late", model.p99_ms > model.slo_ms);
  const p99 = remember(`p99/${model.name}`, now, measured ? model.p99_ms : null);
  drawChart(part(".p99 .chart"), p99, now, { limit: model.slo_ms });
  write(part(".reason"), model.reason);
}

function replicas({ ready, starting, draining, wanted, queued, held, mean_batch }) {
  const parts = [`${ready} ready`];
  if (starting) parts.push(`${starting} starting`);
  if (draining) parts.push(`${draining} draining`);
  parts.push(`${wanted} wanted`);
  if (queued + held) parts.push(`${queued + held} queued`);
  if (mean_batch > 0) parts.push(`batch ${mean_batch.toFixed(1)}`);
  return parts.join(" · ");
}

function createJob({ name }) {
  const title = make("th", "", make("span", "name", swatch("job", name), name), make("small", "queue"));
  title.scope = "row";
  const metric = make("td", "metric", make("div", "", make("span", "value"), createChart(`metric of ${name}`)));
  const row = make("tr", colour("job", name), title, make("td", "", chip("")), make("td", "workers"), make("td", "figure step"), metric, make("td", "reason"));
  row.dataset.job = name;
  return row;
}

function updateJob(row, job, now) {
  const part = (selector) => row.querySelector(selector);
  row.dataset.phase = job.phase;
  write(part(".queue"), job.priority ? `${job.queue}, priority ${job.priority}` : job.queue);
  setChip(part(".chip"), job.phase);
  drawWorkers(part(".workers"), job);
  const kept = job.checkpoint_step ? `kept ${job.checkpoint_step.toLocaleString("en")}` : "";
  const done = typeof job.done === "number" ? ` (${Math.floor(job.done * 100)} %)` : "";
  mirror(part(".step"), [["span", `${job.step.toLocaleString("en")}${done}`], ["small", kept]], ([tag]) => tag, ([tag]) => make(tag), (e, [, text]) => write(e, text));
  const [metric] = Object.entries(job.metrics);
  write(part(".metric .value"), metric ? `${metric[0]} ${figure(metric[1])}` : "");
  if (metric) drawChart(part(".chart"), remember(`metric/${job.name}`, now, metric[1]), now, { fit: true });
  const failures = job.failures ? ` (${job.failures} failures)` : "";
  const start = job.eta ? `; expected to start ${job.eta.text}` : "";
  write(part(".reason"), `${job.reason}${failures}${start}`);
}

/** A box for each worker that the job could have; more than a dozen are a figure. */
function drawWorkers(cell, { workers, min, max }) {
  const text = min === max ? `${workers} of ${max}` : `${workers} of ${min} to ${max}`;
  cell.setAttribute("aria-label", text);
  cell.title = text;
  const boxes = max <= 12 ? Array.from({ length: max }, (_, i) => i) : [];
  const items = [...boxes.map((i) => ({ key: `${i}`, box: i })), { key: "text", text: boxes.length ? `${workers}/${max}` : text }];
  mirror(cell, items, (item) => item.key, (item) => make("span", item.text === undefined ? "box" : "count"), (element, item) => {
    if (item.text !== undefined) return write(element, item.text);
    element.classList.toggle("held", item.box < workers);
    element.classList.toggle("needed", item.box < min);
  });
}

function createQueue({ name }) {
  const bar = make("div", "bar", make("span", "own"), make("span", "used"), make("span", "borrowed"));
  const element = make("div", "quota", make("strong", "", name), bar, make("span", "text"));
  element.dataset.queue = name;
  return element;
}

function updateQueue(element, { parent, nominal, borrowing_limit, used, lent }, devices) {
  const whole = Math.max(devices, nominal, used, 1);
  const own = Math.max(0, Math.min(used, used - lent));
  const set = (selector, from, to) => {
    const part = element.querySelector(selector);
    part.style.left = `${(from / whole) * 100}%`;
    part.style.width = `${((to - from) / whole) * 100}%`;
  };
  set(".own", 0, nominal);
  set(".used", 0, own);
  set(".borrowed", own, used);
  const limit = borrowing_limit === null || borrowing_limit === undefined ? "" : `, may borrow ${borrowing_limit}`;
  const below = parent ? `below ${parent}: ` : "";
  write(element.querySelector(".text"), `${below}${used} used of ${nominal} own${lent ? `, ${lent} lent to it` : ""}${limit}`);
}

/** The last decisions, newest first. */
export function drawDecisions(decisions) {
  const key = (d) => `${d.at_ms} ${d.subject} ${d.action} ${d.detail}`;
  mirror(byId("decisions"), decisions, key, createDecision, () => {});
}

function createDecision({ at_ms, action, subject, detail, reason, category }) {
  const time = make("time", "", new Date(at_ms).toLocaleTimeString("en-GB"));
  time.dateTime = new Date(at_ms).toISOString();
  const [kind, ...name] = subject.split("/");
  const what = make("span", "what", swatch(kind, name.join("/")), `${action.replaceAll("_", " ")} `, make("strong", "", name.join("/")), detail ? ` ${detail}` : "");
  const item = make("li", "", time, make("div", "", what, make("p", "reason", reason)));
  item.dataset.category = category;
  return item;
}
