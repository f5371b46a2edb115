// The tab: what is chosen (`state`), and from it the controls, the charts and the address.

import { ask, Chart, element, loadBokeh, named, short } from "./chart.js";
import { listen, readLink, themeNow, watchTheme, writeLink } from "./host.js";

const VIEWS = {
  map: [
    "Map",
    "Each row is a layer, the input at the bottom and the output at the top; each column is a " +
      "training step. The gradient comes from the output: rows that get darker downwards say " +
      "that it dies on its way, rows that get brighter that it blows up.",
  ],
  depth: [
    "Depth",
    "Each point is a layer, the input on the left and the output on the right, where the " +
      "gradient comes from. A line that falls to the left vanishes on its way to the input, one " +
      "that rises to the left explodes, a level one is healthy.",
  ],
  lines: [
    "Lines",
    "Each line is a layer over the training, with loss and learning rate below. Lines far apart " +
      "learn at different speeds; one that falls away or ends has stopped learning.",
  ],
  findings: [
    "Findings",
    "What the monitor found wrong while the network trained, the earliest first. Click a row to " +
      "see its place on the map.",
  ],
};
const STATISTICS = {
  signal: "What comes back to the units of a layer: by this layers are compared.",
  rms: "A typical element of the layer's gradient, so that large and small layers compare.",
  norm: "The length of the layer's whole gradient.",
  mean_abs: "The mean size of the gradient's elements.",
  max_abs: "The largest element of the gradient.",
  raw_norm: "The length of the gradient before it is clipped.",
  clip_ratio: "What clipping leaves of the gradient: 1 is all of it.",
  local_norm: "The length of one replica's gradient.",
  weight_norm: "The size of the layer's weights.",
  update_ratio: "How far a step moves the weights, relative to their size.",
  zeros: "The part of the gradient that is exactly zero.",
  nonfinite: "How many elements are NaN or infinite.",
  dead_units: "The part of the units that no sample of the batch has activated.",
  cosine: "Whether the gradient keeps its direction: 1 the same, 0 unrelated, -1 turned back.",
  snr: "How much of the gradient is signal: below 1 it is mostly noise.",
};
const HOW = {
  max: "keeps a spike of one step, and hides a layer that is dead for a while",
  min: "keeps a layer that is dead for one step, and hides spikes",
  mean: "shows the level, and flattens what lasts for one step",
};
const MOST_LISTED = 500;
const MANY_RUNS = 8;

const oneOf = (table) => (text) => {
  if (!Object.hasOwn(table, text)) throw new RangeError(text);
  return text;
};
const number = (text) => {
  if (!text.trim() || !Number.isFinite(Number(text))) throw new RangeError(text);
  return Number(text);
};
const strings = (text) => [...JSON.parse(text)].map(String);
const FIELDS = {
  view: { otherwise: "map", read: oneOf(VIEWS) },
  runs: { otherwise: null, read: strings, write: JSON.stringify },
  statistic: { otherwise: null, read: String },
  how: { otherwise: "max", read: oneOf(HOW) },
  difference: { otherwise: false, read: (text) => text === "true" },
  low: { otherwise: null, read: number },
  high: { otherwise: null, read: number },
  first: { otherwise: null, read: (text) => Math.round(number(text)) },
  last: { otherwise: null, read: (text) => Math.round(number(text)) },
  filter: { otherwise: "", read: String },
  layers: { otherwise: [], read: strings, write: JSON.stringify },
  smoothing: { otherwise: 0, read: (text) => Math.min(0.99, Math.max(0, number(text))) },
  steps: { otherwise: "", read: String },
};

const firstAnswer = ask("./runs").catch((error) => ({ runs: [], problem: error.message }));
let state = readLink(FIELDS);
let server = { runs: [], notes: [] };
let place = null; // of a finding that was clicked: {run, layer, step, message}
let margin = 250; // width of a chart that axes and legends take
let turns = 0;
let ready = 0;
const infos = new Map(); // by run: answers to ./run
const loads = new Map(); // by run: {state, promise} of these
const charts = new Map(); // by what they show
const page = {}; // elements

