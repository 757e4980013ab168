// Requests to the server. A visit begins with the first one and ends with the page; its secret goes along each time.

export class ApiError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

let visit = null; // a promise of {visit, limits, local}
let secret = "";

export function begun() {
  visit ??= begin();
  visit.catch(() => { visit = null; });
  return visit;
}

async function begin() {
  const told = await (await checked(await reached(fetch("/page/visit", { method: "POST" })))).json();
  secret = told.visit;
  return told;
}

/** The answer to a request; raises ApiError with a sentence for a person. job: a name to ask for its progress by. */
export async function request(path, { method = "POST", json, signal, job } = {}) {
  await begun();
  const headers = { "Trichrome-Visit": secret };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (job) headers["Trichrome-Job"] = job;
  const body = json === undefined ? undefined : JSON.stringify(json);
  return checked(await reached(fetch(path, { method, headers, body, signal })));
}

/** Sends a file; sent(share) hears how much of it is on the way. fetch can not tell that. */
export async function upload(path, file, { signal, sent = () => {} } = {}) {
  await begun();
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", path);
    sending.setRequestHeader("Trichrome-Visit", secret);
    sending.upload.onprogress = (event) => sent(event.loaded / Math.max(1, event.total));
    sending.onload = () => (sending.status < 400 ? resolve(JSON.parse(sending.responseText)) : reject(error(sending.responseText)));
    sending.onerror = () => reject(unreachable());
    sending.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => sending.abort());
    sending.send(file);
  });
}

/** The name that the server gives to a file. */
export function nameOf(response) {
  const encoded = /filename\*=utf-8''([^;]+)/i.exec(response.headers.get("Content-Disposition") ?? "");
  return encoded ? decodeURIComponent(encoded[1]) : "picture";
}

addEventListener("pagehide", (event) => {
  if (secret && !event.persisted) navigator.sendBeacon("/page/visit/end", secret);
});

async function checked(response) {
  if (!response.ok) throw error(await response.text());
  return response;
}

function error(text) {
  let code = "internal", message = "The server gave no reason.";
  try {
    ({ code, message } = JSON.parse(text).error);
  } catch { /* an answer that is not the server's own */ }
  if (code === "gone") visit = null, secret = "";
  return new ApiError(code, message);
}

function reached(answer) {
  return answer.catch((fault) => { throw fault.name === "AbortError" ? fault : unreachable(); });
}

function unreachable() {
  return new ApiError("unreachable", "The server does not answer. Is it still running?");
}
