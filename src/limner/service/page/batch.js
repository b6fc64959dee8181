// The tab for many files: captions them a few at a time, and lets a person correct and download the captions.

import * as api from "./api.js";
import { byId, clock, element, minus, percent, Progress, save, say, showError } from "./dom.js";
import { toCsv, toJsonl, toZip } from "./exports.js";
import { Settings } from "./settings.js";

const AT_A_TIME = 6; // requests; the service captions together what comes together
const TRIES = 30; // when the service is busy

const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });

export class Batch {
  constructor(models, tooLarge) {
    this.tooLarge = tooLarge;
    this.settings = new Settings(byId("side-batch"), models, { withMethod: false });
    this.progress = new Progress("batch", () => this.stop?.abort());
    this.items = []; // {file, name, pieces, body}
    this.waiting = [];
    for (const id of ["file-batch", "folder-batch"]) {
      byId(id).addEventListener("change", (event) => {
        this.add([...event.target.files]);
        event.target.value = "";
      });
    }
    byId("save-csv").addEventListener("click", () => save("captions.csv", toCsv(this.rows()), "text/csv"));
    byId("save-jsonl").addEventListener("click", () => save("captions.jsonl", toJsonl(this.rows()), "application/jsonl"));
    byId("save-zip").addEventListener("click", () => save("sidecars.zip", toZip(this.rows()), "application/zip"));
    byId("unsure-first").addEventListener("change", () => this.sort());
    byId("clear-batch").addEventListener("click", () => this.clear());
  }

  get table() {
    return byId("batch");
  }

  /** Add files to the table, and caption them. */
  async add(files) {
    if (!files.length) return;
    const settings = this.settings.value;
    for (const file of files) {
      const item = { file, name: file.webkitRelativePath || file.name, settings, pieces: [], order: this.items.length };
      this.items.push(item);
      this.waiting.push(item);
      item.bodies = [this.row(item, element("p", { className: "soft" }, "waiting"))];
      this.table.tBodies[0].append(...item.bodies);
    }
    this.table.hidden = byId("batch-actions").hidden = byId("error-batch").hidden = false;
    byId("error-batch").hidden = true;
    if (!this.running || this.stop.signal.aborted) this.stop = new AbortController();
    if (this.running) return; // the workers take the new ones too
    this.running = true;
    this.count();
    await Promise.all(Array.from({ length: AT_A_TIME }, () => this.work()));
    this.running = false;
    this.progress.hide();
    this.sort();
    this.finish();
  }

  async work() {
    while (this.waiting.length) {
      const item = this.waiting.shift();
      const { signal } = this.stop;
      if (signal.aborted) this.fail(item, "stopped before it was captioned");
      else await this.caption(item, signal);
      this.count();
    }
  }

