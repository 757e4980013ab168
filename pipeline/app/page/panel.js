// The panel beside the picture: versions, hints, uncertainty, look. It shows a state and tells what the person wants.

import { swatch } from "./picker.js";

const find = (id) => document.querySelector(`#${id}`);

export class Panel extends EventTarget {
  /** Events: "version" {candidate}, "more", "hint" {id}, "suggestion" {index}, "overlay" {on}, "strength" {strength, gesture},
   *  "palette" {palette}. */
  constructor() {
    super();
    find("more").addEventListener("click", () => this.#tell("more"));
    find("overlay").addEventListener("change", (event) => this.#tell("overlay", { on: event.target.checked }));
    const strength = find("strength");
    strength.addEventListener("pointerdown", () => { this.gesture = Symbol("strength"); });
    strength.addEventListener("input", () => this.#tell("strength", { strength: Number(strength.value), gesture: this.gesture ?? "strength" }));
    find("palette-add").addEventListener("change", (event) => this.#tell("palette", { palette: [...this.look.palette, event.target.value] }));
  }

  show(photo, selected) {
    const { look } = photo;
    this.look = look;
    this.#versions(photo);
    this.#hints(look.hints, selected);
    find("strength").value = look.strength;
    find("strength-value").value = look.strength.toFixed(2);
    const without = (index) => look.palette.filter((_, other) => other !== index);
    find("palette").replaceChildren(...look.palette.map((color, index) => {
      const button = swatch(color, false, () => this.#tell("palette", { palette: without(index) }), `Remove ${color} from the palette`);
      button.classList.add("removable");
      button.removeAttribute("aria-pressed");
      return button;
    }));
    find("reference-name").textContent = look.reference?.name ?? "None";
    find("reference-remove").hidden = !look.reference;
    find("hints-save").disabled = look.hints.length === 0;
    const bits = photo.depth === 16 ? "16 bits" : "8 bits";
    find("save-note").textContent = `${photo.name}: ${photo.format.toUpperCase()}, ${photo.width} × ${photo.height}, ${bits}, with its metadata.`
      + ` Seed ${look.seed}, draw ${look.candidate ?? photo.candidate ?? "…"}.`;
  }

  /** suggestions: of the map, or null where it is off. */
  showSuggestions(suggestions) {
    const list = find("suggestions");
    list.hidden = !suggestions;
    list.replaceChildren(...(suggestions ?? []).map((place, index) => item(chip(`Place ${index + 1}`, place.colors[0], false, () => this.#tell("suggestion", { index })))));
  }

  #versions(photo) {
    const current = photo.look.candidate ?? photo.candidate, shown = photo.versions ?? Array(4).fill(null);
    find("versions").replaceChildren(...shown.map((version, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "version";
      button.setAttribute("aria-label", `Version ${index + 1}`);
      if (!version) {
        button.classList.add("loading");
        button.disabled = true;
        return button;
      }
      button.setAttribute("aria-pressed", String(version.candidate === current && version.seed === photo.look.seed));
      const image = document.createElement("img");
      image.src = version.thumbnail;
      image.alt = "";
      button.append(image);
      button.addEventListener("click", () => this.#tell("version", version));
      return button;
    }));
  }

  #hints(hints, selected) {
    find("hints-empty").hidden = hints.length > 0;
    find("hints").replaceChildren(...hints.map((hint, index) => item(chip(`Hint ${index + 1}`, hint.color, hint.id === selected, () => this.#tell("hint", { id: hint.id })))));
  }

  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
}

function chip(words, color, selected, chosen) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "chip";
  button.classList.toggle("selected", selected);
  const dot = document.createElement("i");
  dot.style.setProperty("--color", color);
  button.append(dot, words);
  button.addEventListener("click", chosen);
  return button;
}

function item(content) {
  const element = document.createElement("li");
  element.append(content);
  return element;
}
