// Small tools for the document: elements from text (never from markup), keyed lists, words for figures,
// and a colour for each holder.

/** An element with a class and text or children. */
export function make(tag, className = "", ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/** Sets text only where it changed, so that selections and screen readers are left in peace. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `parent` mirror `items`: one element for each key, made once, updated every time,
 * in the order of the items. Items that share a key are told apart by their place among each other.
 */
export function mirror(parent, items, keyOf, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const twins = new Map();
  items.forEach((item, place) => {
    const name = keyOf(item);
    const twin = twins.get(name) ?? 0;
    twins.set(name, twin + 1);
    const key = twin ? `${name} #${twin}` : name;
    let element = known.get(key);
    known.delete(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
    update(element, item);
  });
  for (const gone of known.values()) gone.remove();
}

/** How long, in one unit. */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** A figure with as many digits as a glance takes in. */
export function figure(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  if (size >= 10) return value.toFixed(1);
  return size >= 0.001 ? value.toFixed(size >= 1 ? 2 : 4) : value.toExponential(1);
}

/** A device's name as a glance takes it in: of a driver's UUID the first part, as nvidia-smi and CUDA accept it. */
export function short(device) {
  return /^GPU-[0-9a-f]{8}-/i.test(device) ? device.slice(0, 12) : device;
}

const COLOURS = 6;
const colours = new Map();

/**
 * The class of a holder's colour, `model-N` or `job-N`. It follows from the name, moved on only where another
 * holder has it already, and stays while the page is open.
 */
export function colour(kind, name) {
  const key = `${kind}/${name}`;
  if (!colours.has(key)) {
    const taken = new Set(colours.values());
    let hash = 0;
    for (const c of key) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
    const candidates = Array.from({ length: COLOURS }, (_, i) => `${kind}-${(hash + i) % COLOURS}`);
    colours.set(key, candidates.find((c) => !taken.has(c)) ?? candidates[0]);
  }
  return colours.get(key);
}

/** A little square in a holder's colour. */
export function swatch(kind, name) {
  const element = make("span", `swatch ${colour(kind, name)}`);
  element.setAttribute("aria-hidden", "true");
  return element;
}
