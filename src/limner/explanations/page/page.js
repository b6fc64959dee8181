"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const part = (id) => document.getElementById(id);
const make = (name, text, css) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (css) element.className = css;
  return element;
};
const bytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
const percent = (logprob) => {
  const share = 100 * Math.exp(logprob);
  const digits = share >= 10 ? share.toFixed(0) : share >= 0.1 ? share.toFixed(1) : share >= 0.001 ? share.toFixed(3) : "";
  return digits ? `${digits}\u00a0%` : "<\u00a00.001\u00a0%";
};
const [T, ROWS, COLUMNS] = data.layout, CELLS = T * ROWS * COLUMNS;
const END = data.words.indexOf("(end)");

// ---- the tree of choices: a sentence is its parent's up to the place of the choice, and its own words from there on
const children = new Map();
data.choices.forEach((choice, i) => { if (i) children.set(`${choice.p} ${choice.at} ${choice.t[0]}`, i); });

function tokensOf(number) {
  const { p, at, t } = data.choices[number];
  return p < 0 ? t : [...tokensOf(p).slice(0, at), ...t];
}
function logprobsOf(number) {
  const { p, at, l } = data.choices[number];
  return p < 0 ? l : [...logprobsOf(p).slice(0, at), ...l];
}
/** The sentence in which the choice at this place is made: up to its own place a sentence shares its parent's choices. */
function ownerOf(number, place) {
  while (data.choices[number].p >= 0 && place <= data.choices[number].at) number = data.choices[number].p;
  return number;
}
/** What could have been said at a place: [{word, logprob, next}], the likeliest first; `next` is a sentence or -1. */
function alternativesAt(number, place) {
  const owner = ownerOf(number, place), flat = data.choices[owner].a[place - data.choices[owner].at - 1] || [];
  const own = tokensOf(owner), found = [];
  const nextOf = (word) => (word === own[place] ? owner : children.get(`${owner} ${place} ${word}`) ?? -1);
  for (let i = 0; i < flat.length; i += 2) found.push({ word: flat[i], logprob: flat[i + 1], next: nextOf(flat[i]) });
  for (const [word, logprob] of [
    [own[place], logprobsOf(owner)[place]], [tokensOf(number)[place], logprobsOf(number)[place]]]) {
    if (!found.some((it) => it.word === word)) found.push({ word, logprob, next: nextOf(word) });
  }
  return found.sort((a, b) => b.logprob - a.logprob);
}

// ---- what is shown now
const now = { sentence: 0, place: 0, frame: 0, method: Object.keys(data.maps)[0] };

/** The map of a word as bytes per cell; null where there is none. */
function mapAt(number, place) {
  if (number === 0 || place < data.choices[number].at) {
    const owner = ownerOf(number, place + 1);
    if (owner === 0) {
      const row = (data.maps[now.method] || [])[place];
      return row ? bytes(row) : null;
    }
    return mapAt(owner, place);
  }
  const { m, at } = data.choices[number];
  if (now.method !== "attention" || !m) return null;
  return bytes(m).subarray((place - at) * CELLS, (place - at + 1) * CELLS);
}

// ---- the picture
const images = data.frames.map((address) => { const image = new Image(); image.src = address; return image; });
const canvas = part("picture"), small = document.createElement("canvas");
const scale = Math.min(1, 900 / Math.max(...data.size));
canvas.width = Math.max(1, Math.round(data.size[0] * scale));
canvas.height = Math.max(1, Math.round(data.size[1] * scale));

/** The cells at a moment of the clip, between the centres of the equal steps. */
function cellsAt(map, moment) {
  const step = Math.min(Math.max(moment * T - 0.5, 0), T - 1), below = Math.min(Math.floor(step), Math.max(T - 2, 0));
  const weight = step - below, above = Math.min(below + 1, T - 1), size = ROWS * COLUMNS;
  return Array.from({ length: size }, (_, i) => (1 - weight) * map[below * size + i] + weight * map[above * size + i]);
}
const heatOf = (value) => data.heat[Math.min(data.heat.length - 1, Math.floor(value / 256 * data.heat.length))];

