// What is under way, with its progress and a way to cancel it; and messages that stay until they are read.

import { request } from "./api.js";

const SHOWN_AFTER = 600, ASKED_EVERY = 300; // milliseconds
const pill = document.querySelector("#activity");
const text = document.querySelector("#activity-text");
const bar = document.querySelector("#activity-bar");
const messages = document.querySelector("#messages");
const tasks = [];

document.querySelector("#activity-cancel").addEventListener("click", () => tasks.at(-1)?.stop.abort());

/** Awaits work({signal, job, tell}); what takes long is shown as `label`. Raises what the work raises. */
export async function run(label, work) {
  const task = { label, detail: "", share: null, stop: new AbortController(), shown: false, ended: false };
  const job = crypto.randomUUID?.() ?? String(Math.random()); // randomUUID is of secure contexts alone
  const tell = (share, detail = "") => { Object.assign(task, { share, detail }); show(); };
  tasks.push(task);
  const timer = setTimeout(() => { task.shown = true; show(); watch(task, job); }, SHOWN_AFTER);
  try {
    return await work({ signal: task.stop.signal, job, tell });
  } finally {
    clearTimeout(timer);
    task.ended = true;
    tasks.splice(tasks.indexOf(task), 1);
    show();
  }
}

/** A sentence for the person; of several at once the last stay. */
export function say(sentence) {
  const message = document.createElement("div");
  message.className = "message";
  const words = document.createElement("p");
  words.textContent = sentence;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "icon";
  close.setAttribute("aria-label", "Close message");
  close.innerHTML = '<svg aria-hidden="true"><use href="#i-close"/></svg>';
  close.addEventListener("click", () => message.remove());
  message.append(words, close);
  messages.append(message);
  while (messages.children.length > 4) messages.firstChild.remove();
}

/** Says what went wrong, unless the person has cancelled it. */
export function report(fault) {
  if (fault.name === "AbortError" || fault.code === "cancelled") return;
  say(fault.message.charAt(0).toUpperCase() + fault.message.slice(1));
}

function show() {
  const task = tasks.findLast((one) => one.shown);
  pill.hidden = !task;
  if (!task) return;
  text.textContent = [task.label, task.detail].filter(Boolean).join(" · ");
  if (task.share === null) bar.removeAttribute("value");
  else bar.value = task.share;
}

/** Asks the server how far a job is, until it has ended; an upload tells by itself. */
async function watch(task, job) {
  while (!task.ended) {
    try {
      const { ahead, done, total } = await (await request(`/page/jobs/${job}`, { method: "GET" })).json();
      task.detail = ahead ? `${ahead} before it` : total > 1 ? `${done} of ${total}` : "";
      task.share = total && !ahead ? done / total : null;
      show();
    } catch { /* the request itself will say it */ }
    await new Promise((resolve) => setTimeout(resolve, ASKED_EVERY));
  }
}
