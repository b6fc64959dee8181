// The choice of a model, a method of explanation and a beam.

import { element } from "./dom.js";

const METHODS = {
  attention: "attention", gradcam: "Grad-CAM", "gradcam++": "Grad-CAM++", saliency: "saliency, slow",
};
const BEAMS = [1, 2, 3, 5, 10, 20];

const option = (value, text = value) => element("option", { value }, text);

/** The fields of one side; `models` are those of /v1/models.  `onMethod` is called when another method is chosen. */
export class Settings {
  constructor(box, models, { withMethod = true, chosen = 0, onMethod } = {}) {
    this.models = models;
    const id = box.id;
    this.model = element("select", { id: `${id}-model` }, models.map((model) => option(model.id)));
    this.beam = element("select", { id: `${id}-beam` });
    this.method = element("select", { id: `${id}-method` });
    this.model.selectedIndex = Math.min(chosen, models.length - 1);
    const row = (select, text) => [element("label", { for: select.id }, text), select];
    box.append(...row(this.model, "Model"), ...row(this.beam, "Beam"));
    if (withMethod) box.append(...row(this.method, "Map of each word"));
    this.model.addEventListener("change", () => this.fill());
    this.method.addEventListener("change", () => onMethod?.());
    this.fill();
  }

  get info() {
    return this.models[this.model.selectedIndex];
  }

  /** Offer what the chosen model has. */
  fill() {
    const usual = this.info.decoding.size;
    this.beam.replaceChildren(option("", `${usual} (usual)`),
      ...BEAMS.filter((size) => size !== usual).map((size) => option(size, size === 1 ? "1 (greedy)" : size)));
    this.method.replaceChildren(...this.info.methods.map((name) => option(name, METHODS[name] ?? name)));
    this.method.disabled = !this.info.methods.length;
    if (this.method.disabled) this.method.append(option("", "none for this model"));
  }

  /** What is chosen, as a plain object that does not change. */
  get value() {
    return { model: this.info.id, beam: this.beam.value, method: this.method.value,
      size: Number(this.beam.value) || this.info.decoding.size };
  }
}

/** The fields of a request for captions; the most captions that are asked for are 5. */
export function captionFields({ model, beam, size }) {
  const best = Math.min(size, 5);
  return { model, beam, n_best: best > 1 ? best : "" };
}