function draw() {
  const pen = canvas.getContext("2d"), { width, height } = canvas, map = mapAt(now.sentence, now.place);
  pen.globalAlpha = 1;
  pen.drawImage(images[now.frame], 0, 0, width, height);
  if (!map) return;
  const cells = cellsAt(map, T > 1 ? data.moments[now.frame] : 0.5);
  if (data.regions) {
    const order = cells.map((_, i) => i).sort((a, b) => cells[a] - cells[b]);
    for (const i of order) {
      const [left, top, right, bottom] = data.regions[i];
      pen.globalAlpha = 0.75 * cells[i] / 255;
      pen.fillStyle = `rgb(${heatOf(cells[i])})`;
      pen.fillRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
    }
    pen.globalAlpha = 1;
    return;
  }
  small.width = COLUMNS;
  small.height = ROWS;
  const pixels = new ImageData(COLUMNS, ROWS);
  cells.forEach((value, i) => pixels.data.set([...heatOf(value), 0.75 * value], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [left, top, right, bottom] = data.kept;
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, left * width, top * height, (right - left) * width, (bottom - top) * height);
}

/** The time line of a clip: its frames, and under each how much the word depends on that time. */
function drawStrip() {
  const strip = part("strip"), count = images.length, wide = 84;
  const high = Math.max(1, Math.round(wide * data.size[1] / data.size[0]));
  strip.width = wide * count;
  strip.height = high + 16;
  const pen = strip.getContext("2d"), map = mapAt(now.sentence, now.place);
  images.forEach((image, i) => {
    pen.drawImage(image, i * wide + 1, 0, wide - 2, high);
    const most = map && T > 1 ? Math.max(...cellsAt(map, data.moments[i])) : 0;
    pen.fillStyle = `rgb(${most ? heatOf(most) : [110, 110, 110]})`;
    pen.fillRect(i * wide + 1, high + 4, wide - 2, 10);
  });
  pen.strokeStyle = "#fff";
  pen.lineWidth = 6;
  pen.strokeRect(now.frame * wide + 3, 3, wide - 6, high - 6);
  pen.strokeStyle = "#000";
  pen.lineWidth = 2;
  pen.strokeRect(now.frame * wide + 3, 3, wide - 6, high - 6);
}

// ---- words, status, alternatives
function showWords() {
  const tokens = tokensOf(now.sentence), { p, at } = data.choices[now.sentence];
  part("words").replaceChildren(...tokens.map((token, place) => {
    const button = make("button", data.words[token], p >= 0 && place > at ? "after" : p >= 0 && place === at ? "chosen" : "");
    button.type = "button";
    button.dir = "auto";
    button.setAttribute("aria-current", String(place === now.place));
    button.tabIndex = place === now.place ? 0 : -1;
    button.addEventListener("click", () => go(place));
    return button;
  }));
}
function showStatus() {
  const tokens = tokensOf(now.sentence), logprobs = logprobsOf(now.sentence), map = mapAt(now.sentence, now.place);
  const total = logprobs.reduce((sum, value) => sum + value, 0);
  part("status").textContent =
    `Word ${now.place + 1} of ${tokens.length}: \u201c${data.words[tokens[now.place]]}\u201d, probability ` +
    `${percent(logprobs[now.place])}. Log-probability of the sentence: ${total.toFixed(2)}.`;
  part("method-note").textContent = map
    ? map.every((value) => value === 0) ? "Nothing stands out: the map is the same everywhere." : ""
    : tokens[now.place] === END ? "The end of the sentence has no map."
      : "There are no maps of this method for a chosen sentence; attention has them where the model has attention.";
  canvas.setAttribute("aria-label", `the picture, with where the model looked for \u201c${data.words[tokens[now.place]]}` +
    `\u201d, by ${now.method}${map ? "" : ": no map"}`);
}
function showAlternatives() {
  const said = tokensOf(now.sentence)[now.place];
  part("alternatives").replaceChildren(...alternativesAt(now.sentence, now.place).map((it, rank) => {
    const item = make("li"), bar = make("span", undefined, "probability"), inner = make("span");
    const isSaid = it.word === said, open = it.next >= 0 && !isSaid;
    const word = open ? make("button", data.words[it.word]) : make("span", data.words[it.word], `plain${isSaid ? " said" : ""}`);
    if (open) {
      word.type = "button";
      word.setAttribute("aria-label", `choose ${data.words[it.word]}, probability ${percent(it.logprob)}`);
      word.addEventListener("click", () => choose(it.next));
      if (rank < 9) word.setAttribute("aria-keyshortcuts", String(rank + 1));
    }
    word.dir = "auto";
    inner.style.width = `${100 * Math.exp(it.logprob)}%`;
    bar.append(inner);
    item.append(word, bar, make("span", percent(it.logprob), "number"));
    return item;
  }));
  part("back").hidden = now.sentence === 0;
}
function show() {
  showWords();
  showStatus();
  showAlternatives();
  draw();
  if (T > 1) drawStrip();
}
function go(place, focus = true) {
  now.place = Math.min(Math.max(place, 0), tokensOf(now.sentence).length - 1);
  const inside = part("words").contains(document.activeElement);
  show();
  if (focus && (inside || document.activeElement === document.body)) part("words").children[now.place].focus();
}
function choose(sentence) {
  now.sentence = sentence;
  go(Math.min(now.place, tokensOf(sentence).length - 1), false);
  part("words").children[now.place].focus();
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, summary, .wide")) return;
  const steps = { ArrowLeft: now.place - 1, ArrowRight: now.place + 1, Home: 0, End: 1e9 };
  if (event.key in steps) {
    go(steps[event.key]);
  } else if (/^[1-9]$/.test(event.key)) {
    const it = alternativesAt(now.sentence, now.place)[Number(event.key) - 1];
    if (!it || it.next < 0) return;
    choose(it.next);
  } else if (event.key === "Escape" && now.sentence) {
    choose(0);
  } else {
    return;
  }
  event.preventDefault();
});
part("back").addEventListener("click", () => choose(0));
for (const radio of document.querySelectorAll("[name=method]")) {
  radio.checked = radio.value === now.method;
  radio.addEventListener("change", () => { now.method = radio.value; show(); });
}
if (images.length > 1) {
  const time = part("time");
  part("time-line").hidden = false;
  time.max = images.length - 1;
  time.value = now.frame;
  const showTime = () => {
    now.frame = Number(time.value);
    const text = data.seconds ? `${data.seconds[now.frame].toFixed(1)} s` : `frame ${now.frame + 1} of ${images.length}`;
    part("seconds").textContent = text;
    time.setAttribute("aria-valuetext", text);
    draw();
    if (T > 1) drawStrip();
  };
  time.addEventListener("input", showTime);
  showTime();
}
Promise.all(images.map((image) => image.decode().catch(() => {}))).then(show);

