// Elements and texts.  Everything that a file or a model says becomes a text node, never HTML.

export const byId = (id) => document.getElementById(id);

/** An element with properties (className, onclick, ...), attributes (those with a dash, and role) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Tell screen readers something. */
export function say(text) {
  byId("status").textContent = text;
}

export function showError(place, title, message) {
  place.replaceChildren(element("strong", {}, title), " ", element("span", {}, message));
  place.hidden = false;
}

/** Seconds as m:ss, with tenths. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  return `${minutes}:${String(Math.floor((tenths % 600) / 10)).padStart(2, "0")}.${tenths % 10}`;
}

export const percent = (fraction) => `${Math.round(100 * fraction)} %`;

/** A probability from its natural logarithm, with two significant digits. */
export function probability(logprob) {
  const value = 100 * Math.exp(logprob);
  return `${value >= 0.01 ? Number(value.toPrecision(2)) : "under 0.01"} %`;
}

export const minus = (number, digits = 2) => number.toFixed(digits).replace("-", "\u2212");

/** Give a file to the user. */
export function save(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

/** A bar with words about what is going on; a fraction of null means that nobody knows how long it takes. */
export class Progress {
  constructor(part, onCancel) {
    this.box = byId(`busy-${part}`);
    this.bar = byId(`progress-${part}`);
    this.label = this.box.querySelector("label");
    byId(`cancel-${part}`).addEventListener("click", onCancel);
  }

  show(text, fraction = null) {
    this.box.hidden = false;
    if (this.label.textContent !== text) this.label.textContent = text;
    if (fraction === null) this.bar.removeAttribute("value");
    else this.bar.value = fraction;
  }

  hide() {
    this.box.hidden = true;
  }
}
