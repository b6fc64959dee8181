// The tab for one file: captions it with one model or two, shows the results, keeps the history of the session.

import * as api from "./api.js";
import { byId, element, Progress, say, showError } from "./dom.js";
import { captionFields, Settings } from "./settings.js";
import { Side } from "./side.js";

const MOST = 50; // results in the history
const CUTS = { "": {}, whole: { whole: true }, shots: { shots: true }, every: { every: 5 } };

export class OneFile {
  constructor(models, tooLarge) {
    this.tooLarge = tooLarge;
    const onMethod = () => this.changeMethod();
    this.sides = [new Settings(byId("side-a"), models, { onMethod }),
      new Settings(byId("side-b"), models, { chosen: 1, onMethod })];
    this.progress = new Progress("one", () => this.stop?.abort());
    this.shown = [];
    byId("file-one").addEventListener("change", (event) => event.target.files[0] && this.open(event.target.files[0]));
    byId("file-one").addEventListener("click", (event) => { event.target.value = ""; }); // the same file may be chosen again
    byId("again").addEventListener("click", () => this.open(this.file));
    byId("compare").addEventListener("change", () => {
      byId("side-b").hidden = !byId("compare").checked;
      byId("side-a").querySelector("legend").textContent = byId("compare").checked ? "First model" : "Model";
    });
  }

  get chosen() {
    return byId("compare").checked ? this.sides : this.sides.slice(0, 1);
  }

  /** Caption a file. */
  async open(file) {
    this.stop?.abort();
    const stop = new AbortController();
    [this.stop, this.file] = [stop, file];
    const error = byId("error-one");
    error.hidden = true;
    byId("again").disabled = false;
    const problem = this.tooLarge(file);
    if (problem) return showError(error, `${file.name} cannot be captioned.`, problem);
    const settings = this.chosen.map((side) => side.value);
    this.fractions = settings.map(() => 0);
    this.progress.show(`Sending ${file.name}`);
    byId("results").setAttribute("aria-busy", "true");
    try {
      const answers = await Promise.all(settings.map((value, index) => this.ask(file, value, index, stop)));
      const results = settings.map((value, index) => ({ file, settings: value, answer: answers[index], maps: new Map() }));
      this.show(results);
      this.remember(results);
      say(`Caption of ${file.name}: ${answers.map((answer) => answer.caption).join("; ")}`);
    } catch (failure) {
      if (failure.name !== "AbortError") {
        stop.abort(); // the other side
        showError(error, `${file.name} cannot be captioned.`, failure.message.replace(`${file.name}: `, ""));
      } else if (stop === this.stop) say("Cancelled.");
    }
    if (stop !== this.stop) return undefined; // another file was opened meanwhile
    byId("results").removeAttribute("aria-busy");
    this.progress.hide();
    return undefined;
  }

  ask(file, settings, index, { signal }) {
    const show = (text, fraction) => !signal.aborted && this.progress.show(text, fraction);
    return api.caption(file, { ...captionFields(settings), ...CUTS[byId("cut").value] }, {
      signal,
      onUpload: (fraction) => (fraction < 1 ? show(`Sending ${file.name}`, fraction) : show(`Looking at ${file.name}`)),
      onProgress: (fraction) => {
        this.fractions[index] = fraction;
        const least = Math.min(...this.fractions);
        show(`Captioning ${file.name}: ${Math.floor(100 * least)} %`, least);
      },
    });
  }

  show(results) {
    this.shown = results.map((result) => new Side(result));
    byId("results").replaceChildren(...this.shown.map((side) => side.box));
    byId("results").classList.toggle("two", results.length > 1);
  }

  /** Show other maps of what is on the screen. */
  changeMethod() {
    this.shown.forEach((side, index) => {
      const { method, model } = this.sides[index].value;
      if (side.result.settings.model !== model) return;
      side.result = { ...side.result, settings: { ...side.result.settings, method } };
      side.explain(side.caption);
    });
  }

  /** Add results to the history, the newest first. */
  remember(results) {
    const [{ file, answer }] = results;
    const address = file.type.startsWith("image/") ? URL.createObjectURL(file) : "";
    let picture = address ? element("img", { src: address, alt: "" }) : element("span", { className: "film" }, "clip");
    const replace = (other) => {
      picture.replaceWith(other);
      picture = other;
    };
    picture.onerror = () => replace(element("span", { className: "film" }, "picture"));
    results[0].onMaps = (maps) => picture.className === "film" && replace(element("img", { src: maps.frames[0].image, alt: "" }));
    const names = results.map((result) => result.settings.model).join(" and ");
    const entry = element("li", {}, element("button", {
      type: "button", onclick: () => {
        this.file = file;
        this.show(results);
        byId("results").scrollIntoView({ block: "start" });
        say(`Shown again: ${answer.caption}`);
      },
    }, picture, element("span", {}, element("b", { dir: "auto" }, answer.caption), element("br"),
      element("span", { className: "soft" }, `${file.name}, ${names}`))));
    entry.dataset.address = address;
    const list = byId("history").querySelector("ol");
    list.prepend(entry);
    byId("history").hidden = false;
    while (list.children.length > MOST) {
      URL.revokeObjectURL(list.lastChild.dataset.address);
      list.lastChild.remove();
    }
  }
}
