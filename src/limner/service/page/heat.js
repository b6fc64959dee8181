// Maps over cells: painted over a frame, and told in words.

const STOPS = [[24, 213, 204], [101, 252, 104], [202, 237, 51], [253, 171, 51], [233, 77, 13], [160, 17, 1]];
const COVER = 0.75; // of the strongest cell, as in the figures of `limner explain`

function colour(value) {
  const at = Math.min(Math.max(value, 0), 1) * (STOPS.length - 1);
  const below = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[below].map((part, k) => part + (at - below) * (STOPS[below + 1][k] - part));
}

/** Paint one step in time of a word (h rows of w values in [0, 1]) over a canvas that holds the frame. */
export function paint(canvas, image, values, data) {
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  if (!values) return;
  if (data.regions) return paintRegions(context, canvas, values.flat(), data.regions);
  const [rows, columns] = [values.length, values[0].length];
  const cells = new ImageData(columns, rows);
  values.flat().forEach((value, k) => cells.data.set([...colour(value), 255 * COVER * value], 4 * k));
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns, rows];
  small.getContext("2d").putImageData(cells, 0, 0);
  const [left, top, right, bottom] = data.kept_region;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left * canvas.width, top * canvas.height, (right - left) * canvas.width,
    (bottom - top) * canvas.height);
}

/** Boxes of a detector, the weakest first, so that the strongest stay visible. */
function paintRegions(context, canvas, values, regions) {
  const order = values.map((_, k) => k).filter((k) => values[k] > 0.05).sort((a, b) => values[a] - values[b]);
  for (const k of order) {
    const [left, top, right, bottom] = regions[k];
    const box = [left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height];
    context.fillStyle = `rgba(${colour(values[k]).map(Math.round).join()}, ${0.4 * values[k]})`;
    context.strokeStyle = `rgba(${colour(values[k]).map(Math.round).join()}, ${values[k]})`;
    context.lineWidth = Math.max(2, canvas.width / 200);
    context.fillRect(...box);
    context.strokeRect(...box);
  }
}

/** The share of a word's weight in every step in time; equal shares where all weights are 0. */
export function shares(map) {
  const sums = map.map((rows) => rows.flat().reduce((sum, value) => sum + value, 0));
  const total = sums.reduce((sum, value) => sum + value, 0);
  return sums.map((value) => (total > 0 ? value / total : 1 / sums.length));
}

/** The step in time with the largest weight. */
export const strongest = (map) => shares(map).reduce((best, value, k, all) => (value > all[best] ? k : best), 0);

/** The smallest share of the cells that holds half of the weight. */
function halfOfWeight(map) {
  const weights = map.flat(2).sort((a, b) => b - a);
  const total = weights.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return 1;
  let [sum, count] = [0, 0];
  while (sum < total / 2) sum += weights[count++];
  return count / weights.length;
}

/** Where the centre of what exceeds the mean lies: "upper left", "centre", ...; "" where nothing does. */
function place(shown, data) {
  let [x, y, total] = [0, 0, 0];
  const [left, top, right, bottom] = data.kept_region;
  const add = (value, across, down) => {
    x += value * across;
    y += value * down;
    total += value;
  };
  const rows = shown.length;
  shown.forEach((row, i) => row.forEach((value, j) => {
    const box = data.regions?.[i * row.length + j];
    if (box) add(value, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2);
    else add(value, left + (right - left) * ((j + 0.5) / row.length), top + (bottom - top) * ((i + 0.5) / rows));
  }));
  if (!(total > 0)) return "";
  const third = (value, names) => names[Math.min(2, Math.floor((3 * value) / total))];
  const [down, across] = [third(y, ["upper", "", "lower"]), third(x, ["left", "", "right"])];
  return [down, across].filter(Boolean).join(" ") || "centre";
}

/** A sentence about a word for those who do not see the map. */
export function describe(word, step, data) {
  const where = place(word.shown[step], data);
  if (!where) return "It depends on all parts alike.";
  const area = Math.max(1, Math.round(100 * halfOfWeight(word.map)));
  const part = where === "centre" || where.includes(" ") ? `the ${where}` : `the ${where} part`;
  return `It depends most on ${part}; half of the weight lies in ${area} % of the ${data.frames.length > 1 ? "clip" : "picture"}.`;
}
