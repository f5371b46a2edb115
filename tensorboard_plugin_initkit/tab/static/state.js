// What is chosen, what the server knows, and what follows from both.

import { short } from "./elements.js";
import { hostRunFilter, readLink, themeNow, writeLink } from "./host.js";
import { address, ask } from "./server.js";
import { HOW, VIEWS } from "./texts.js";

const oneOf = (table) => (text) => {
  if (!Object.hasOwn(table, text)) throw new RangeError(text);
  return text;
};
const number = (text) => {
  if (!text.trim() || !Number.isFinite(Number(text))) throw new RangeError(text);
  return Number(text);
};
const whole = (text) => Math.round(number(text));
const strings = (text) => [...JSON.parse(text)].map(String);
const FIELDS = {
  view: { otherwise: "map", read: oneOf(VIEWS) },
  runs: { otherwise: null, read: strings, write: JSON.stringify },
  runFilter: { otherwise: null, read: String },
  statistic: { otherwise: null, read: String },
  how: { otherwise: "max", read: oneOf(HOW) },
  difference: { otherwise: false, read: (text) => text === "true" },
  low: { otherwise: null, read: number },
  high: { otherwise: null, read: number },
  first: { otherwise: null, read: whole },
  last: { otherwise: null, read: whole },
  filter: { otherwise: "", read: String },
  layers: { otherwise: [], read: strings, write: JSON.stringify },
  smoothing: { otherwise: 0, read: (text) => Math.min(0.99, Math.max(0, number(text))) },
  steps: { otherwise: "", read: String },
  step: { otherwise: null, read: whole },
};
// Milliseconds that the first chart waits for the verdicts.
const PATIENCE = 3000;
const LEVELS = ["error", "warning", "open", "healthy"];
// A finding that was clicked is marked until one of these is changed.
const ELSEWHERE = ["view", "runs", "filter", "statistic"];

export class State {
  #choice = readLink(FIELDS);
  #server = { runs: [], notes: [] };
  #first = ask("./runs").catch((error) => ({ runs: [], problem: error.message }));
  #place = null;
  #judged = null; // promise of the verdicts
  #verdicts = {}; // by run
  #worst = null; // what is shown as long as nobody chooses
  #infos = new Map(); // by run: answers to ./run
  #loads = new Map(); // by run: {state, promise} of these
  #onChange;
  #onInfo;

  /**
   * It asks the server for the runs at once.
   *
   * @param onChange - Called when something is to be shown anew.
   * @param onInfo - Called when more is known of a run.
   */
  constructor(onChange, onInfo) {
    this.#onChange = onChange;
    this.#onInfo = onInfo;
  }

