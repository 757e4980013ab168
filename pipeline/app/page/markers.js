// Hints and suggested places over the picture: buttons that the mouse drags and the keyboard moves.

import { inside } from "./viewer.js";

const SMALLEST_RING = 20; // screen pixels, so that the grip never covers the button

export class Markers extends EventTarget {
  /** Events: "select" {id}, "change" {id, x, y, radius, gesture}, "remove" {id}, "suggestion" {index}. */
  constructor(layer, viewer) {
    super();
    Object.assign(this, { layer, viewer, hints: [], places: [], selected: null, elements: new Map() });
    viewer.addEventListener("view", () => this.#place());
  }

  /** hints: {id, x, y, radius, color or null}; places: suggestions, or none. */
  show(hints, selected, places = []) {
    Object.assign(this, { hints, selected, places });
    const wanted = new Set([...hints.map((hint) => hint.id), ...places.map((_, index) => `place${index}`)]);
    for (const [id, element] of this.elements) if (!wanted.has(id)) element.remove(), this.elements.delete(id);
    hints.forEach((hint, index) => this.#hint(hint, index));
    places.forEach((place, index) => this.#suggestion(place, index));
    this.#place();
  }

  focus(id) { this.elements.get(id)?.querySelector("button").focus(); }

  #hint(hint, index) {
    const element = this.elements.get(hint.id) ?? this.#made(hint.id);
    element.classList.toggle("selected", hint.id === this.selected);
    element.classList.toggle("pending", !hint.color);
    element.style.setProperty("--color", hint.color ?? "#0000");
    const place = `at ${Math.round(hint.x)}, ${Math.round(hint.y)}`;
    element.querySelector("button").setAttribute("aria-label", `Hint ${index + 1}, ${hint.color ?? "no color yet"}, ${place}`);
  }

  #made(id) {
    const element = document.createElement("div");
    element.className = "hint";
    element.innerHTML = '<span class="ring"></span><button type="button"></button><span class="grip"></span>';
    const [, button, grip] = element.children;
    this.#dragged(button, id, (hint, dx, dy) => ({ ...inside(this.viewer.photo, hint.x + dx, hint.y + dy) }));
    this.#dragged(grip, id, (hint, dx) => ({ radius: this.#sensible(hint.radius + dx) }));
    button.addEventListener("click", () => this.#tell("select", { id }));
    button.addEventListener("keydown", (event) => this.#key(event, id));
    this.layer.append(element);
    this.elements.set(id, element);
    return element;
  }

  #suggestion(place, index) {
    const id = `place${index}`;
    if (this.elements.has(id)) return;
    const element = document.createElement("div");
    element.className = "hint place";
    element.innerHTML = `<button type="button" aria-label="Suggested place ${index + 1}">${index + 1}</button>`;
    element.firstChild.addEventListener("click", () => this.#tell("suggestion", { index }));
    this.layer.append(element);
    this.elements.set(id, element);
  }

  #dragged(handle, id, changed) {
    let from = null, gesture = null;
    handle.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      handle.setPointerCapture(event.pointerId);
      from = { hint: this.#of(id), x: event.clientX, y: event.clientY };
      gesture = null;
    });
    handle.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      if (!gesture && Math.hypot(dx, dy) < 3) return;
      gesture ??= Symbol("drag");
      this.#tell("change", { id, ...changed(from.hint, dx / this.viewer.scale, dy / this.viewer.scale), gesture });
    });
    const end = () => { from = null; };
    handle.addEventListener("pointerup", end);
    handle.addEventListener("pointercancel", end);
  }

  #key(event, id) {
    const hint = this.#of(id), step = (event.shiftKey ? 20 : 4) / this.viewer.scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const sizes = { "[": 1 / 1.15, "]": 1.15 };
    if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      this.#tell("change", { id, ...inside(this.viewer.photo, hint.x + dx, hint.y + dy), gesture: `keys ${id}` });
    } else if (sizes[event.key]) {
      this.#tell("change", { id, radius: this.#sensible(hint.radius * sizes[event.key]), gesture: `size ${id}` });
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.#tell("remove", { id });
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  #of(id) { return this.hints.find((hint) => hint.id === id); }

  #sensible(radius) { return Math.min(this.viewer.photo.longest / 4, Math.max(0.5, Math.round(radius * 10) / 10)); }

  #place() {
    for (const hint of this.hints) {
      const element = this.elements.get(hint.id), radius = hint.radius * this.viewer.scale;
      this.#move(element, hint);
      const [ring, , grip] = element.children;
      ring.style.width = ring.style.height = `${2 * radius}px`;
      grip.style.left = `${Math.max(SMALLEST_RING, radius)}px`;
    }
    this.places.forEach((place, index) => this.#move(this.elements.get(`place${index}`), place));
  }

  #move(element, { x, y }) {
    const place = this.viewer.toStage(x, y);
    element.style.left = `${place.x}px`;
    element.style.top = `${place.y}px`;
  }

  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
}