  async caption(item, signal) {
    const problem = this.tooLarge(item.file);
    if (problem) return this.fail(item, problem);
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await api.caption(item.file, { model: item.settings.model, beam: item.settings.beam }, { signal });
        return this.done(item, answer.pieces ?? [answer]);
      } catch (error) {
        if (error.name === "AbortError") return this.fail(item, "stopped before it was captioned");
        if (error.status !== 429 || attempt === TRIES) return this.fail(item, error.message);
        await pause(error.retryAfter);
      }
    }
  }

  count() {
    const settled = this.items.filter((item) => item.pieces.length || item.error).length;
    if (this.running) this.progress.show(`${settled} of ${this.items.length} files`, settled / this.items.length);
  }

  finish() {
    const failed = this.items.filter((item) => item.error).length;
    const done = this.items.length - failed;
    say(`${done} files captioned${failed ? `, ${failed} not` : ""}.`);
    if (failed) {
      showError(byId("error-batch"), `${failed} of ${this.items.length} files have no caption.`,
        "The table says why; they are left out of the downloads.");
    }
  }

  done(item, pieces) {
    item.pieces = pieces.map((piece) => ({ ...piece, text: piece.caption }));
    this.replace(item, item.pieces.map((piece) => this.row(item, this.editor(item, piece), piece)));
  }

  fail(item, reason) {
    item.error = reason;
    this.replace(item, [this.row(item, element("p", { className: "failed" }, reason))]);
  }

  replace(item, rows) {
    if (!item.bodies[0].isConnected) return; // the row was removed meanwhile
    item.bodies[0].replaceWith(...rows);
    item.bodies = rows;
  }

  /** A row of the table. */
  row(item, content, piece = null) {
    item.address ??= item.file.type.startsWith("image/") ? URL.createObjectURL(item.file) : "";
    const picture = item.address ? element("img", { loading: "lazy", src: item.address, alt: "", width: 96, height: 72 }) : null;
    if (picture) picture.onerror = () => picture.remove();
    const cut = piece && item.pieces.length > 1;
    const time = cut ? element("span", { className: "soft" }, ` ${clock(piece.start)} \u2013 ${clock(piece.end)}`) : null;
    const name = element("span", { className: "name" }, item.name, time);
    const remove = element("button", {
      type: "button", "aria-label": `Remove ${item.name}`, title: "Remove", onclick: () => this.remove(item),
    }, "\u00d7");
    const row = element("tr", {}, element("th", { scope: "row" }, picture, name), element("td", {}, content), element("td", {}, remove));
    row.order = [item.order, piece?.start ?? 0];
    row.confidence = piece ? piece.confidence ?? 1 : 2;
    return row;
  }

  editor(item, piece) {
    const facts = element("p", { className: "soft" });
    const tell = () => {
      const sure = piece.confidence === undefined ? "" : `confidence ${percent(piece.confidence)}, `;
      const strange = piece.unfamiliar ? ", unfamiliar picture" : "";
      facts.textContent = piece.text === piece.caption ? `${sure}log p ${minus(piece.logprob)}${strange}` : "corrected by hand";
    };
    const label = `Caption of ${item.name}${item.pieces.length > 1 ? ` from ${clock(piece.start)}` : ""}`;
    const area = element("textarea", { value: piece.caption, rows: 2, dir: "auto", "aria-label": label, oninput: () => {
      piece.text = area.value.replace(/\s+/g, " ").trim();
      tell();
    } });
    tell();
    return element("div", {}, area, facts);
  }

  remove(item) {
    const rows = [...this.table.tBodies[0].rows];
    const place = rows.indexOf(item.bodies[0]);
    this.items = this.items.filter((other) => other !== item);
    this.waiting = this.waiting.filter((other) => other !== item);
    item.bodies.forEach((row) => row.remove());
    URL.revokeObjectURL(item.address);
    const left = this.table.tBodies[0].rows;
    if (left.length) left[Math.min(place, left.length - 1)].querySelector("td:last-child button").focus();
    else this.clear();
    say(`${item.name} removed.`);
  }

  clear() {
    this.stop?.abort();
    this.items.forEach((item) => URL.revokeObjectURL(item.address));
    [this.items, this.waiting] = [[], []];
    this.table.tBodies[0].replaceChildren();
    this.table.hidden = byId("batch-actions").hidden = byId("error-batch").hidden = true;
    byId("file-batch").focus();
  }

  sort() {
    const unsure = byId("unsure-first").checked;
    const rows = [...this.table.tBodies[0].rows];
    rows.sort((a, b) => (unsure ? a.confidence - b.confidence : 0) || a.order[0] - b.order[0] || a.order[1] - b.order[1]);
    this.table.tBodies[0].append(...rows);
  }

  /** The captions as `limner caption` writes them; one that was corrected has no probability. */
  rows() {
    return this.items.flatMap((item) => item.pieces.map((piece) => {
      const corrected = piece.text !== piece.caption;
      const row = { file: item.name, caption: piece.text, logprob: corrected ? null : piece.logprob,
        finished: corrected || piece.finished };
      if (piece.start !== undefined) Object.assign(row, { start: piece.start, end: piece.end });
      if (!corrected && piece.confidence !== undefined) row.confidence = piece.confidence;
      if (piece.unfamiliar !== undefined) row.unfamiliar = piece.unfamiliar;
      return row;
    }));
  }
}