  /** Wait for the server's first answer. */
  async start() {
    this.#server = await this.#first;
    const suspects = this.#server.runs.filter((run) => run.has_findings);
    if (this.#choice.runs || suspects.length < 2) return;
    await Promise.race([this.loadVerdicts(), new Promise((done) => setTimeout(done, PATIENCE))]);
  }

  /** Learn the verdicts on all runs, once. */
  loadVerdicts() {
    this.#judged ??= ask("./verdicts").then(
      (verdicts) => (this.#verdicts = verdicts),
      () => {}, // each run says it
    );
    return this.#judged;
  }

  /** The verdict on a run, as far as it is known: {level, text, fix}. */
  verdictOf(run) {
    return this.info(run).verdict ?? this.#verdicts[run.name];
  }

  /** Ask for the runs again. */
  async refresh() {
    try {
      this.#server = await ask("./runs");
    } catch (error) {
      this.#server = { ...this.#server, problem: error.message };
    }
    this.update();
  }

  /** Choose what the address says. */
  follow() {
    this.set(readLink(FIELDS));
  }

  /**
   * Change what is chosen.
   *
   * @param changes - Fields with their new values.
   * @param place - The finding that they lead to.
   */
  set(changes, place = null) {
    if (ELSEWHERE.some((key) => key in changes)) this.#place = place;
    Object.assign(this.#choice, changes);
    this.update();
  }

  /** Have all of it shown. */
  update() {
    writeLink(FIELDS, this.#choice);
    this.#onChange();
  }

  /** The fields of the address. */
  get choice() {
    return this.#choice;
  }

  /** The server's answer to ./runs. */
  get server() {
    return this.#server;
  }

  /** Of a finding that was clicked: {run, layer, step, message}; else null. */
  get place() {
    return this.#place;
  }

  /** The regular expression that filters runs; TensorBoard's own, as long as nobody sets another. */
  get runFilter() {
    return this.#choice.runFilter ?? hostRunFilter();
  }

  /** The runs that the filter leaves; none if it is no regular expression. */
  get listed() {
    try {
      const wanted = new RegExp(this.runFilter, "i");
      return this.#server.runs.filter((run) => wanted.test(run.name) || wanted.test(run.title));
    } catch {
      return [];
    }
  }

  /** The chosen runs that are listed; by default the one with the worst verdict. */
  get chosen() {
    const runs = this.listed;
    if (this.#choice.runs) return runs.filter((run) => this.#choice.runs.includes(run.name));
    this.#worst = runs.find((run) => run.name === this.#worst?.name) ?? this.#findWorst(runs);
    return this.#worst ? [this.#worst] : [];
  }

  #findWorst(runs) {
    const rank = (run) => LEVELS.indexOf(this.verdictOf(run)?.level ?? "open");
    const candidates = runs.filter((run) => run.has_findings);
    return candidates.sort((a, b) => rank(a) - rank(b))[0] ?? runs[0];
  }

  /** Whether the run that is shown was not chosen by anyone. */
  get isWorstShown() {
    return !this.#choice.runs && this.#server.runs.length > 1;
  }

  /** The colour of a run, which is that in TensorBoard's own dashboards. */
  colourOf(run) {
    return run.colour[themeNow()];
  }

  get statistic() {
    return this.#choice.statistic ?? "signal";
  }

  /** [first, last] of the steps that are seen; null for all. */
  get zoom() {
    const { first, last } = this.#choice;
    return first === null || last === null ? null : [first, last];
  }

  /** Steps that are laid over each other. */
  get overlaid() {
    return this.#choice.steps.match(/\d+/g) ?? [];
  }

  /** What is known of a run: {} as long as that is nothing, {error} if it cannot be read. */
  info(run) {
    return this.#infos.get(run.name) ?? {};
  }

  /** The findings of a run. */
  foundIn(run) {
    return this.info(run).findings ?? [];
  }

  /** The findings of a run that are more than notes. */
  faultsIn(run) {
    return this.foundIn(run).filter((finding) => finding.severity !== "note");
  }

  /** The layers of the chosen runs. */
  get knownLayers() {
    const layers = this.chosen.flatMap((run) => this.info(run).layers ?? []);
    return [...new Map(layers.map((layer) => [layer.path, layer])).values()];
  }

  /** Whether the filter leaves a layer. */
  passes(layer) {
    const text = `${layer.path}\n${layer.type ?? ""}`.toLowerCase();
    const words = this.#choice.filter.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => text.includes(word));
  }

  /** Ask what is known of runs, once for each state of theirs. */
  loadInfos(runs) {
    return Promise.all(runs.map((run) => {
      const known = this.#loads.get(run.name);
      if (known?.state === run.state) return known.promise;
      const promise = this.#loadInfo(run);
      this.#loads.set(run.name, { state: run.state, promise });
      return promise;
    }));
  }

  async #loadInfo(run) {
    try {
      this.#infos.set(run.name, await ask(address("run", { run: run.name })));
    } catch (error) {
      this.#infos.set(run.name, { error: error.message });
      const { state } = this.#loads.get(run.name);
      if (state === run.state) this.#loads.delete(run.name); // the next time it is asked again
    }
    this.#onInfo();
  }

  /** Show where on the map a finding is. */
  goTo(run, finding) {
    const { first, last, records, layers } = this.info(run);
    const reach = Math.ceil(Math.max(0.05 * (last - first), (10 * (last - first)) / records));
    const around = finding.step ?? first; // a model before its training
    const span = [Math.max(first, around - reach), Math.min(last, around + reach)];
    const layer = layers.find((l) => l.path === finding.layer);
    const filter = !layer || this.passes(layer) ? this.#choice.filter : "";
    const { layer: path, step, message } = finding;
    const place = { run: run.name, layer: path, step, message: short(message, 500) };
    const seen = { first: span[0], last: span[1] };
    this.set({ view: "map", runs: [run.name], filter, ...seen }, place);
  }
}
