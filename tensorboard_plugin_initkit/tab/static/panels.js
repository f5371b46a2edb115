// What the page shows beside its controls: charts of the chosen runs, or their findings.

import { Chart } from "./chart.js";
import { element, named, say, short } from "./elements.js";
import { findingsTable } from "./findings.js";
import { themeNow } from "./host.js";
import { address, loadBokeh } from "./server.js";
import { VIEWS } from "./texts.js";
import { verdicts } from "./verdict.js";

// Pixels of the name and notes above a chart.
const CHART_HEAD = 90;
// As many runs have charts that fit the window.
const FEW = 2;

export class Panels {
  #state;
  #charts = new Map(); // by what they show
  #margin = 250; // width of a chart that axes and legends take
  #turns = 0;
  #ready = 0;
  drawn = Promise.resolve(); // kept when the last drawing is done
  #seen = null; // the place of a finding that the page was scrolled to
  #sentence = element("p");
  #help = element("details", { className: "help" },
    element("summary", { textContent: "What am I looking at?" }), this.#sentence);
  #verdicts = element("div", { className: "verdicts" });
  #notes = element("div", { className: "notes", role: "status" });
  #body = element("div", { className: "charts" });
  #table = element("div", { className: "findings" });

  constructor(state) {
    this.#state = state;
    const parts = [this.#verdicts, this.#help, this.#notes, this.#body, this.#table];
    this.element = element("div", { role: "tabpanel", id: "panel" }, ...parts);
  }

  /** Say that the server has not answered yet. */
  sayReading() {
    this.#notes.textContent = "reading…";
  }

  /** Set all texts and the table from the state. */
  sync() {
    const { view } = this.#state.choice;
    const usable = this.#state.server.runs.length > 0;
    this.element.setAttribute("aria-labelledby", `tab-${view}`);
    this.#sentence.textContent = VIEWS[view][1];
    this.#help.hidden = !usable;
    this.#verdicts.replaceChildren(...(usable ? verdicts(this.#state) : []));
    this.#notes.replaceChildren(...notes(this.#state));
    const table = view === "findings" && usable ? findingsTable(this.#state) : [];
    this.#table.replaceChildren(...table);
  }

  /** Draw what is not drawn yet. */
  draw() {
    this.drawn = this.#draw();
  }

  async #draw() {
    if (!innerHeight) return; // a hidden tab: it is resized when it is shown
    const turn = ++this.#turns;
    const { chosen } = this.#state;
    // The height of what stands above the charts, so that they fit.
    if (chosen.length <= FEW) await this.#state.loadInfos(chosen);
    if (turn !== this.#turns) return;
    const loaded = this.#state.loadInfos(this.#state.chosen);
    const plans = this.#state.server.problem ? [] : this.#plan();
    await Promise.all([loaded, ...this.#show(plans, loaded)]);
    if (turn !== this.#turns || this.#adjustMargin()) return;
    this.#showPlace();
    this.#ready += 1;
    document.body.dataset.ready = this.#ready;
  }

  /** The charts of the view: what they show and where it is asked. */
  #plan() {
    const { statistic, overlaid, chosen: runs } = this.#state;
    const { view, filter, how, first, last, low, high, ...choice } = this.#state.choice;
    const common = { statistic, filter, theme: themeNow(), height: runs.length <= FEW ? this.#height() : null };
    const stepwise = { ...common, how, first, last, columns: this.#columns(runs) };
    const one = (run, parameters) => ({ id: `${view}:${run.name}`, runs: [run], parameters });
    if (view === "map") {
      const maps = runs.map((run) => one(run, { ...stepwise, low, high }));
      if (choice.difference && runs.length > 1) {
        const pair = runs.slice(0, 2);
        maps.push({ id: "difference", view: "difference", runs: pair, parameters: stepwise });
      }
      return maps;
    }
    if (view === "lines") {
      const { layers: layer, smoothing } = choice;
      const names = runs.map((run) => run.name);
      return runs.map((run) => {
        const beside = names.filter((name) => name !== run.name);
        return one(run, { ...stepwise, layer, smoothing: smoothing || null, beside });
      });
    }
    if (view === "depth" && runs.length) {
      return [{ id: "depth", runs, parameters: { ...common, step: overlaid } }];
    }
    return [];
  }

  #sideBySide(runs) {
    return runs.length > 1 && this.#body.clientWidth >= 900;
  }

  /** Pixels from the first chart to the end of the window, as it is before one scrolls. */
  #height() {
    const { top } = this.#body.getBoundingClientRect();
    const scrolled = this.element.closest("main")?.scrollTop ?? 0;
    const room = innerHeight - top - scrolled - CHART_HEAD;
    return Math.max(300, Math.min(1400, Math.floor(room / 50) * 50));
  }

  /** As many columns as the chart has pixels: of more, the browser would leave some out. */
  #columns(runs) {
    const width = this.#body.clientWidth / (this.#sideBySide(runs) ? 2 : 1);
    const pixels = (width - this.#margin) * devicePixelRatio;
    return Math.max(50, Math.min(4000, Math.floor(pixels / 25) * 25));
  }

  #show(plans, loaded) {
    const { server, zoom, chosen, choice } = this.#state;
    const wanted = new Set(plans.map((item) => item.id));
    for (const [id, chart] of this.#charts) {
      if (wanted.has(id)) continue;
      chart.remove();
      this.#charts.delete(id);
    }
    const pairs = choice.view !== "depth" && this.#sideBySide(chosen);
    this.#body.classList.toggle("pairs", pairs);
    const library = plans.length ? loadBokeh(server.bokeh ?? "", choice.view === "depth") : null;
    library?.catch(() => {}); // each chart says it
    return plans.map(async ({ id, view, runs, parameters }) => {
      const known = this.#charts.get(id);
      const chart = known ?? new Chart(id, (span) => this.#zoomed(span), this.#stepped);
      this.#charts.set(id, chart);
      this.#body.append(chart.element);
      this.#describe(chart, runs, view);
      const names = runs.map((run) => run.name);
      const url = address("chart", { view: view ?? choice.view, run: names, ...parameters });
      chart.step = choice.step;
      const shown = chart.show(url, runs.map((run) => run.state), zoom, library);
      for (const more of [shown, loaded]) {
        await more;
        this.#describe(chart, runs, view);
      }
    });
  }

  #stepped = (step) => this.#state.set({ step });

  #zoomed(span) {
    const [first, last] = span ?? [null, null];
    this.#state.set({ first, last });
  }

  /** Title, download and notes of a chart. */
  #describe(chart, runs, view) {
    chart.head.replaceChildren(...this.#titles(runs, view));
    const [run] = runs;
    const info = this.#state.info(run);
    const about = runs.length > 1 ? [] : [extent(info), ...(info.notes ?? [])];
    const said = new Set([...about, ...chart.notes].filter(Boolean));
    const { place } = this.#state;
    if (!view && run.name === place?.run) said.add(`▲ ${place.message}`);
    chart.about.replaceChildren(...[...said].map(say));
  }

  /** Names of runs with tables; of several in one chart, whose legend names them, in small. */
  #titles(runs, view) {
    const { choice, statistic } = this.#state;
    const heading = (run) => {
      const name = named("h2", run.title);
      name.style.borderLeftColor = this.#state.colourOf(run);
      return name;
    };
    if (view === "difference") return [heading(runs[1]), "relative to", heading(runs[0])];
    const { filter, first, last } = choice;
    const table = (run, child) => {
      const title = `The values of ${short(run.title, 200)} by layer and step, as a table`;
      const href = address("csv", { run: run.name, statistic, first, last, filter });
      return element("a", { href, target: "_blank", title }, child);
    };
    const readable = runs.filter((run) => !this.#state.info(run).error);
    if (runs.length === 1) {
      return [heading(runs[0]), ...readable.map((run) => table(run, "CSV"))];
    }
    const tables = readable.map((run) => table(run, named("span", run.title)));
    return tables.length ? ["CSV:", ...tables] : [];
  }

  /** Whether a map turned out narrower than was thought, so that all are asked for again. */
  #adjustMargin() {
    if (this.#state.choice.view !== "map") return false;
    const widest = Math.max(0, ...[...this.#charts.values()].map((chart) => chart.margin));
    if (widest <= this.#margin) return false;
    this.#margin = Math.ceil(widest / 25) * 25;
    this.draw();
    return true;
  }

  /** Mark the finding that was clicked. */
  #showPlace() {
    const { place } = this.#state;
    const chart = place && this.#charts.get(`map:${place.run}`);
    if (!chart) return;
    const { layers = [] } = this.#state.info({ name: place.run });
    const shown = layers.filter((layer) => this.#state.passes(layer));
    chart.highlight(shown.findIndex((layer) => layer.path === place.layer), place.step);
    if (this.#seen !== place) chart.element.scrollIntoView({ block: "start" });
    this.#seen = place;
  }
}

function extent(info) {
  if (!info.layers) return "";
  const count = (number) => number.toLocaleString("en");
  const layers = `${count(info.layers.length)} ${info.layers.length === 1 ? "layer" : "layers"}`;
  if (info.records === 1) return `${layers}, one recorded step: ${count(info.first)}`;
  const thinned = info.thinned ? "; others were thinned out" : "";
  const [records, first, last] = [info.records, info.first, info.last].map(count);
  return `${layers}, ${records} recorded steps from ${first} to ${last}${thinned}`;
}

/** What has to be said besides the charts. */
function notes({ server, choice, chosen, listed, runFilter }) {
  const { problem } = server;
  const error = problem && element("p", { className: "error", role: "alert" }, problem);
  if (!server.runs.length) return problem ? [error] : emptyState(server);
  const names = new Set(server.runs.map((run) => run.name));
  const gone = (choice.runs ?? []).filter((name) => !names.has(name)).map((name) => short(name));
  const texts = [
    ...(server.notes ?? []),
    gone.length && `No longer in this log directory: ${gone.join(", ")}.`,
    !listed.length && `No run matches the regular expression ${short(runFilter)}.`,
    listed.length && !chosen.length && "Choose a run in the list.",
  ];
  return [error, ...texts.filter(Boolean).map(say)].filter(Boolean);
}

function emptyState(server) {
  const lines =
    "from keras_initkit.callbacks import GradientMonitor\n" +
    'model.fit(x, y, callbacks=[GradientMonitor("runs/first")])';
  return [
    element("h2", { textContent: "Nothing recorded yet" }),
    say(server.why ?? ""),
    say("These two lines log the gradients of a training:"),
    element("pre", { textContent: lines }),
    say("Then press TensorBoard's reload button, at the top right."),
  ];
}
