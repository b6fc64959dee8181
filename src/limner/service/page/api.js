// Requests to the service that served this page.

import { byId } from "./dom.js";

/** An answer that is no success: `message` for a person, `status` of HTTP (0: no answer), `retryAfter` in seconds. */
export class RequestError extends Error {
  constructor(message, status, retryAfter = 1) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const GONE = "The service does not answer. Is it still running?";
let token = sessionStorage.getItem("limner-token") || "";
let asking = null;

/** Ask the user for the token of the service, once for all requests that wait for it. */
function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    byId("token-wrong").hidden = !token; // one was given before, and refused
    byId("token").value = "";
    const given = () => {
      dialog.removeEventListener("close", given);
      asking = null;
      resolve();
    };
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      token = byId("token").value.trim();
      sessionStorage.setItem("limner-token", token);
      dialog.close();
    };
    dialog.addEventListener("close", given);
    dialog.showModal();
  });
  return asking;
}

function messageOf(status, text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return status ? `The service answered with status ${status}.` : GONE;
  }
}

/** One request -> {text or blob}.  `onUpload(fraction)` and `onText(all the text so far)` are called on the way. */
function once(path, { form = null, blob = false, onUpload, onText, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    request.open(form ? "POST" : "GET", path);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    if (blob) request.responseType = "blob";
    request.upload.onprogress = (event) => event.lengthComputable && onUpload?.(event.loaded / event.total);
    request.onprogress = () => request.status === 200 && !blob && onText?.(request.responseText);
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    request.onerror = () => reject(new RequestError(GONE, 0));
    request.onload = async () => {
      if (request.status === 200) return resolve(blob ? request.response : request.responseText);
      const text = blob ? await request.response.text() : request.responseText;
      const retryAfter = Number(request.getResponseHeader("Retry-After")) || 1;
      return reject(new RequestError(messageOf(request.status, text), request.status, retryAfter));
    };
    request.onloadend = () => signal?.removeEventListener("abort", stop);
    if (signal?.aborted) return stop() ?? reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", stop);
    request.send(form);
  });
}

async function send(path, options) {
  for (;;) {
    try {
      return await once(path, options);
    } catch (error) {
      if (error.status !== 401) throw error;
      await askForToken();
    }
  }
}

function formOf(file, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== "" && value !== null && value !== undefined) form.append(name, String(value));
  }
  form.append("file", file, file.name);
  return form;
}

export const getJson = async (path) => JSON.parse(await send(path));
export const getBlob = (path) => send(path, { blob: true });

/** The caption of a file.  `onUpload` and `onProgress` are called with fractions. */
export async function caption(file, fields, { onUpload, onProgress, signal } = {}) {
  const onText = (text) => {
    const lines = text.split("\n").slice(0, -1);
    const last = lines.length ? JSON.parse(lines[lines.length - 1]) : {};
    if (last.progress !== undefined) onProgress?.(last.progress);
  };
  const form = formOf(file, { ...fields, style: "plain", format: "jsonl" });
  const lines = (await send("/v1/caption", { form, onUpload, onText, signal })).trim().split("\n");
  const last = JSON.parse(lines[lines.length - 1]);
  if (last.error) throw new RequestError(last.error.message, last.status, 1);
  if (!last.answer) throw new RequestError(GONE, 0);
  return last.answer;
}

/** Maps of the words of a caption, and frames to draw them on. */
export const explain = async (file, fields, signal) =>
  JSON.parse(await send("/v1/explain", { form: formOf(file, { ...fields, format: "json" }), signal }));

/** The figure (PNG) or film (MP4) of an explanation. */
export const drawn = (file, fields, signal) => send("/v1/explain", { form: formOf(file, fields), blob: true, signal });
