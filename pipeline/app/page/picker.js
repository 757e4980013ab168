// The small window beside a hint: which color, how large.

const BESIDE = 28; // screen pixels between the hint and the window

export class Picker extends EventTarget {
  /** Events: "color" {color}, "size" {radius}, "remove", "close". */
  constructor(stage, viewer) {
    super();
    Object.assign(this, { stage, viewer, hint: null });
    const find = (id) => document.querySelector(`#picker${id}`);
    [this.box, this.colors, this.any, this.size] = [find(""), find("-colors"), find("-any"), find("-size")];
    this.any.addEventListener("change", () => this.#tell("color", { color: this.any.value }));
    this.size.addEventListener("input", () => this.#tell("size", { radius: radiusAt(this.size.value, this.viewer.photo) }));
    find("-delete").addEventListener("click", () => this.#tell("remove"));
    find("-close").addEventListener("click", () => this.#tell("close"));
    this.box.addEventListener("keydown", (event) => { if (event.key === "Escape") this.#tell("close"); });
    viewer.addEventListener("view", () => this.#place());
  }

  /** hint: {x, y, radius, color}, or null to close; colors: those that draws have there, null while they are awaited. */
  show(hint, colors) {
    const opened = hint && hint.id !== this.hint?.id;
    this.hint = hint;
    this.box.hidden = !hint;
    if (!hint) return;
    if (hint.color) this.any.value = hint.color;
    this.size.value = shareOf(hint.radius, this.viewer.photo);
    this.colors.replaceChildren(...(colors ?? []).map((color) => swatch(color, color === hint.color, () => this.#tell("color", { color }))));
    this.colors.setAttribute("aria-busy", String(!colors));
    if (opened) this.#place();
  }

  focus() { (this.colors.querySelector("button") ?? this.any).focus(); }

  get hasFocus() { return this.box.contains(document.activeElement); }

  #place() {
    if (this.box.hidden || !this.hint) return;
    const { x, y } = this.viewer.toStage(this.hint.x, this.hint.y);
    const { offsetWidth: width, offsetHeight: height } = this.box, { clientWidth, clientHeight } = this.stage;
    const right = x + BESIDE + width < clientWidth - 12;
    this.box.style.left = `${Math.max(12, right ? x + BESIDE : x - BESIDE - width)}px`;
    this.box.style.top = `${Math.min(Math.max(12, y - 40), Math.max(12, clientHeight - height - 76))}px`;
  }

  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
}

/** A round button of one color. */
export function swatch(color, pressed, chosen, label = color) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "swatch";
  button.style.setProperty("--color", color);
  button.setAttribute("aria-label", label);
  button.setAttribute("aria-pressed", String(pressed));
  button.title = color;
  button.addEventListener("click", chosen);
  return button;
}

// The slider goes from a 512th of the longer side to an 8th, evenly in the logarithm.
function radiusAt(share, photo) { return Math.round(photo.longest / 512 * 64 ** (share / 100) * 10) / 10; }
function shareOf(radius, photo) { return Math.round(100 * Math.log(512 * radius / photo.longest) / Math.log(64)); }