/** What TensorBoard calls. */
export async function render() {
  document.documentElement.lang = "en";
  const style = element("link", { rel: "stylesheet", href: "./static/style.css" });
  const styled = new Promise((resolve) => (style.onload = style.onerror = resolve));
  document.head.append(style);
  preloadBokeh();
  build();
  document.body.classList.toggle("dark", themeNow() === "dark");
  await styled;
  document.body.append(page.root);
  const timer = setTimeout(() => (page.notes.textContent = "reading…"), 150);
  server = await firstAnswer;
  clearTimeout(timer);
  listen(refresh, () => set(readLink(FIELDS)));
  watchTheme(update);
  addEventListener("resize", later(250, update));
  update();
}

/** The version is not known before the server's first answer; it is most likely that of before. */
function preloadBokeh() {
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

function bokeh(widgets) {
  try {
    localStorage.setItem("initkit.bokeh", server.bokeh);
  } catch {
    // It is only sooner there with it.
  }
  return loadBokeh(server.bokeh ?? "", widgets);
}

async function refresh() {
  try {
    server = await ask("./runs");
  } catch (error) {
    server = { ...server, problem: error.message };
  }
  update();
}

/** Change what is chosen. */
function set(changes) {
  if (place && ["view", "runs", "filter", "statistic"].some((key) => key in changes)) place = null;
  Object.assign(state, changes);
  update();
}

function update() {
  writeLink(FIELDS, state);
  sync();
  draw();
}

function later(delay, call) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), delay);
  };
}

// What follows from the state.

/** The chosen runs, in the order of the server; by default the first one with findings. */
function chosen() {
  const { runs } = server;
  if (state.runs) return runs.filter((run) => state.runs.includes(run.name));
  const first = runs.find((run) => run.has_findings) ?? runs[0];
  return first ? [first] : [];
}

function statistic() {
  return state.statistic ?? "signal";
}

function zoom() {
  return state.first === null || state.last === null ? null : [state.first, state.last];
}

const words = () => state.filter.toLowerCase().split(/\s+/).filter(Boolean);

function passes(layer) {
  const text = `${layer.path}\n${layer.type ?? ""}`.toLowerCase();
  return words().every((word) => text.includes(word));
}

function knownLayers() {
  const layers = chosen().flatMap((run) => infos.get(run.name)?.layers ?? []);
  return [...new Map(layers.map((layer) => [layer.path, layer])).values()];
}

function foundIn(run) {
  return infos.get(run.name)?.findings ?? [];
}

function overlaid() {
  return state.steps.match(/\d+/g) ?? [];
}

/** Address of a route with parameters; those that are null are left out, lists are repeated. */
function address(route, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const item of [value].flat()) if (item !== null && item !== "") query.append(name, item);
  }
  return `./${route}?${query}`;
}

function csvAddress(run) {
  const { filter, first, last } = state;
  return address("csv", { run: run.name, statistic: statistic(), first, last, filter });
}

/** The charts of the view: what they show and where it is asked. */
function plan() {
  const { view, filter, how, first, last, low, high } = state;
  const runs = chosen();
  const common = { statistic: statistic(), filter, theme: themeNow() };
  const stepwise = { ...common, how, first, last, columns: columns(runs) };
  const one = (run, parameters) => ({ id: `${view}:${run.name}`, runs: [run], parameters });
  if (view === "map") {
    const maps = runs.map((run) => one(run, { ...stepwise, low, high }));
    if (state.difference && runs.length > 1) {
      const pair = runs.slice(0, 2);
      maps.push({ id: "difference", view: "difference", runs: pair, parameters: stepwise });
    }
    return maps;
  }
  if (view === "lines") {
    const { layers: layer, smoothing } = state;
    return runs.map((run) => one(run, { ...stepwise, layer, smoothing: smoothing || null }));
  }
  if (view === "depth" && runs.length) {
    return [{ id: "depth", runs, parameters: { ...common, step: overlaid() } }];
  }
  return [];
}

const sideBySide = (runs) => runs.length > 1 && page.charts.clientWidth >= 1100;

/** As many columns as the chart has pixels: of more, the browser would leave some out. */
function columns(runs) {
  const width = page.charts.clientWidth / (sideBySide(runs) ? 2 : 1);
  const pixels = (width - margin) * devicePixelRatio;
  return Math.max(50, Math.min(4000, Math.floor(pixels / 25) * 25));
}

// The panel.

async function draw() {
  if (!innerHeight) return; // a hidden tab: it is resized when it is shown
  const turn = ++turns;
  const runs = chosen();
  const loaded = loadInfos(runs);
  await Promise.all([loaded, ...show(server.problem ? [] : plan())]);
  if (turn !== turns || adjustMargins()) return;
  showPlace();
  ready += 1;
  document.body.dataset.ready = ready;
}