// ---- the beam
const FATES = {
  kept: "kept", ended: "ended: a finished caption", hopeless: "dropped: it cannot become better than an ended one",
  outside: "dropped: outside the beam",
};
const beam = data.beam;
const prefixOf = (i) => (i < 0 ? [] : [...prefixOf(beam.nodes[i][0]), data.words[beam.nodes[i][3]]]);
const drawing = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
function drawTree() {
  const WIDE = 150, HIGH = 34, BOX = 126, TALL = 28;
  const onPath = new Set(beam.path), steps = Math.max(...beam.nodes.map((node) => node[1]));
  const rows = Math.max(...beam.nodes.map((node) => node[2]));
  const size = { width: steps * WIDE, height: rows * HIGH + 4 };
  const svg = drawing("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}`, "aria-hidden": "true" });
  const x = (node) => (node[1] - 1) * WIDE + 2, y = (node) => (node[2] - 1) * HIGH + 2;
  beam.nodes.forEach((node, i) => {
    if (node[0] < 0) return;
    const from = beam.nodes[node[0]], a = x(from) + BOX, b = x(node), c = (a + b) / 2;
    const [top, bottom] = [y(from) + TALL / 2, y(node) + TALL / 2];
    svg.append(drawing("path", {
      d: `M${a} ${top}C${c} ${top} ${c} ${bottom} ${b} ${bottom}`, class: onPath.has(i) ? "path" : "" }));
  });
  beam.nodes.forEach((node, i) => {
    const group = drawing("g", { class: `${node[5]}${onPath.has(i) ? " path" : ""}`, transform: `translate(${x(node)} ${y(node)})` });
    const word = data.words[node[3]], text = drawing("text", { x: 6, y: 18 });
    text.textContent = word.length > 9 ? `${word.slice(0, 8)}\u2026` : word;
    const share = drawing("text", { x: BOX - 5, y: 18, "text-anchor": "end", class: "percent" });
    share.textContent = percent(node[4]);
    const title = drawing("title", {});
    title.textContent = `${prefixOf(i).join(" ")}: ${percent(node[4])}, ${FATES[node[5]]}`;
    group.append(title, drawing("rect", { width: BOX, height: TALL, rx: 6 }), text, share);
    group.dataset.step = node[1];
    svg.append(group);
  });
  part("tree").append(svg);
  part("step").max = steps;
}
function showStep() {
  const step = Number(part("step").value), last = Number(part("step").max), onPath = new Set(beam.path);
  part("step-number").textContent = `${step} of ${last}`;
  part("step").setAttribute("aria-valuetext", `step ${step} of ${last}`);
  for (const group of document.querySelectorAll("#tree g")) group.classList.toggle("now", Number(group.dataset.step) === step);
  const rows = beam.nodes.map((node, i) => [node, i]).filter(([node]) => node[1] === step);
  document.querySelector("#step-table tbody").replaceChildren(...rows.map(([node, i]) => {
    const row = make("tr"), fate = FATES[node[5]] + (onPath.has(i) ? "; on the way to the result" : "");
    const sentence = make("td", prefixOf(i).join(" "));
    sentence.dir = "auto";
    row.append(make("td", String(node[2])), sentence, make("td", node[4].toFixed(2)), make("td", percent(node[4])), make("td", fate));
    return row;
  }));
}
if (beam) {
  drawTree();
  part("step").value = 1;
  part("step").addEventListener("input", showStep);
  showStep();
  const notes = [];
  if (beam.normalised) notes.push("At the end, ended captions are compared by their log-probability divided by a power of their length.");
  if (beam.left_out) notes.push(`${beam.left_out} unlikely hypotheses are not drawn.`);
  if (!beam.path.length) notes.push("The result is no leaf of this tree.");
  part("beam-note").textContent = notes.join(" ");
}
