// What one model says about one file: caption, scores, other captions, parts of a clip, maps of the words.

import * as api from "./api.js";
import { clock, element, minus, percent, probability, save, showError } from "./dom.js";
import { Viewer } from "./viewer.js";

const UNFAMILIAR = "This picture is unlike those that the model learned from: trust its caption less.";
const LENGTH = "The caption was cut off at the length limit.";
const NO_MAPS = "This model cannot show where it looked: it has no attention, or it is several models, or not one of limner\u2019s.";
const NO_CONFIDENCE = "No confidence: this model has none for this kind of file, or for this beam.";

/** The score lines of a caption, or of a piece of a clip. */
function scores(piece) {
  const sure = piece.confidence === undefined ? element("p", { className: "soft" }, NO_CONFIDENCE) : element("p", {},
    element("meter", { min: 0, max: 1, value: piece.confidence, "aria-label": `confidence ${percent(piece.confidence)}` }),
    ` confidence ${percent(piece.confidence)}`,
    element("span", { className: "soft" }, ": how probable it is that people\u2019s captions agree"));
  return [sure, piece.unfamiliar ? element("p", { className: "warning" }, UNFAMILIAR) : null,
    piece.finished ? null : element("p", { className: "warning" }, LENGTH)];
}

export class Side {
  /** `result`: {file, settings, answer, maps}; `maps` keeps explanations that were made, by part, caption and method. */
  constructor(result) {
    this.result = result;
    this.piece = 0;
    this.caption = null;
    this.title = element("h2", {}, result.settings.model);
    this.body = element("div", {});
    this.maps = element("div", { className: "maps" });
    this.box = element("article", { className: "side", "aria-label": `Caption of ${result.settings.model}` }, this.title, this.body);
    this.show(0);
  }

  get pieces() {
    return this.result.answer.pieces ?? [this.result.answer];
  }

  /** Show a piece of the medium with its best caption. */
  show(index) {
    this.piece = index;
    const piece = this.pieces[index];
    const { answer } = this.result;
    this.body.replaceChildren(
      ...(this.pieces.length > 1 ? [this.timeLine()] : []),
      element("p", { className: "caption", dir: "auto" }, piece.caption || "(an empty caption)"),
      ...scores(piece).filter(Boolean),
      ...answer.notes.map((note) => element("p", { className: "warning" }, note)),
      this.others(piece), this.maps, this.actions(),
    );
    this.explain(piece.caption);
  }

  /** The pieces of a clip, as wide as they are long. */
  timeLine() {
    const [begin, end] = [this.pieces[0].start, this.pieces[this.pieces.length - 1].end];
    const parts = this.pieces.map((piece, index) => {
      const part = element("button", {
        type: "button", "aria-pressed": String(index === this.piece), onclick: () => this.showAndFocus(index),
        title: piece.caption,
      }, element("span", { className: "unseen" }, `${clock(piece.start)} to ${clock(piece.end)}: ${piece.caption}`));
      part.style.flexGrow = String((piece.end - piece.start) / (end - begin));
      return part;
    });
    const piece = this.pieces[this.piece];
    return element("div", {}, element("div", { className: "pieces", role: "group", "aria-label": "Time line: parts of the clip" }, parts),
      element("p", { className: "soft" }, `Part ${this.piece + 1} of ${parts.length}, ${clock(piece.start)} \u2013 ${clock(piece.end)}`));
  }

  showAndFocus(index) {
    this.show(index);
    this.body.querySelectorAll(".pieces button")[index].focus();
  }

  /** The n best captions, each of which can be explained. */
  others(piece) {
    const rows = [piece, ...piece.others].map((other) => element("tr", {},
      element("td", { dir: "auto" }, element("button", {
        type: "button", className: "text", onclick: () => this.explain(other.caption),
      }, other.caption || "(an empty caption)")),
      element("td", {}, minus(other.logprob)), element("td", {}, probability(other.logprob))));
    return element("details", { open: piece.others.length > 0 },
      element("summary", {}, rows.length > 1 ? `The ${rows.length} best captions` : "Score"),
      element("table", { className: "scores" },
        element("thead", {}, element("tr", {}, ["Caption", "log p", "p"].map((name) => element("th", { scope: "col" }, name)))),
        element("tbody", {}, rows)));
  }

  actions() {
    const { answer, file } = this.result;
    const clip = Boolean(answer.pieces);
    const piece = this.pieces[this.piece];
    // browsers give pages the clipboard only over https, or from the machine itself
    const copy = !navigator.clipboard ? null : element("button", { type: "button", onclick: async () => {
      await navigator.clipboard.writeText(piece.caption);
      copy.textContent = "Copied";
    } }, "Copy the caption");
    const drawn = element("button", { type: "button", onclick: async () => {
      drawn.disabled = true;
      try {
        const content = await api.drawn(file, this.fields());
        save(`${file.name.replace(/\.[^.]*$/, "")}-explained.${clip ? "mp4" : "png"}`, content, content.type);
      } catch (error) {
        this.failed(error);
      }
      drawn.disabled = false;
    } }, clip ? "Download the film of the words" : "Download the figure of the words");
    return element("div", { className: "actions" }, copy, this.result.settings.method ? drawn : null);
  }

  /** The fields of a request for the maps that are shown. */
  fields() {
    const { model, method } = this.result.settings;
    const piece = this.pieces[this.piece];
    return { model, method, sentence: this.caption, start: piece.start, end: piece.end };
  }

  /** Show the maps of a caption. */
  async explain(caption) {
    this.caption = caption;
    if (!this.result.settings.method || !caption) {
      this.maps.replaceChildren(element("p", { className: "soft" }, NO_MAPS));
      return;
    }
    const fields = this.fields();
    const key = JSON.stringify(fields);
    if (!this.result.maps.has(key)) {
      this.maps.replaceChildren(element("p", { className: "soft" }, "The maps are made \u2026"));
      try {
        this.result.maps.set(key, await api.explain(this.result.file, fields));
        this.result.onMaps?.(this.result.maps.get(key));
      } catch (error) {
        if (key === JSON.stringify(this.fields())) this.failed(error);
        return;
      }
    }
    if (key !== JSON.stringify(this.fields())) return; // something else was chosen meanwhile
    const viewer = new Viewer(this.result.maps.get(key));
    await viewer.ready;
    if (key !== JSON.stringify(this.fields())) return;
    const other = caption === this.pieces[this.piece].caption ? null
      : element("p", { className: "soft" }, `Maps of: ${caption}`);
    this.maps.replaceChildren(...[other, viewer.box].filter(Boolean));
  }

  failed(error) {
    const box = element("div", { className: "error", role: "alert" });
    showError(box, "There are no maps.", error.message);
    this.maps.replaceChildren(box);
  }
}
