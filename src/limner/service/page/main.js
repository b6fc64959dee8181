// Starts the page: models, examples, tabs, files that are dropped or pasted.

import * as api from "./api.js";
import { Batch } from "./batch.js";
import { byId, element, showError } from "./dom.js";
import { OneFile } from "./one.js";
import { moveFocus } from "./viewer.js";

const TABS = ["one", "batch"];

function showTab(chosen) {
  for (const name of TABS) {
    byId(`tab-${name}`).setAttribute("aria-selected", String(name === chosen));
    byId(`tab-${name}`).tabIndex = name === chosen ? 0 : -1;
    byId(`panel-${name}`).hidden = name !== chosen;
  }
}

function startTabs() {
  const buttons = TABS.map((name) => byId(`tab-${name}`));
  TABS.forEach((name, index) => buttons[index].addEventListener("click", () => showTab(name)));
  buttons[0].parentElement.addEventListener("keydown", (event) => moveFocus(event, buttons, (index) => showTab(TABS[index])));
}

/** Where a file goes that came from outside: several, or any while the table is shown, go into the batch. */
function take(files, one, batch) {
  if (!files.length) return;
  if (files.length > 1 || !byId("panel-batch").hidden) {
    showTab("batch");
    batch.add(files);
  } else one.open(files[0]);
}

function startDropping(one, batch) {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dragging");
    take([...event.dataTransfer.files], one, batch);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files, one, batch);
  });
}

const TYPES = { jpg: "image/jpeg", png: "image/png", mp4: "video/mp4" };

function showExamples(examples, one) {
  byId("examples").querySelector("ul").replaceChildren(...examples.map(({ name, image }) => element("li", {}, element("button", {
    type: "button",
    onclick: async () => {
      try {
        const content = await api.getBlob(`/page/examples/${encodeURIComponent(name)}`);
        await one.open(new File([content], name, { type: TYPES[name.split(".").pop()] }));
      } catch (error) {
        showError(byId("error-one"), `The example ${name} is not there.`, error.message);
      }
    },
  }, image ? element("img", { src: image, alt: "" }) : element("span", { className: "film" }, "clip"),
  element("span", {}, name.replace(/\.[^.]*$/, ""))))));
  byId("examples").hidden = false;
}

async function start() {
  startTabs();
  try {
    const models = (await api.getJson("/v1/models")).data;
    const { examples, max_bytes: most } = await api.getJson("/page/examples");
    const tooLarge = ({ size }) => (size < most - 4096 ? ""
      : `It has ${(size / 2 ** 20).toFixed(1)} MB; this service takes at most ${(most / 2 ** 20).toFixed(0)} MB at a time.`);
    const one = new OneFile(models, tooLarge);
    const batch = new Batch(models, tooLarge);
    showExamples(examples, one);
    startDropping(one, batch);
    document.body.dataset.ready = "true";
  } catch (error) {
    showError(byId("error-one"), "The page cannot start.", error.message);
  }
}

start();
