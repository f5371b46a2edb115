// The tab: its state, and the controls and panels that show it and change nothing else.

import { Controls } from "./controls.js";
import { element, later } from "./elements.js";
import { listen, themeNow, watchTheme } from "./host.js";
import { Panels } from "./panels.js";
import { preloadBokeh } from "./server.js";
import { State } from "./state.js";

const state = new State(update, sync);
const controls = new Controls(state);
const panels = new Panels(state);
const heading = element("h1", { className: "unseen", textContent: "Gradient flow" });
const main = element("main", {}, heading, controls.tablist, panels.element);
const page = element("div", { className: "page bare" }, controls.sidebar, main);

/** What TensorBoard calls. */
export async function render() {
  document.documentElement.lang = "en";
  document.title = "Gradient flow";
  const style = element("link", { rel: "stylesheet", href: "./static/style.css" });
  const styled = new Promise((resolve) => (style.onload = style.onerror = resolve));
  document.head.append(style);
  preloadBokeh();
  setTheme();
  await styled;
  document.body.append(page);
  const timer = setTimeout(() => panels.sayReading(), 150);
  await state.start();
  clearTimeout(timer);
  listen(() => state.refresh(), () => state.follow());
  watchTheme(() => state.update());
  addEventListener("resize", later(250, () => state.update()));
  state.update();
  await panels.drawn; // the charts come first
  await state.loadVerdicts();
  controls.markRuns();
}

function update() {
  sync();
  panels.draw();
}

/** Set all but the charts from the state. */
function sync() {
  setTheme();
  page.classList.toggle("bare", !state.server.runs.length);
  controls.sync();
  panels.sync();
}

function setTheme() {
  document.body.classList.toggle("dark", themeNow() === "dark");
}
