// Elements of the page, which show any name as text.

// Control characters, and those of the category "format", which move others.
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;

/** An element with properties (attributes where the name has a hyphen) and children. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** Text from a log, with what is invisible written out, shortened in its middle. */
export function short(text, most = 60) {
  const escape = (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`;
  const shown = text.slice(0, 20000).replace(INVISIBLE, escape);
  if (shown.length <= most) return shown;
  const tail = Math.floor((most - 1) / 2);
  return `${shown.slice(0, most - 1 - tail)}…${shown.slice(-tail)}`;
}

/** An element that shows a name from a log, whatever it holds; more of it where one points. */
export function named(tag, text, most = 60) {
  const title = short(text, 500);
  return element(tag, { textContent: short(text, most), title, dir: "auto", className: "name" });
}

/** Text from a log as children of an element: what is between backticks is code. */
export function prose(text, most) {
  const parts = short(text, most).split("`");
  return parts.map((part, i) => (i % 2 ? element("code", { textContent: part }) : part));
}

/** Elements behind a line that unfolds them. */
export function folded(title, inside) {
  const line = element("summary", { textContent: title });
  line.onclick = (event) => event.stopPropagation();
  return element("details", {}, line, ...inside);
}

/** A paragraph. */
export const say = (text) => element("p", { textContent: text });

/** A function that is called once, some milliseconds after its last call. */
export function later(delay, call) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), delay);
  };
}
