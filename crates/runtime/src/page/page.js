// The page: takes what the source says and has it drawn.

import { write } from "/page/dom.js";
import { draw as drawLanes } from "/page/lanes.js";
import { draw as drawPanels, drawDecisions } from "/page/panels.js";
import { follow } from "/page/source.js";

const WORDS = { live: "live", down: "control plane is down, inference goes on" };

let last = null;
let spans = [];

follow({
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
  connection(connection) {
    document.body.dataset.connection = connection;
    write(document.getElementById("connection"), WORDS[connection]);
  },
});
