// The state of the page, and its parts brought to it: which photograph is seen, what is selected, which map is shown.

import { report, run } from "./activity.js";
import { Markers } from "./markers.js";
import { Panel } from "./panel.js";
import { Picker } from "./picker.js";
import { Viewer } from "./viewer.js";

export const find = (id) => document.querySelector(`#${id}`);
export const viewer = new Viewer(find("stage"), find("canvas"), find("divider"));
export const markers = new Markers(find("markers"), viewer);
export const picker = new Picker(find("stage"), viewer);
export const panel = new Panel();

export const desk = {
  photos: [],
  photo: null, // the one that is seen
  pending: null, // a hint without a color yet: no part of the look
  selected: null, // the id of a hint
  offered: new Map(), // colors by the id of a hint
  doubts: null, // {look, suggestions} while the map is shown
  places: [], // suggestions where there is no hint yet

  get hints() { return this.pending ? [...this.photo.look.hints, this.pending] : this.photo.look.hints; },
};

/** Brings everything but the picture itself to the state at hand. */
export function show() {
  const { photo, photos, selected, doubts } = desk;
  document.body.classList.toggle("empty", !photo);
  find("strip").hidden = photos.length < 2;
  find("download-all").hidden = photos.length < 2;
  if (!photo) return;
  const hint = desk.hints.find((one) => one.id === selected) ?? null;
  const free = (place) => !desk.hints.some((one) => Math.hypot(one.x - place.x, one.y - place.y) < 1);
  desk.places = doubts ? doubts.suggestions.filter(free) : [];
  markers.show(desk.hints, selected, desk.places);
  picker.show(hint, hint && desk.offered.get(hint.id));
  panel.show(photo, selected);
  panel.showSuggestions(doubts && desk.places);
  find("undo").disabled = !photo.history.canUndo;
  find("redo").disabled = !photo.history.canRedo;
  find("title").textContent = `${photo.name} · ${photo.width} × ${photo.height}`;
  find("strip").replaceChildren(...photos.map(thumbnail));
}

/** A new look, and the picture that goes with it. Those of one gesture are undone at once. */
export function edit(change, gesture = null) {
  const { look } = desk.photo, same = (name) => JSON.stringify(change[name]) === JSON.stringify(look[name]);
  if (Object.keys(change).every(same)) return; // nothing that undo could take back
  desk.photo.history.push({ ...look, ...change }, gesture);
  show();
  refresh();
}

export function travel(step) {
  const { history } = desk.photo;
  history[step]();
  desk.pending = null;
  if (!desk.hints.some((hint) => hint.id === desk.selected)) desk.selected = null;
  show();
  refresh();
}

let busy = false, again = false;

/** The picture of the look at hand. One request at a time: while it runs, only the last wish is remembered. */
export async function refresh(zoomed = false) {
  again = true;
  if (busy) return;
  busy = true;
  find("stage").ariaBusy = "true";
  while (again && desk.photo) {
    again = false;
    const { photo } = desk, { look } = photo;
    try {
      const blob = await run("Coloring", (watching) => photo.picture(look, watching, zoomed));
      const bitmap = await createImageBitmap(blob);
      photo.setThumbnail(blob);
      if (photo === desk.photo) viewer.setColor(bitmap);
    } catch (fault) {
      report(fault);
      if (photo.look === look && fault.code === "bad_option") photo.history.undo(); // as it was before
    }
    show();
  }
  busy = false;
  find("stage").ariaBusy = "false";
  if (!zoomed && viewer.hungry) refresh(true); // quickly first, then with all pixels
  if (desk.doubts && desk.doubts.look !== desk.photo.look) map();
}

export function showMap(on) {
  find("overlay").checked = on;
  find("legend").hidden = !on;
  if (on) {
    map();
  } else {
    desk.doubts = null;
    viewer.setMap(null);
    show();
  }
}

/** The map of the look at hand, over the picture. */
async function map() {
  const { photo } = desk, { look } = photo;
  desk.doubts = { look, suggestions: desk.doubts?.suggestions ?? [] };
  const wanted = () => photo === desk.photo && desk.doubts?.look === look;
  try {
    const told = await run("Looking where it is unsure", (watching) => photo.uncertainty(look, watching));
    const image = new Image();
    image.src = told.map;
    await image.decode();
    if (!wanted()) return;
    desk.doubts = { look, suggestions: told.suggestions };
    viewer.setMap(image);
    show();
  } catch (fault) {
    report(fault);
    if (wanted()) showMap(false);
  }
}

/** Puts a photograph on the desk: gray, then colored, then its versions. */
export async function see(photo) {
  Object.assign(desk, { photo, pending: null, selected: null });
  if (desk.doubts) showMap(false);
  document.body.classList.remove("empty"); // so that the stage has a size
  try {
    const gray = await run("Reading", (watching) => photo.grayPicture(watching));
    if (photo !== desk.photo) return;
    viewer.show(photo, gray);
  } catch (fault) {
    report(fault);
  }
  show();
  await refresh();
  if (!photo.versions && photo === desk.photo) await versions(photo);
}

export async function versions(photo) {
  try {
    await run("Drawing versions", (watching) => photo.drawVersions(watching));
  } catch (fault) {
    report(fault);
  }
  show();
}

function thumbnail(photo) {
  const button = document.createElement("button"), image = document.createElement("img");
  button.type = "button";
  button.className = "thumb";
  button.title = photo.name;
  button.setAttribute("aria-label", photo.name);
  button.setAttribute("aria-current", String(photo === desk.photo));
  [image.src, image.alt] = [photo.thumbnail, ""];
  button.append(image);
  button.addEventListener("click", () => see(photo));
  return button;
}
