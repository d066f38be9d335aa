// Where the page's data comes from: server-sent events for the state and decisions, the timeline by request
// when somebody else holds a device. Reconnects for ever; whoever draws learns only of data and of silence.

/** How far back lanes and charts reach. */
export const WINDOW_MS = 180_000;

const SILENCE_MS = 4_000;
const RETRY_MS = 1_000;
const TIMELINE_MS = 5_000;
const DECISIONS = 14;

/**
 * Calls `on.state(state)`, `on.timeline(spans)`, `on.decisions(list, newest first)` and
 * `on.connection("live" | "down")`.
 */
export function follow(on) {
  let events = null;
  let heard = Date.now();
  let holders = "";
  let asked = 0;
  let decisions = [];

  async function get(path) {
    const response = await fetch(path, { headers: { accept: "application/json" } });
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.json();
  }

  async function timeline(now) {
    asked = Date.now();
    try {
      const { spans } = await get(`/api/v1/timeline?since=${Math.max(0, now - WINDOW_MS)}`);
      on.timeline(spans);
    } catch {
      asked = 0;
    }
  }

  function state(state) {
    heard = Date.now();
    on.connection("live");
    on.state(state);
    const held = JSON.stringify(state.devices.map((device) => device.holders.map((h) => [h.kind, h.name, h.lent])));
    if (held !== holders || heard - asked > TIMELINE_MS) timeline(state.now_ms);
    holders = held;
  }

  async function catchUp() {
    try {
      state(await get("/api/v1/state"));
      decisions = (await get("/api/v1/decisions")).reverse().slice(0, DECISIONS);
      on.decisions(decisions);
    } catch {
      on.connection("down");
    }
  }

  function connect() {
    events?.close();
    heard = Date.now();
    events = new EventSource("/api/v1/events");
    events.addEventListener("open", catchUp);
    events.addEventListener("state", (event) => state(JSON.parse(event.data)));
    events.addEventListener("decision", (event) => {
      decisions = [JSON.parse(event.data), ...decisions].slice(0, DECISIONS);
      on.decisions(decisions);
    });
    events.addEventListener("error", () => on.connection("down"));
  }

  connect();
  setInterval(() => {
    const silent = Date.now() - heard > SILENCE_MS;
    if (silent) on.connection("down");
    // The browser retries a broken stream by itself, but gives up on one that was answered with an error.
    if (silent || events.readyState === EventSource.CLOSED) connect();
  }, RETRY_MS);
}