function show(plans) {
  const wanted = new Set(plans.map((item) => item.id));
  for (const [id, chart] of charts) {
    if (wanted.has(id)) continue;
    chart.remove();
    charts.delete(id);
  }
  page.charts.classList.toggle("pairs", state.view !== "depth" && sideBySide(chosen()));
  const library = plans.length ? bokeh(state.view === "depth") : null;
  library?.catch(() => {}); // each chart says it
  return plans.map(async ({ id, view, runs, parameters }) => {
    const known = charts.get(id);
    const chart = known ?? new Chart(id, zoomed);
    charts.set(id, chart);
    page.charts.append(chart.element);
    describe(chart, runs, view);
    const names = runs.map((run) => run.name);
    const url = address("chart", { view: view ?? state.view, run: names, ...parameters });
    await chart.show(url, runs.map((run) => run.state), zoom(), library);
    describe(chart, runs, view);
  });
}

function zoomed(span) {
  const [first, last] = span ?? [null, null];
  set({ first, last });
}

/** Title, download and notes of a chart. */
function describe(chart, runs, view) {
  chart.head.replaceChildren(...(view === "difference" ? pairTitle(runs) : titles(runs)));
  const [run] = runs;
  const about = runs.length > 1 ? [] : [extent(run), ...(infos.get(run.name)?.notes ?? [])];
  const notes = new Set([...about, ...chart.notes].filter(Boolean));
  if (!view && run.name === place?.run) notes.add(`▲ ${place.message}`);
  chart.about.replaceChildren(...[...notes].map(say));
}

const pairTitle = ([a, b]) => [named("h2", b.title), "relative to", named("h2", a.title)];

/** Names of runs with their tables; of several in one chart, whose legend names them, in small. */
function titles(runs) {
  const table = (run, child) => {
    const title = `Values of the layers of ${short(run.title, 200)}, as a table`;
    return element("a", { href: csvAddress(run), target: "_blank", title }, child);
  };
  if (runs.length === 1) return [named("h2", runs[0].title), table(runs[0], "CSV")];
  return ["CSV:", ...runs.map((run) => table(run, named("span", run.title)))];
}

function extent(run) {
  const info = infos.get(run.name);
  if (!info?.layers) return "";
  const layers = `${info.layers.length} ${info.layers.length === 1 ? "layer" : "layers"}`;
  if (info.records === 1) return `${layers}, one recorded step: ${info.first}`;
  const thinned = info.thinned ? ", of a longer record that was thinned" : "";
  return `${layers}, ${info.records} recorded steps from ${info.first} to ${info.last}${thinned}`;
}

/** Whether a map turned out narrower than was thought, so that all are asked for again. */
function adjustMargins() {
  if (state.view !== "map") return false;
  const widest = Math.max(0, ...[...charts.values()].map((chart) => chart.margin));
  if (widest <= margin) return false;
  margin = Math.ceil(widest / 25) * 25;
  draw();
  return true;
}

/** Ask what is known of runs, once for each state of theirs. */
function loadInfos(runs) {
  return Promise.all(runs.map((run) => {
    const known = loads.get(run.name);
    if (known?.state === run.state) return known.promise;
    const promise = loadInfo(run);
    loads.set(run.name, { state: run.state, promise });
    return promise;
  }));
}

async function loadInfo(run) {
  const url = address("run", { run: run.name });
  infos.set(run.name, await ask(url).catch((error) => ({ error: error.message })));
  sync();
}

/** Mark the finding that was clicked. */
function showPlace() {
  const chart = place && charts.get(`map:${place.run}`);
  if (!chart) return;
  const layers = infos.get(place.run).layers.filter(passes);
  const row = layers.findIndex((layer) => layer.path === place.layer);
  chart.highlight(row, place.step);
  if (!place.shown) chart.element.scrollIntoView({ block: "start" });
  place.shown = true;
}

/** Show where on the map a finding is. */
function goTo(run, finding) {
  const { first, last, records } = infos.get(run.name);
  const reach = Math.ceil(Math.max(0.05 * (last - first), (10 * (last - first)) / records));
  const span = [Math.max(first, finding.step - reach), Math.min(last, finding.step + reach)];
  const layer = infos.get(run.name).layers.find((l) => l.path === finding.layer);
  const filter = !layer || passes(layer) ? state.filter : "";
  set({ view: "map", runs: [run.name], filter, first: span[0], last: span[1] });
  const { layer: path, step, message } = finding;
  place = { run: run.name, layer: path, step, message: short(message, 500) };
}

