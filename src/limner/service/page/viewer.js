// Steps through the words of a caption: the map of each word over the picture, or over the frames of a clip.

import { clock, element, percent } from "./dom.js";
import { describe, paint, shares, strongest } from "./heat.js";

const SECONDS_PER_WORD = 1.2;

const loaded = (address) => new Promise((resolve, reject) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = reject;
  image.src = address;
});

/** A viewer of an explanation, in an element of its own. */
export class Viewer {
  constructor(data) {
    this.data = data;
    this.word = 0;
    this.step = 0;
    this.timer = null;
    this.follows = true; // the step in time with the largest weight, until the user chooses one
    this.box = element("div", { className: "viewer" });
    this.ready = this.build();
  }

  async build() {
    this.images = await Promise.all(this.data.frames.map((frame) => loaded(frame.image)));
    if (!this.data.words.length) {
      this.box.append(element("p", { className: "soft" }, "The caption has no words to step through."));
      return;
    }
    this.words = element("div", { className: "words", role: "group", "aria-label": "Words of the caption" },
      this.data.words.map((word, index) => element("button", {
        type: "button", onclick: () => this.choose(index), title: `probability ${percent(word.probability)}`,
      }, word.word)));
    this.words.addEventListener("keydown", (event) => this.key(event));
    this.canvas = element("canvas", { className: "picture", role: "img" });
    this.note = element("p", { className: "note", "aria-live": "polite" });
    this.heat = element("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.player = element("button", { type: "button", onclick: () => this.play() }, "Play");
    const button = (text, by) => element("button", { type: "button", onclick: () => this.choose(this.word + by) }, text);
    this.box.append(this.words, this.canvas, this.note);
    if (this.images.length > 1) this.box.append(this.timeLine());
    this.box.append(element("div", { className: "actions" }, button("Previous word", -1), button("Next word", 1),
      this.player, element("label", {}, this.heat, " Heat map")));
    this.choose(0, false);
  }

  /** The frames of a clip with the weight of each as a bar. */
  timeLine() {
    this.frames = this.images.map((_, step) => {
      const seconds = this.data.frames[step].seconds;
      const time = seconds === null ? `frame ${step + 1}` : clock(seconds);
      return {
        time, canvas: element("canvas", { "aria-hidden": "true" }), bar: element("span", { className: "bar" }),
        share: element("span", { className: "unseen" }),
      };
    });
    const buttons = this.frames.map(({ time, canvas, bar, share }, step) => element("button", {
      type: "button", onclick: () => this.pick(step),
    }, element("span", { className: "bars" }, bar), canvas, element("span", {}, time), share));
    const line = element("div", { className: "frames", role: "group", "aria-label": "Time line: weight of each frame" }, buttons);
    line.addEventListener("keydown", (event) => moveFocus(event, buttons, (step) => this.pick(step)));
    return line;
  }

  key(event) {
    moveFocus(event, [...this.words.children], (index) => this.choose(index));
  }

  /** Show a word; the first follows the last. */
  choose(index, stop = true) {
    if (stop) this.pause();
    const count = this.data.words.length;
    this.word = ((index % count) + count) % count;
    if (this.follows) this.step = strongest(this.data.words[this.word].map);
    this.draw();
  }

  pick(step) {
    this.follows = false;
    this.step = step;
    this.draw();
  }

  draw() {
    const word = this.data.words[this.word];
    [...this.words.children].forEach((button, index) => {
      button.setAttribute("aria-pressed", String(index === this.word));
      button.tabIndex = index === this.word ? 0 : -1;
    });
    const values = (step) => (this.heat.checked ? word.shown[step] : null);
    paint(this.canvas, this.images[this.step], values(this.step), this.data);
    const told = describe(word, this.step, this.data);
    this.canvas.setAttribute("aria-label", `Map of the word ${word.word} over the picture. ${told}`);
    this.note.textContent = `Word ${this.word + 1} of ${this.data.words.length}: \u201c${word.word}\u201d, `
      + `probability ${percent(word.probability)}. ${told}`;
    if (!this.frames) return;
    const parts = shares(word.map);
    const most = Math.max(...parts);
    this.frames.forEach(({ canvas, bar, share }, step) => {
      paint(canvas, this.images[step], values(step), this.data);
      bar.style.height = `${(100 * parts[step]) / most}%`;
      share.textContent = `, ${percent(parts[step])} of the weight`;
      const button = canvas.parentElement;
      button.setAttribute("aria-pressed", String(step === this.step));
      button.tabIndex = step === this.step ? 0 : -1;
    });
  }

  play() {
    if (this.timer) return this.pause();
    this.player.textContent = "Pause";
    this.timer = setInterval(() => {
      if (!this.box.isConnected) return this.pause();
      if (this.word === this.data.words.length - 1) this.pause();
      else this.choose(this.word + 1, false);
      return undefined;
    }, 1000 * SECONDS_PER_WORD);
    this.choose(0, false);
    return undefined;
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.player.textContent = "Play";
  }
}

/** Arrow keys, Home and End move between the buttons of a group. */
export function moveFocus(event, buttons, choose) {
  const at = buttons.indexOf(document.activeElement.closest("button"));
  const last = buttons.length - 1;
  const next = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
  if (at < 0 || next === undefined) return;
  event.preventDefault();
  const chosen = Math.min(Math.max(next, 0), last);
  choose(chosen);
  buttons[chosen].focus();
}
