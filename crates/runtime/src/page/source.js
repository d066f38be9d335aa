// Where the page's data comes from. Of `tidegate up`: server-sent events for the state and decisions, the timeline by request when
// somebody else holds a device. Of an operator, which answers those who have a token: the same by requests. Tries again for ever;
// whoever draws learns only of data, of silence, and that a token is asked for.

/** How far back lanes and charts reach. */
export const WINDOW_MS = 180_000;

const SILENCE_MS = 4_000;
const RETRY_MS = 1_000;
const POLL_MS = 2_000;
const TIMELINE_MS = 5_000;
const DECISIONS = 14;

// Of this tab, until it is closed.
const TOKEN = "tidegate-token";

class Refused extends Error {}

/**
 * Calls `on.state(state)`, `on.timeline(spans)`, `on.decisions(list, newest first)`, `on.connection("live" | "down")` and
 * `on.token(why)` when a token is needed. Returns a function that takes one.
 */
export function follow(on) {
  let events = null;
  let heard = Date.now();
  let holders = "";
  let asked = 0;
  let decisions = [];
  // "begin": it is not known how this server answers. "stream", "poll": how it does. "token": it waits for one.
  let mode = "begin";
  let busy = false;
  let polled = 0;

  async function get(path) {
    const headers = { accept: "application/json" };
    const token = sessionStorage.getItem(TOKEN);
    if (token) headers.authorization = `Bearer ${token}`;
    const response = await fetch(path, { headers });
    if (response.status === 401 || response.status === 403) throw new Refused(token ? await response.text() : "");
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

  /** Everything by requests, once. */
  async function catchUp() {
    if (busy) return;
    busy = true;
    try {
      state(await get("/api/v1/state"));
      decisions = (await get("/api/v1/decisions")).reverse().slice(0, DECISIONS);
      on.decisions(decisions);
      polled = Date.now();
      if (mode === "begin") mode = sessionStorage.getItem(TOKEN) ? "poll" : "stream";
      if (mode === "stream" && !events) connect();
    } catch (error) {
      if (error instanceof Refused) {
        mode = "token";
        on.token(error.message);
      } else {
        on.connection("down");
      }
    }
    busy = false;
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

  catchUp();
  setInterval(() => {
    if (mode === "begin" || (mode === "poll" && Date.now() - polled > POLL_MS)) catchUp();
    if (mode !== "stream") return;
    const silent = Date.now() - heard > SILENCE_MS;
    if (silent) on.connection("down");
    // The browser retries a broken stream by itself, but gives up when it was answered with an error.
    if (silent || events?.readyState === EventSource.CLOSED) connect();
  }, RETRY_MS);

  return (token) => {
    sessionStorage.setItem(TOKEN, token);
    mode = "begin";
    catchUp();
  };
}