function findingsTable() {
  const runs = chosen();
  const found = runs.flatMap((run) => foundIn(run).map((finding) => ({ run, finding })));
  found.sort((a, b) => a.finding.step - b.finding.step);
  const errors = runs.flatMap((run) => {
    const error = infos.get(run.name)?.error;
    return error ? [element("p", { className: "error" }, named("b", run.title), ` ${error}`)] : [];
  });
  if (!found.length) {
    const known = runs.length > 0 && runs.every((run) => infos.get(run.name)?.findings);
    return known ? [say("Nothing was found wrong.")] : errors;
  }
  const several = runs.length > 1;
  const titles = ["Step", "What", ...(several ? ["Run"] : []), "Layer", "Finding", "Evidence"];
  const heads = titles.map((title) => element("th", { scope: "col", textContent: title }));
  const body = found.map(({ run, finding }) => findingRow(run, finding, several));
  const head = element("thead", {}, element("tr", {}, ...heads));
  return [...errors, element("table", {}, head, element("tbody", {}, ...body))];
}

function findingRow(run, finding, several) {
  const cell = (...children) => element("td", {}, ...children);
  const text = (content) => element("div", { textContent: short(content, 600), dir: "auto" });
  const { kind, layer, step, message } = finding;
  const evidence = Object.entries(finding.evidence).map(([name, value]) => `${name} = ${value}`);
  const more = ["cause", "fix"].filter((key) => finding[key]);
  const row = element(
    "tr",
    { tabIndex: 0, title: "Show its place on the map" },
    cell(String(step)),
    cell(short(kind.replaceAll("_", " "))),
    ...(several ? [cell(named("span", run.title, 40))] : []),
    cell(layer ? named("span", layer, 40) : "all"),
    cell(text(message), ...more.map((key) => text(`${key}: ${finding[key]}`))),
    cell(...evidence.map(text)),
  );
  row.onclick = () => getSelection().isCollapsed && goTo(run, finding);
  row.onkeydown = (event) => event.key === "Enter" && goTo(run, finding);
  return row;
}

// The controls: built once, then set from the state.

