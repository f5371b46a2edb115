// The controls: built once, then set from the state, which they change.

import { element, later, named, short } from "./elements.js";
import { HOW, SIGNS, STATISTICS, VIEWS } from "./texts.js";

const MOST_LISTED = 500;
const MANY_RUNS = 8;

const button = (text, onclick) => element("button", { type: "button", onclick }, text);
const box = (className, ...children) => element("div", { className }, ...children);
const hint = () => element("p", { className: "hint" });
const labelled = (text, input, ...more) =>
  element("div", { className: "control" }, element("label", {}, text, input), ...more);
const group = (title, ...children) =>
  element("fieldset", {}, element("legend", {}, ...title), ...children);
const search = (placeholder, oninput) =>
  element("input", { type: "search", placeholder, "aria-label": placeholder, oninput });

export class Controls {
  #state;
  #parts = {}; // elements that are set from the state
  #controls; // by the views that have them
  #tabs;

  /** It makes `sidebar` and `tablist`, to be put on the page. */
  constructor(state) {
    this.#state = state;
    this.#controls = this.#build();
    this.sidebar = this.#makeSidebar();
    this.tablist = this.#makeTablist();
  }

  #build() {
    const set = (changes) => this.#state.set(changes);
    const all = button("all", () => set({ runs: this.#state.listed.map((run) => run.name) }));
    const none = button("none", () => set({ runs: [] }));
    const runFilter = search("filter runs (regex)", later(200, () => {
      set({ runFilter: runFilter.value });
    }));
    const runs = box("list");
    const worst = element("p", { className: "hint" }, "Shown: the run with the worst verdict.");
    const runBox = group(["Runs ", all, " ", none], runFilter, runs, worst);

    const span = element("span");
    const statistic = element("select", {
      onchange: (event) => set({ statistic: event.target.value, low: null, high: null }),
    });
    const statisticHint = hint();
    const how = element("select", { onchange: (event) => set({ how: event.target.value }) });
    how.append(...Object.keys(HOW).map((name) => new Option(name, name)));
    const howHint = hint();
    const difference = element("input", {
      type: "checkbox",
      onchange: (event) => set({ difference: event.target.checked }),
    });
    const [low, high] = ["low", "high"].map((key) => this.#makeBound(key));
    const filter = search("name or type", later(300, () => set({ filter: filter.value })));
    const onsteps = (event) => this.#setSteps(event.target);
    const steps = element("input", { placeholder: "0, 100, 1000", onchange: onsteps });
    const stepsHint = element("p", { className: "hint" }, "Leave empty to use the slider.");
    const smoothing = element("input", {
      type: "range",
      min: 0,
      max: 0.99,
      step: 0.01,
      oninput: later(150, () => set({ smoothing: Number(smoothing.value) })),
    });
    const smoothingValue = element("output");
    const layers = box("list");
    const layersHint = hint();

    const showAll = button("show all", () => set({ first: null, last: null }));
    const reset = button("reset", () => set({ low: null, high: null }));
    const evenly = button("default", () => set({ layers: [] }));
    const zoom = box("control", span, " ", showAll);
    const pair = labelled("", difference);
    pair.firstChild.append(" difference between the first two runs");
    Object.assign(this.#parts, { runFilter, runs, worst, span, zoom, pair, statistic, statisticHint });
    Object.assign(this.#parts, { how, howHint, difference, low, high, filter, steps });
    Object.assign(this.#parts, { smoothing, smoothingValue, layers, layersHint });
    return [
      [Object.keys(VIEWS), runBox],
      [["map", "lines"], zoom],
      [["map", "depth", "lines"], labelled("Statistic", statistic, statisticHint)],
      [["map", "lines"], labelled("When a column covers several steps, show", how, howHint)],
      [["map"], pair],
      [["map"], group(["Colour range"], low, " to ", high, " ", reset)],
      [["map", "depth", "lines"], labelled("Filter layers", filter)],
      [["depth"], labelled("Overlay steps", steps, stepsHint)],
      [["lines"], labelled("Smoothing", smoothing, smoothingValue)],
      [["lines"], group(["Layers ", evenly], layers, layersHint)],
    ];
  }

  #makeBound(key) {
    const onchange = (event) => this.#setNumber(event.target, key);
    return element("input", { inputMode: "decimal", size: 5, "aria-label": key, onchange });
  }

  #makeSidebar() {
    const controls = this.#controls.map(([, control]) => control);
    const settings = element("div", { id: "settings" }, ...controls);
    // It is open at first where there is room for it.
    const toggle = button("Runs and settings", () => {
      const turned = sidebar.classList.toggle("turned");
      toggle.setAttribute("aria-expanded", turned === narrow.matches);
      this.#state.update();
    });
    const narrow = matchMedia("(max-width: 860px)");
    toggle.className = "toggle";
    toggle.setAttribute("aria-controls", "settings");
    toggle.setAttribute("aria-expanded", !narrow.matches);
    const sidebar = element("aside", { "aria-label": "Runs and settings" }, toggle, settings);
    return sidebar;
  }

  #makeTablist() {
    this.#tabs = Object.entries(VIEWS).map(([view, [title]]) => {
      const tab = button(title, () => this.#state.set({ view }));
      tab.id = `tab-${view}`;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", "panel");
      return tab;
    });
    this.#parts.badge = element("span", { className: "badge" });
    this.#tabs.at(-1).append(" ", this.#parts.badge);
    const onkeydown = (event) => this.#moveTab(event);
    const looks = { role: "tablist", "aria-label": "Views", onkeydown };
    return element("div", looks, ...this.#tabs);
  }

  #moveTab(event) {
    const count = this.#tabs.length;
    const at = this.#tabs.indexOf(document.activeElement);
    const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 };
    if (!Object.hasOwn(places, event.key)) return;
    event.preventDefault();
    const tab = this.#tabs[(places[event.key] + count) % count];
    tab.focus();
    tab.click();
  }

  #setNumber(input, key) {
    const text = input.value.trim();
    const wrong = text !== "" && !Number.isFinite(Number(text));
    input.setCustomValidity(wrong ? "Write a number, such as 1e-6." : "");
    if (!input.reportValidity()) return;
    this.#state.set({ [key]: text === "" ? null : Number(text) });
  }

