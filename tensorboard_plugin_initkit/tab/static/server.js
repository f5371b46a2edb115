// What is asked of the server: answers in JSON, and the scripts of Bokeh.

import { element } from "./elements.js";

/** Address of a route with parameters; those that are null are left out, lists are repeated. */
export function address(route, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const item of [value].flat()) if (item !== null && item !== "") query.append(name, item);
  }
  return `./${route}?${query}`;
}

/** Ask the server; its own sentence is the error's message. */
export async function ask(url, signal) {
  let answer;
  try {
    answer = await fetch(url, { signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("TensorBoard does not answer. Is it still running?");
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok && content) return content;
  throw new Error(content?.error ?? `TensorBoard answered ${answer.status}. Its terminal says why.`);
}

const scripts = new Map();

function loadScript(url) {
  if (!scripts.has(url)) {
    const loaded = new Promise((resolve, reject) => {
      const failed = () => {
        scripts.delete(url);
        reject(new Error("Bokeh's script could not be loaded from TensorBoard. Reload the page."));
      };
      document.head.append(element("script", { src: url, onload: resolve, onerror: failed }));
    });
    scripts.set(url, loaded);
  }
  return scripts.get(url);
}

/** Bokeh's own JavaScript, from the package that the server has. */
export async function loadBokeh(version, widgets) {
  try {
    localStorage.setItem("initkit.bokeh", version);
  } catch {
    // It is only sooner there with it.
  }
  const query = `?v=${encodeURIComponent(version)}`;
  await loadScript(`./static/bokeh.min.js${query}`);
  if (widgets) await loadScript(`./static/bokeh-widgets.min.js${query}`);
}

/** The version is not known before the server's first answer; it is most likely that of before. */
export function preloadBokeh() {
  let version = null;
  try {
    version = localStorage.getItem("initkit.bokeh");
  } catch {
    return;
  }
  if (!version) return;
  const href = `./static/bokeh.min.js?v=${encodeURIComponent(version)}`;
  document.head.append(element("link", { rel: "preload", as: "script", href }));
}
