// The page: takes what the source says and has it drawn.

import { write } from "/page/dom.js";
import { draw as drawLanes } from "/page/lanes.js";
import { draw as drawPanels, drawDecisions } from "/page/panels.js";
import { follow } from "/page/source.js";

const WORDS = { live: "live", down: "control plane is down, inference goes on", token: "asks who you are" };

let last = null;
let spans = [];

function show(connection) {
  document.body.dataset.connection = connection;
  write(document.getElementById("connection"), WORDS[connection]);
  document.getElementById("token").hidden = connection !== "token";
}

const useToken = follow({
  state(state) {
    last = state;
    drawPanels(state);
    drawLanes(state.devices, spans, state.now_ms);
  },
  timeline(now) {
    spans = now;
    if (last) drawLanes(last.devices, spans, last.now_ms);
  },
  decisions: drawDecisions,
  connection: show,
  token(why) {
    show("token");
    write(document.getElementById("token-wrong"), why);
  },
});

const field = document.getElementById("token-text");

function enter() {
  if (!field.value.trim()) return;
  useToken(field.value.trim());
  field.value = "";
}

document.getElementById("token-use").addEventListener("click", enter);
field.addEventListener("keydown", (event) => event.key === "Enter" && enter());