  #setSteps(input) {
    const wrong = !/^[\s,;\d]*$/.test(input.value);
    input.setCustomValidity(wrong ? "Write whole numbers, such as 0, 100, 1000." : "");
    if (input.reportValidity()) this.#state.set({ steps: input.value.trim() });
  }

  /** Set all controls from the state. */
  sync() {
    const parts = this.#parts;
    const { choice, zoom, chosen: runs } = this.#state;
    for (const tab of this.#tabs) {
      const selected = tab.id === `tab-${choice.view}`;
      tab.setAttribute("aria-selected", selected);
      tab.tabIndex = selected ? 0 : -1;
    }
    const found = runs.reduce((sum, run) => sum + this.#state.faultsIn(run).length, 0);
    parts.badge.textContent = found || "";
    parts.badge.title = found ? `Findings in the chosen runs: ${found}` : "";

    for (const [views, control] of this.#controls) control.hidden = !views.includes(choice.view);
    parts.zoom.hidden ||= !zoom;
    parts.pair.hidden ||= runs.length < 2;
    parts.span.textContent = zoom ? `Steps ${zoom.map((step) => step.toLocaleString("en")).join(" to ")}` : "";
    this.#syncRuns();
    this.#syncStatistics(runs);
    this.#syncLayers();
    parts.how.value = choice.how;
    parts.howHint.textContent = `${choice.how} ${HOW[choice.how]}.`;
    parts.difference.checked = choice.difference;
    parts.smoothing.value = choice.smoothing;
    parts.smoothingValue.textContent = choice.smoothing || "none";
    for (const key of ["low", "high", "filter", "steps"]) {
      if (document.activeElement !== parts[key]) parts[key].value = choice[key] ?? "";
    }
  }

  #syncRuns() {
    const selected = new Set(this.#state.chosen.map((run) => run.name));
    const { runFilter: input } = this.#parts;
    const { runFilter, listed } = this.#state;
    input.hidden = !runFilter && this.#state.server.runs.length <= MANY_RUNS;
    if (document.activeElement !== input) input.value = runFilter;
    input.setAttribute("aria-invalid", !listed.length);
    const rows = listed.map((run) => {
      const row = checkRow(run.title, run.name, selected, (names) => this.#state.set({ runs: names }));
      row.style.borderLeftColor = this.#state.colourOf(run);
      row.ondblclick = () => this.#state.set({ runs: [run.name] }); // as in TensorBoard
      row.append(element("span", { className: "mark" }));
      return row;
    });
    replaceRows(this.#parts.runs, rows);
    this.#parts.worst.hidden = !this.#state.isWorstShown;
    this.markRuns();
  }

  /** Put the signs of the verdicts into the list of runs. */
  markRuns() {
    for (const [i, run] of this.#state.listed.entries()) {
      const verdict = this.#state.verdictOf(run);
      if (!verdict) continue;
      const [sign, word] = SIGNS[verdict.level];
      // Not as text: that of the row is the name of the run.
      const looks = { title: `${word}: ${short(verdict.text, 400)}`, "data-sign": sign };
      const mark = element("span", { ...looks, role: "img", "aria-label": word });
      mark.className = `mark ${verdict.level}`;
      this.#parts.runs.children[i]?.lastChild.replaceWith(mark);
    }
  }

  #syncLayers() {
    const { choice, knownLayers } = this.#state;
    if (choice.view !== "lines") return;
    const passing = knownLayers.filter((layer) => this.#state.passes(layer));
    const selected = new Set(choice.layers);
    const rows = passing.slice(0, MOST_LISTED).map((layer) =>
      checkRow(layer.path, layer.path, selected, (paths) => this.#state.set({ layers: paths })),
    );
    replaceRows(this.#parts.layers, rows);
    const hints = [
      !choice.layers.length && "None chosen: ten are shown, evenly spaced from input to output.",
      passing.length > MOST_LISTED &&
        `${MOST_LISTED} of ${passing.length.toLocaleString("en")} are listed: filter to see others.`,
    ];
    this.#parts.layersHint.textContent = hints.filter(Boolean).join(" ");
  }

  #syncStatistics(runs) {
    const { statistic: select, statisticHint, low, high } = this.#parts;
    const current = this.#state.statistic;
    const known = runs.flatMap((run) => this.#state.info(run).statistics ?? []);
    const titles = new Map([[current, current], ...known.map(({ name, title }) => [name, title])]);
    const options = [...titles].map(([name, title]) => new Option(title, name));
    const same = options.length === select.length;
    if (!same || options.some((option, i) => !option.isEqualNode(select.options[i]))) {
      select.replaceChildren(...options);
    }
    select.value = current;
    statisticHint.textContent = STATISTICS[current] ?? "";
    const scale = known.find(({ name }) => name === current) ?? {};
    low.placeholder = scale.low ?? "low";
    high.placeholder = scale.high ?? "high";
  }
}

/** A row of a list with a box; `choose` is called with the keys that are selected then. */
function checkRow(title, key, selected, choose) {
  const check = element("input", { type: "checkbox", checked: selected.has(key) });
  check.dataset.key = key.slice(0, 500);
  check.onchange = () => {
    if (check.checked) selected.add(key);
    else selected.delete(key);
    choose([...selected]);
  };
  return element("label", {}, check, named("span", title, 48));
}

/** New rows in a list, with the focus and the place that it had. */
function replaceRows(list, rows) {
  const { activeElement } = document;
  const focused = list.contains(activeElement) && activeElement.dataset.key;
  const top = list.scrollTop;
  list.replaceChildren(...rows);
  list.scrollTop = top;
  const boxes = [...list.querySelectorAll("input")];
  if (focused !== false) boxes.find((item) => item.dataset.key === focused)?.focus();
}
