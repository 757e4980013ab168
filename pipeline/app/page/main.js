// What a person does, and what happens then.

import { report, run, say } from "./activity.js";
import { begun, nameOf, request } from "./api.js";
import { desk, edit, find, markers, panel, picker, refresh, see, show, showMap, travel, versions, viewer } from "./desk.js";
import { mayBePicture, saveFile, saveJson, takeFiles } from "./files.js";
import { change, deselect, place, readHints, remove, select, suggested } from "./hints.js";
import { Photo, sendReference } from "./photo.js";

const SETTLED = 400; // milliseconds after a zoom

// files

takeFiles(openFiles, readHints);

async function openFiles(files) {
  try {
    const { limits } = await begun();
    for (const [index, file] of files.entries()) {
      if (!mayBePicture(file)) say(`${file.name} is no picture: JPEG, PNG, TIFF and WebP files are read.`);
      else if (file.size > limits.megabytes * 1e6) say(`${file.name} has ${Math.ceil(file.size / 1e6)} megabytes; up to ${limits.megabytes} are taken.`);
      else await openFile(file, files.length > 1 ? `Opening ${index + 1} of ${files.length}` : "Opening");
    }
  } catch (fault) {
    report(fault);
  }
}

/** Raises what ends the others too: cancelling, a server that is gone. */
async function openFile(file, label) {
  const photo = new Photo(file);
  try {
    await run(label, (watching) => photo.open({ ...watching, sent: (share) => watching.tell(share < 1 ? share : null) }));
  } catch (fault) {
    if (fault.name === "AbortError" || fault.code === "unreachable") throw fault;
    return report(fault);
  }
  desk.photos.push(photo);
  photo.notes.forEach((note) => say(`${file.name}: ${note}`));
  if (desk.photo) show();
  else see(photo);
}

async function download() {
  try {
    const { blob, name } = await run("Preparing the file", (watching) => desk.photo.download(watching));
    saveFile(blob, name);
  } catch (fault) {
    report(fault);
  }
}

async function downloadAll() {
  const { photos } = desk;
  const ask = ({ signal, job }) => request("/page/zip", { json: { photos: photos.map((one) => one.ordered()) }, signal, job });
  try {
    const response = await run("Coloring all", (watching) => ask(watching).catch(async (fault) => {
      if (fault.code !== "gone") throw fault; // the visit has ended, but the page still has the files
      for (const one of photos) await one.open(watching);
      return ask(watching);
    }));
    saveFile(await response.blob(), nameOf(response));
  } catch (fault) {
    report(fault);
  }
}

find("reference-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    const id = await run("Reading the reference", (watching) => sendReference(file, watching));
    edit({ reference: { id, file, name: file.name } });
  } catch (fault) {
    report(fault);
  }
});

// the picture

viewer.addEventListener("place", (event) => place(event.detail));
let settling = 0;
viewer.addEventListener("view", () => {
  find("zoom").value = `${Math.round(viewer.scale * devicePixelRatio * 100)} %`;
  clearTimeout(settling);
  settling = setTimeout(() => { if (viewer.hungry) refresh(true); }, SETTLED);
});
markers.addEventListener("select", ({ detail: { id } }) => { select(id); picker.focus(); });
markers.addEventListener("change", ({ detail: { id, gesture, ...changed } }) => change(id, changed, gesture));
markers.addEventListener("remove", ({ detail: { id } }) => remove(id));
markers.addEventListener("suggestion", ({ detail: { index } }) => suggested(index));
picker.addEventListener("color", ({ detail: { color } }) => change(desk.selected, { color }));
picker.addEventListener("size", ({ detail: { radius } }) => change(desk.selected, { radius }, `size ${desk.selected}`));
picker.addEventListener("remove", () => remove(desk.selected));
picker.addEventListener("close", deselect);

// the panel

panel.addEventListener("version", ({ detail: { candidate, seed } }) => edit({ candidate, seed }));
panel.addEventListener("more", () => {
  desk.photo.versions = null;
  edit({ seed: desk.photo.look.seed + 1, candidate: null });
  versions(desk.photo);
});
panel.addEventListener("hint", ({ detail: { id } }) => { select(id); markers.focus(id); });
panel.addEventListener("suggestion", ({ detail: { index } }) => suggested(index));
panel.addEventListener("overlay", ({ detail: { on } }) => showMap(on));
panel.addEventListener("strength", ({ detail: { strength, gesture } }) => edit({ strength }, gesture));
panel.addEventListener("palette", ({ detail: { palette } }) => edit({ palette }));

const addInTheMiddle = () => { place(viewer.middle()); picker.focus(); };
const help = () => find("help").showModal();
const compare = () => {
  viewer.compare(viewer.split ? 0 : 0.5);
  find("compare").setAttribute("aria-pressed", String(viewer.split > 0));
};
const clicks = {
  undo: () => travel("undo"), redo: () => travel("redo"), compare, download, "download-all": downloadAll, "help-open": help,
  "zoom-in": () => viewer.zoom(1.4), "zoom-out": () => viewer.zoom(1 / 1.4), "zoom-fit": () => viewer.fit(),
  "hint-add": addInTheMiddle, "hints-save": () => saveJson(desk.photo.hintsFile(), `${desk.photo.name}.hints.json`),
  "reference-choose": () => find("reference-file").click(), "reference-remove": () => edit({ reference: null }),
};
for (const [id, clicked] of Object.entries(clicks)) find(id).addEventListener("click", clicked);

// the keyboard

const keys = {
  c: compare, h: addInTheMiddle, "+": clicks["zoom-in"], "=": clicks["zoom-in"], "-": clicks["zoom-out"], 0: clicks["zoom-fit"],
  Escape: deselect, "?": help,
};
addEventListener("keydown", (event) => {
  const { photo } = desk, { key, target } = event, typing = target.closest?.("textarea, dialog[open], input");
  if (!photo || (typing && !["checkbox", "color", "range"].includes(target.type))) return;
  const version = /^[1-4]$/.test(key) ? photo.versions?.[key - 1] : null;
  if ((event.ctrlKey || event.metaKey) && /^[zy]$/i.test(key)) {
    travel(event.shiftKey || /y/i.test(key) ? "redo" : "undo");
  } else if (event.ctrlKey || event.metaKey || event.altKey || !(version || keys[key])) {
    return;
  } else if (version) {
    edit({ candidate: version.candidate, seed: version.seed });
  } else {
    keys[key]();
  }
  event.preventDefault();
});

begun().then(({ local }) => {
  find("privacy").textContent = local ? "Nothing leaves this computer." : "What you open is deleted when you leave.";
}, report);