function build() {
  const button = (text, onclick) => element("button", { type: "button", onclick }, text);
  const labelled = (text, input, ...more) =>
    element("div", { className: "control" }, element("label", {}, text, input), ...more);
  const box = (className, ...children) => element("div", { className }, ...children);
  const group = (title, ...children) =>
    element("fieldset", {}, element("legend", {}, ...title), ...children);
  const hint = () => element("p", { className: "hint" });
  const search = (placeholder, oninput) =>
    element("input", { type: "search", placeholder, "aria-label": placeholder, oninput });
  const bound = (key) => {
    const onchange = (event) => setNumber(event.target, key);
    return element("input", { inputMode: "decimal", size: 5, "aria-label": key, onchange });
  };

  const listed = () => server.runs.filter(matchesRunFilter).map((run) => run.name);
  const all = button("all", () => set({ runs: listed() }));
  const none = button("none", () => set({ runs: [] }));
  page.runFilter = search("filter runs", () => syncRuns());
  page.runs = box("list");
  page.runBox = group(["Runs ", all, " ", none], page.runFilter, page.runs);

  page.span = element("span");
  page.statistic = element("select", {
    onchange: (event) => set({ statistic: event.target.value, low: null, high: null }),
  });
  page.statisticHint = hint();
  page.how = element("select", { onchange: (event) => set({ how: event.target.value }) });
  page.how.append(...Object.keys(HOW).map((how) => new Option(how, how)));
  page.howHint = hint();
  page.difference = element("input", {
    type: "checkbox",
    onchange: (event) => set({ difference: event.target.checked }),
  });
  page.low = bound("low");
  page.high = bound("high");
  page.filter = search("name or type", later(300, () => set({ filter: page.filter.value })));
  page.steps = element("input", { placeholder: "0, 100, 1000", onchange: setSteps });
  const stepsHint = element("p", { className: "hint" }, "Empty: one step, with a slider.");
  page.smoothing = element("input", {
    type: "range",
    min: 0,
    max: 0.99,
    step: 0.01,
    oninput: later(150, () => set({ smoothing: Number(page.smoothing.value) })),
  });
  page.smoothingValue = element("output");
  page.layers = box("list");
  page.layersHint = hint();

  const showAll = button("show all", () => set({ first: null, last: null }));
  const reset = button("reset", () => set({ low: null, high: null }));
  const evenly = button("default", () => set({ layers: [] }));
  page.zoom = box("control", page.span, " ", showAll);
  page.pair = labelled("", page.difference);
  page.pair.firstChild.append(" difference of the first two runs");
  page.controls = [
    [["map", "lines"], page.zoom],
    [["map", "depth", "lines"], labelled("Statistic", page.statistic, page.statisticHint)],
    [["map", "lines"], labelled("Several records in one column show", page.how, page.howHint)],
    [["map"], page.pair],
    [["map"], group(["Range of the colours"], page.low, " to ", page.high, " ", reset)],
    [["map", "depth", "lines"], labelled("Layers with", page.filter)],
    [["depth"], labelled("Steps to lay over each other", page.steps, stepsHint)],
    [["lines"], labelled("Smoothing", page.smoothing, page.smoothingValue)],
    [["lines"], group(["Layers ", evenly], page.layers, page.layersHint)],
  ];

  const controls = page.controls.map(([, control]) => control);
  const settings = element("div", { id: "settings" }, page.runBox, ...controls);
  const toggle = button("Runs and settings", () => {
    toggle.setAttribute("aria-expanded", sidebar.classList.toggle("open"));
  });
  toggle.className = "toggle";
  toggle.setAttribute("aria-controls", "settings");
  toggle.setAttribute("aria-expanded", "false");
  const sidebar = element("aside", { "aria-label": "Runs and settings" }, toggle, settings);

  page.tabs = Object.entries(VIEWS).map(([view, [title]]) => {
    const tab = button(title, () => set({ view }));
    tab.id = `tab-${view}`;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "panel");
    return tab;
  });
  page.badge = element("span", { className: "badge" });
  page.tabs.at(-1).append(" ", page.badge);
  const tablist = element("div", { role: "tablist", "aria-label": "Views" }, ...page.tabs);
  tablist.onkeydown = moveTab;
  page.sentence = element("p", { className: "sentence" });
  page.notes = element("div", { className: "notes", role: "status" });
  page.charts = box("charts");
  page.table = box("findings");
  const parts = [page.sentence, page.notes, page.charts, page.table];
  page.panel = element("div", { role: "tabpanel", id: "panel" }, ...parts);
  const main = element("main", {}, tablist, page.panel);
  page.root = element("div", { className: "page bare" }, sidebar, main);
}

function moveTab(event) {
  const count = page.tabs.length;
  const at = page.tabs.indexOf(document.activeElement);
  const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 };
  if (!Object.hasOwn(places, event.key)) return;
  event.preventDefault();
  const tab = page.tabs[(places[event.key] + count) % count];
  tab.focus();
  tab.click();
}

function setNumber(input, key) {
  const text = input.value.trim();
  const wrong = text !== "" && !Number.isFinite(Number(text));
  input.setCustomValidity(wrong ? "Write a number, such as 1e-6." : "");
  if (!input.reportValidity()) return;
  set({ [key]: text === "" ? null : Number(text) });
}

function setSteps(event) {
  const wrong = !/^[\s,;\d]*$/.test(event.target.value);
  event.target.setCustomValidity(wrong ? "Write whole numbers, such as 0, 100, 1000." : "");
  if (event.target.reportValidity()) set({ steps: event.target.value.trim() });
}

/** Set all controls and texts from the state. */
function sync() {
  document.body.classList.toggle("dark", themeNow() === "dark");
  const { view } = state;
  const runs = chosen();
  const usable = server.runs.length > 0;
  page.root.classList.toggle("bare", !usable);
  for (const tab of page.tabs) {
    const selected = tab.id === `tab-${view}`;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
  }
  page.panel.setAttribute("aria-labelledby", `tab-${view}`);
  const found = runs.reduce((sum, run) => sum + foundIn(run).length, 0);
  page.badge.textContent = found || "";
  page.badge.title = found ? `${found} in the chosen runs` : "";
  page.sentence.textContent = usable ? VIEWS[view][1] : "";
  page.notes.replaceChildren(...notes(runs));
  page.table.replaceChildren(...(view === "findings" && usable ? findingsTable() : []));

  for (const [views, control] of page.controls) control.hidden = !views.includes(view);
  page.zoom.hidden ||= !zoom();
  page.pair.hidden ||= runs.length < 2;
  page.span.textContent = zoom() ? `Steps ${state.first} to ${state.last}` : "";
  syncRuns();
  syncStatistics(runs);
  syncLayers();
  page.how.value = state.how;
  page.howHint.textContent = `${state.how} ${HOW[state.how]}.`;
  page.difference.checked = state.difference;
  page.smoothing.value = state.smoothing;
  page.smoothingValue.textContent = state.smoothing || "none";
  for (const key of ["low", "high", "filter", "steps"]) {
    if (document.activeElement !== page[key]) page[key].value = state[key] ?? "";
  }
}

