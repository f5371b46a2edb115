// A chart: asked from the server, drawn by Bokeh, given new data where only the data changed.

import { element, later } from "./elements.js";
import { ask } from "./server.js";

const ZOOM_DELAY = 200;
const BUSY_DELAY = 150;

const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

/** Take a document off Bokeh's list of all that it ever made. */
function forget(doc) {
  const place = Bokeh.documents.indexOf(doc);
  if (place >= 0) Bokeh.documents.splice(place, 1);
}

/** All elements below one, in the shadow of others as well. */
function* everything(root) {
  for (const node of root.querySelectorAll("*")) {
    yield node;
    if (node.shadowRoot) yield* everything(node.shadowRoot);
  }
}

export class Chart {
  #live = null; // {doc, views, key, range}
  #signature = "";
  #abort = new AbortController();
  #shown = Promise.resolve();
  #queue = Promise.resolve(); // one drawing after the other
  #timer = 0;
  #silent = false;
  #drawn = 0;
  #entered = false; // by a click: the wheel zooms until the mouse leaves
  #onZoom;
  #onStep;
  #step = null;
  notes = []; // what the server says of it

  /**
   * `onZoom([first, last])` is called when someone has zoomed the steps; with null: to all.
   * `onStep(step)` is called when someone has moved a slider; with null: to where it began.
   */
  constructor(id, onZoom, onStep) {
    this.#onZoom = onZoom;
    this.#onStep = later(ZOOM_DELAY, onStep);
    this.head = element("div", { className: "chart-head" });
    this.about = element("div", { className: "about" });
    this.body = element("div", { className: "chart-body" });
    this.busy = element("span", { className: "busy", role: "status" });
    const bar = element("div", { className: "chart-bar" }, this.head, this.busy);
    this.element = element("section", { className: "chart" }, bar, this.about, this.body);
    this.element.dataset.chart = id;
    this.body.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !this.#entered) event.stopPropagation(); // it scrolls the page
    }, { capture: true, passive: true });
    this.body.addEventListener("pointerdown", () => (this.#entered = true));
    this.body.addEventListener("pointerleave", () => (this.#entered = false));
  }

  /** The step that a slider is to show; null for that at which it began. */
  set step(step) {
    this.#step = step;
    this.#slide();
  }

  #slide() {
    const slider = this.#live?.slider;
    if (!slider) return;
    const place = this.#step === null
      ? this.#live.begin
      : slider.tags.findLastIndex((step) => step <= this.#step);
    this.#silent = true;
    slider.value = Math.max(0, place);
    this.#silent = false;
  }

  /**
   * Show what a URL answers.
   *
   * @param url - Of the chart.
   * @param stamp - Changes when the same URL would answer something else.
   * @param span - [first, last] of the visible steps, or null for all.
   * @param ready - Promise of Bokeh.
   * @returns A promise that is kept when it is drawn, or was given up for a newer one.
   */
  show(url, stamp, span, ready) {
    const signature = JSON.stringify([url, stamp]);
    if (signature === this.#signature) return this.#shown;
    this.#signature = signature;
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#zoomTo(span);
    this.#shown = this.#show(url, span, ready, this.#abort.signal);
    return this.#shown;
  }

  async #show(url, span, ready, signal) {
    const timer = setTimeout(() => (this.busy.textContent = "reading…"), BUSY_DELAY);
    this.element.setAttribute("aria-busy", "true");
    try {
      const [answer] = await Promise.all([ask(url, signal), ready]);
      const draw = () => signal.aborted || this.#draw(answer, span);
      this.#queue = this.#queue.catch(() => {}).then(draw);
      await this.#queue;
    } catch (error) {
      if (!signal.aborted) this.fail(error.message);
    } finally {
      clearTimeout(timer);
      if (!signal.aborted) {
        this.busy.textContent = "";
        this.element.removeAttribute("aria-busy");
      }
    }
  }

  async #draw(answer, span) {
    const same = this.#live && this.#live.key === answer.key;
    if (!same || !this.#swap(answer.item, span)) await this.#embed(answer);
    this.notes = answer.notes ?? [];
    await nextFrame();
    await nextFrame();
    this.#mark();
  }

  #mark() {
    this.#drawn += 1;
    this.element.dataset.drawn = this.#drawn;
  }

  /** Give the chart that is there the data of a new one of the same structure. */
  #swap(item, span) {
    const { doc, range } = this.#live;
    const fresh = doc.constructor.from_json(item.doc); // Bokeh 3.4 has no other way to the class
    forget(fresh);
    const sources = [...fresh.all_models].filter((model) => model.name?.startsWith("data-"));
    const pairs = sources.map((source) => [doc.get_model_by_name(source.name), source]);
    if (!pairs.length || pairs.some(([here]) => !here)) return false;
    for (const [here, source] of pairs) here.data = source.data;
    const [old, figure] = [doc, fresh].map((d) => d.get_model_by_name("steps"));
    if (old?.title && figure?.title) old.title.text = figure.title.text;
    if (range && figure) {
      this.#setRange({ bounds: figure.x_range.bounds });
      if (!span && !this.#timer) this.#zoomTo(null);
    }
    return true;
  }

  async #embed(answer) {
    const host = element("div");
    this.body.style.minHeight = `${this.body.offsetHeight}px`; // the page does not jump
    this.#release();
    this.body.replaceChildren(host);
    const views = await Bokeh.embed.embed_item(answer.item, host);
    const doc = views.roots[0].model.document;
    this.#live = { doc, views, key: answer.key };
    if (!doc.is_idle) await new Promise((resolve) => doc.idle.connect(() => resolve()));
    this.body.style.minHeight = "";
    for (const node of everything(this.body)) { // Bokeh gives its slider no name
      if (node.role === "slider") node.setAttribute("aria-label", "Step");
    }
    this.#watch();
    this.#watchSlider();
  }

  #watchSlider() {
    const slider = this.#live.doc.get_model_by_name("step");
    if (!slider) return;
    Object.assign(this.#live, { slider, begin: slider.value });
    slider.properties.value.change.connect(() => {
      if (this.#silent) return;
      this.#step = slider.value === this.#live.begin ? null : slider.tags[slider.value];
      this.#onStep(this.#step);
    });
    this.#slide();
  }

  /** Report the zoom, and have Bokeh's reset button show everything. */
  #watch() {
    const range = this.#live.doc.get_model_by_name("steps")?.x_range;
    if (!Array.isArray(range?.bounds)) return;
    this.#live.range = range;
    this.#setRange({ bounds: range.bounds });
    const changed = () => {
      if (this.#silent) return;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => {
        this.#timer = 0;
        this.#onZoom(this.span);
      }, ZOOM_DELAY);
    };
    range.properties.start.change.connect(changed);
    range.properties.end.change.connect(changed);
  }

  #setRange(changes) {
    const { bounds } = changes;
    this.#silent = true;
    if (Array.isArray(bounds)) [changes.reset_start, changes.reset_end] = bounds;
    this.#live.range.setv(changes);
    this.#silent = false;
  }

  /** [first, last] of the steps that are visible, or null if all are. */
  get span() {
    const { start, end, bounds } = this.#live?.range ?? {};
    if (!bounds) return null;
    const slack = 1e-6 * (bounds[1] - bounds[0]);
    if (start <= bounds[0] + slack && end >= bounds[1] - slack) return null;
    return [Math.max(0, Math.floor(start)), Math.ceil(end)];
  }

  #zoomTo(span) {
    const range = this.#live?.range;
    if (!range || JSON.stringify(span) === JSON.stringify(this.span)) return;
    const [start, end] = span ?? range.bounds;
    this.#setRange({ start, end });
  }

  /** Width of the page that the axes and legends of the chart take. */
  get margin() {
    const figure = this.#live?.doc.get_model_by_name("steps");
    return figure?.inner_width ? this.body.clientWidth - figure.inner_width : 0;
  }

  /** Draw a line at a step of the map, a frame around a layer (-1: none), and show it. */
  highlight(row, step) {
    const figure = this.#live?.doc.get_model_by_name("steps");
    const mark = `${row} ${step}`;
    if (!figure || this.#live.mark === mark) return;
    this.#live.mark = mark;
    const [Box, Span] = ["BoxAnnotation", "Span"].map((name) => Bokeh.Models.get(name));
    // White on black: seen on every colour of the map.
    const looks = [
      { line_color: "black", line_width: 4 },
      { line_color: "white", line_width: 2 },
    ];
    const spans = looks.map(
      (look) => new Span({ location: step, dimension: "height", line_dash: [6, 4], ...look }),
    );
    const frame = { bottom: row - 0.5, top: row + 0.5, fill_alpha: 0, line_alpha: 1 };
    const boxes = row < 0 ? [] : looks.map((look) => new Box({ ...frame, ...look }));
    // At once: to add one while the view of another is made fails.
    figure.setv({ center: [...figure.center, ...spans, ...boxes] });
    const { start, end } = figure.y_range;
    if (row < 0 || end - start <= 60) return;
    figure.y_range.setv({ start: Math.max(start, row - 15), end: Math.min(end, row + 15) });
  }

  fail(message) {
    this.#release();
    this.#signature = ""; // the next time it is asked again
    this.notes = [];
    this.body.replaceChildren(element("p", { className: "error", role: "alert" }, message));
    this.#mark();
  }

  #release() {
    clearTimeout(this.#timer);
    clearInterval(window.initkit_timer); // of a player
    this.#timer = 0;
    if (!this.#live) return;
    this.#live.views.clear();
    forget(this.#live.doc);
    this.#live = null;
  }

  remove() {
    this.#abort.abort();
    this.#release();
    this.element.remove();
  }
}
