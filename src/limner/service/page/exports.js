// Captions as files: CSV and JSONL as `limner caption --out` writes them, and sidecars in a ZIP.

import { zip } from "./zip.js";

const FORMULA = /^'*[=+@\t\r-]/; // a spreadsheet would run it; as in limner.data.formulas
const CONTROLS = /[\u0000-\u001f\u007f-\u009f]/g;

/** [{file, caption, logprob, finished, start, end, confidence, unfamiliar}] -> the fields that some row has. */
function fieldsOf(rows) {
  const usual = ["file", "caption", "logprob", "finished"];
  const more = ["start", "end", "confidence", "unfamiliar"];
  return [...usual, ...more.filter((name) => rows.some((row) => row[name] !== undefined))];
}

function cell(name, value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "True" : "False";
  let text = String(value);
  if ((name === "file" || name === "caption") && FORMULA.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function toCsv(rows) {
  const fields = fieldsOf(rows);
  const lines = rows.map((row) => fields.map((name) => cell(name, row[name])).join(","));
  return [fields.join(","), ...lines].join("\n") + "\n";
}

export const toJsonl = (rows) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

/** A name that is safe inside a ZIP: no way out of the folder, no control characters, no drive. */
function safePath(file) {
  const parts = file.replace(CONTROLS, "_").replace(/[\\:]/g, "/").split("/");
  return parts.filter((part) => part && part !== "." && part !== "..").join("/") || "unnamed";
}

/** dog.txt for dog.jpg, dog.jpg.txt where dog.png is there too; the captions of a clip's parts in one line. */
export function toZip(rows) {
  const texts = new Map();
  for (const row of rows) texts.set(row.file, [...(texts.get(row.file) ?? []), row.caption]);
  const stem = (file) => safePath(file).replace(/\.[^./]+$/, "");
  const shared = new Map();
  for (const file of texts.keys()) shared.set(stem(file), (shared.get(stem(file)) ?? 0) + 1);
  const taken = new Set();
  return zip([...texts].map(([file, captions]) => {
    const base = shared.get(stem(file)) > 1 ? safePath(file) : stem(file);
    let name = `${base}.txt`;
    for (let number = 2; taken.has(name); number++) name = `${base} (${number}).txt`;
    taken.add(name);
    return [name, `${captions.filter(Boolean).join(" ")}\n`];
  }));
}
