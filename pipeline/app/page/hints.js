// Hints: placed without a color first, then given one, moved, resized, removed; and read from a file.

import { report, say } from "./activity.js";
import { request } from "./api.js";
import { desk, edit, markers, picker, show } from "./desk.js";

const RADIUS = 1 / 64; // of a new hint, in longer sides, as elsewhere in Trichrome
let nextId = 1;

const tenth = (value) => Math.round(value * 10) / 10;

/** A hint at a place, still without a color. colors: what is offered for it; by default what draws have there. */
export function place({ x, y }, radius = desk.photo.longest * RADIUS, colors = null) {
  desk.pending = { id: nextId++, x: tenth(x), y: tenth(y), radius: tenth(radius), color: null };
  if (colors) desk.offered.set(desk.pending.id, colors);
  select(desk.pending.id);
}

export async function select(id) {
  if (desk.pending && id !== desk.pending.id) desk.pending = null;
  desk.selected = id;
  show();
  const { photo, offered } = desk, hint = desk.hints.find((one) => one.id === id);
  if (!hint || offered.has(id)) return;
  try {
    offered.set(id, await photo.colorsAt(hint.x, hint.y, hint.radius));
  } catch (fault) {
    report(fault);
    offered.set(id, []);
  }
  if (desk.selected === id) show();
}

export function change(id, changed, gesture = null) {
  if ("x" in changed) desk.offered.delete(id);
  if (desk.pending?.id !== id) {
    edit({ hints: desk.photo.look.hints.map((hint) => (hint.id === id ? { ...hint, ...changed } : hint)) }, gesture);
    return;
  }
  desk.pending = { ...desk.pending, ...changed };
  if (!desk.pending.color) return show();
  const { hints } = desk; // with the pending one
  desk.pending = null;
  edit({ hints }, gesture);
}

export function remove(id) {
  desk.selected = null;
  if (desk.pending?.id === id) desk.pending = null;
  const { hints } = desk.photo.look;
  if (hints.some((hint) => hint.id === id)) edit({ hints: hints.filter((hint) => hint.id !== id) });
  else show();
}

export function deselect() {
  const had = desk.selected;
  Object.assign(desk, { pending: null, selected: null });
  show();
  markers.focus(had);
}

export function suggested(index) {
  const { x, y, radius, colors } = desk.places[index];
  place({ x, y }, radius, colors);
  picker.focus();
}

export async function readHints(file) {
  const { photo } = desk;
  if (!photo) return say("Open the photograph of these hints first.");
  try {
    const record = JSON.parse(await file.text());
    const { size, points } = await (await request("/page/hints", { json: { hints: record } })).json();
    if (size[0] !== photo.width || size[1] !== photo.height) {
      return say(`${file.name} is for a picture of ${size[0]} × ${size[1]} pixels; this one has ${photo.width} × ${photo.height}.`);
    }
    deselect();
    edit({ hints: points.map((point) => ({ ...point, radius: point.radius ?? photo.longest * RADIUS, id: nextId++ })) });
  } catch (fault) {
    if (fault instanceof SyntaxError) say(`${file.name} is no hints file: it is not JSON.`);
    else report(fault);
  }
}
