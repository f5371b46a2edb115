// What the page shares with TensorBoard: the address, messages, the theme.

const PLUGIN = "initkit";
const PREFIX = `p.${PLUGIN}.`;
const LONGEST_LINK = 16000;

/** The window whose address people see: TensorBoard's, or our own where the page stands alone. */
function outer() {
  try {
    return parent.location.hash === undefined ? window : parent;
  } catch {
    return window;
  }
}

function hashParts() {
  return outer().location.hash.slice(1).split("&").filter(Boolean);
}

/** The state in the address: for each field what `read` makes of it, or its default. */
export function readLink(fields) {
  const state = Object.fromEntries(Object.entries(fields).map(([k, f]) => [k, f.otherwise]));
  for (const part of hashParts()) {
    const [key, ...rest] = part.split("=");
    const name = key.slice(PREFIX.length);
    if (!key.startsWith(PREFIX) || !Object.hasOwn(fields, name)) continue;
    try {
      state[name] = fields[name].read(decodeURIComponent(rest.join("=")));
    } catch {
      // A mangled part of a link: the default.
    }
  }
  return state;
}

/** Write what differs from the defaults to the address, beside what others keep there. */
export function writeLink(fields, state) {
  const others = hashParts().filter((part) => !part.startsWith(PREFIX));
  const embedded = outer() !== window;
  if (embedded && (others[0] ?? PLUGIN) !== PLUGIN) return; // another tab is in front
  if (embedded && !others.length) others.push(PLUGIN);
  const own = [];
  let length = 0;
  for (const [name, field] of Object.entries(fields)) {
    const value = field.write?.(state[name]) ?? String(state[name]);
    const part = `${PREFIX}${name}=${encodeURIComponent(value)}`;
    const isDefault = JSON.stringify(state[name]) === JSON.stringify(field.otherwise);
    if (isDefault || length + part.length > LONGEST_LINK) continue;
    own.push(part);
    length += part.length;
  }
  const hash = `#${[...others, ...own].join("&")}`;
  if (hash === (outer().location.hash || "#")) return;
  const viewOf = (parts) => parts.find((part) => part.startsWith(`${PREFIX}view=`));
  const how = viewOf(hashParts()) === viewOf(own) ? "replaceState" : "pushState";
  try {
    outer().history[how](outer().history.state, "", hash); // Back goes back a view
  } catch {
    // The page works without its address.
  }
}

/** TensorBoard's own filter of runs, a regular expression, as its address has it; "" for none. */
export function hostRunFilter() {
  return new URLSearchParams(outer().location.search).get("runFilter") ?? "";
}

/** Call back when TensorBoard has new data, and when someone changes the address. */
export function listen(onReload, onLink) {
  outer().addEventListener("hashchange", () => {
    if (hashParts().some((part) => part.startsWith(PREFIX))) onLink();
  });
  if (window.parent === window) return;
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = (event) => {
    let message;
    try {
      message = JSON.parse(event.data);
    } catch {
      return;
    }
    if (!message || message.isReply) return;
    const { type, id } = message;
    port1.postMessage(JSON.stringify({ type, id, payload: null, error: null, isReply: true }));
    if (type === "experimental.DataReloaded" || type === "experimental.RunsChanged") onReload();
  };
  window.parent.postMessage("experimental.bootstrap", "*", [port2]);
  port1.start();
}

/** "light" or "dark", as TensorBoard or else the system has it. */
export function themeNow() {
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  try {
    if (parent !== window) dark = parent.document.body.classList.contains("dark-mode");
  } catch {
    // A page of someone else around us: the system's theme.
  }
  return dark ? "dark" : "light";
}

/** Call back when the theme may have changed. */
export function watchTheme(onTheme) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onTheme);
  if (parent === window) return;
  try {
    const options = { attributes: true, attributeFilter: ["class"] };
    new MutationObserver(onTheme).observe(parent.document.body, options);
  } catch {
    // As above.
  }
}