function matchesRunFilter(run) {
  return run.title.toLowerCase().includes(page.runFilter.value.toLowerCase());
}

function syncRuns() {
  const selected = new Set(chosen().map((run) => run.name));
  page.runFilter.hidden = server.runs.length <= MANY_RUNS;
  const rows = server.runs.filter(matchesRunFilter).map((run) =>
    checkRow(run.title, run.name, selected, (names) => set({ runs: names })),
  );
  replaceRows(page.runs, rows);
}

function syncLayers() {
  if (state.view !== "lines") return;
  const passing = knownLayers().filter(passes);
  const selected = new Set(state.layers);
  const rows = passing.slice(0, MOST_LISTED).map((layer) =>
    checkRow(layer.path, layer.path, selected, (paths) => set({ layers: paths })),
  );
  replaceRows(page.layers, rows);
  const hints = [
    !state.layers.length && "None is chosen: ten are shown, evenly from input to output.",
    passing.length > MOST_LISTED && `${MOST_LISTED} of ${passing.length} are listed: filter them.`,
  ];
  page.layersHint.textContent = hints.filter(Boolean).join(" ");
}

function checkRow(title, key, selected, choose) {
  const box = element("input", { type: "checkbox", checked: selected.has(key) });
  box.dataset.key = key.slice(0, 500);
  box.onchange = () => {
    if (box.checked) selected.add(key);
    else selected.delete(key);
    choose([...selected]);
  };
  return element("label", {}, box, named("span", title, 48));
}

/** New rows in a list, with the focus and the place that it had. */
function replaceRows(list, rows) {
  const { activeElement } = document;
  const focused = list.contains(activeElement) && activeElement.dataset.key;
  const top = list.scrollTop;
  list.replaceChildren(...rows);
  list.scrollTop = top;
  const boxes = [...list.querySelectorAll("input")];
  if (focused !== false) boxes.find((box) => box.dataset.key === focused)?.focus();
}

function syncStatistics(runs) {
  const current = statistic();
  const known = runs.flatMap((run) => infos.get(run.name)?.statistics ?? []);
  const titles = new Map([[current, current], ...known.map(({ name, title }) => [name, title])]);
  const options = [...titles].map(([name, title]) => new Option(title, name));
  const same = options.length === page.statistic.length;
  if (!same || options.some((option, i) => !option.isEqualNode(page.statistic.options[i]))) {
    page.statistic.replaceChildren(...options);
  }
  page.statistic.value = current;
  page.statisticHint.textContent = STATISTICS[current] ?? "";
  const { low, high } = known.find(({ name }) => name === current) ?? {};
  page.low.placeholder = low ?? "low";
  page.high.placeholder = high ?? "high";
}

const say = (text) => element("p", { textContent: text });

/** What has to be said besides the charts. */
function notes(runs) {
  const { problem } = server;
  const error = problem && element("p", { className: "error", role: "alert" }, problem);
  if (!server.runs.length) return problem ? [error] : emptyState();
  const names = new Set(server.runs.map((run) => run.name));
  const gone = (state.runs ?? []).filter((name) => !names.has(name)).map((name) => short(name));
  const texts = [
    ...(server.notes ?? []),
    gone.length && `Not in this log directory any more: ${gone.join(", ")}.`,
    !runs.length && "Choose a run in the list.",
  ];
  return [error, ...texts.filter(Boolean).map(say)].filter(Boolean);
}

function emptyState() {
  const lines =
    "from keras_initkit.callbacks import GradientMonitor\n" +
    'model.fit(x, y, callbacks=[GradientMonitor("runs/first")])';
  return [
    element("h2", { textContent: "There is no record to show" }),
    say(server.why ?? ""),
    say("These two lines log the gradients of a training:"),
    element("pre", { textContent: lines }),
    say("Then press TensorBoard's reload button, at the top on the right."),
  ];
}
