// The picture on its canvas: zoom, pan, before and after, the map over it. Places are pixels of the whole photograph.

const MAX_SCALE = 16, MARGIN = 24, CLICK = 4; // screen pixels to a photograph's pixel; around it; that a click may move
const HEAT = [[70, 0, 160], [200, 0, 130], [255, 110, 0], [255, 240, 60]]; // from sure to unsure
const COVER = 0.8; // of the picture, where the map is white

export class Viewer extends EventTarget {
  /** Events: "view" after zoom and pan, "place" of a click with {x, y} in detail. */
  constructor(stage, canvas, divider) {
    super();
    Object.assign(this, { stage, canvas, divider, split: 0, fitted: true, photo: null, color: null, gray: null, heat: null });
    Object.assign(this, { scale: 1, left: 0, top: 0, pointers: new Map() });
    new ResizeObserver(() => this.#resized()).observe(stage);
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#up(event));
    divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", (event) => {
      if (divider.hasPointerCapture(event.pointerId)) this.compare((event.clientX - stage.getBoundingClientRect().left) / stage.clientWidth);
    });
    divider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 }[event.key];
      if (step) this.compare(this.split + step), event.preventDefault();
    });
  }

  show(photo, gray) {
    this.color?.close();
    Object.assign(this, { photo, gray, color: null, heat: null });
    this.fit();
  }

  setColor(bitmap) {
    this.color?.close();
    this.color = bitmap;
    this.fresh = true;
    this.draw();
  }

  /** map: 8-bit levels as an image, or null. */
  setMap(map) {
    this.heat = map && heated(map);
    this.draw();
  }

  /** How much of the stage, from the left, shows the gray picture; 0 hides the divider. */
  compare(split) {
    this.split = Math.min(1, Math.max(0, split));
    this.divider.hidden = this.split === 0;
    this.divider.style.left = `${this.split * 100}%`;
    this.divider.setAttribute("aria-valuenow", Math.round(this.split * 100));
    this.draw();
  }

  fit() {
    if (!this.photo) return;
    const { width, height } = this.photo;
    const room = { width: this.stage.clientWidth - 2 * MARGIN, height: this.stage.clientHeight - 2 * MARGIN - 56 };
    this.scale = Math.max(0.01, Math.min(room.width / width, room.height / height, 4));
    this.left = (this.stage.clientWidth - width * this.scale) / 2;
    this.top = MARGIN + (room.height - height * this.scale) / 2;
    this.fitted = true;
    this.#changed();
  }

  /** Zooms by a factor around a point of the stage, by default its middle. */
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(MAX_SCALE, Math.max(0.02, this.scale * factor));
    this.left = x - (x - this.left) * scale / this.scale;
    this.top = y - (y - this.top) * scale / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.#changed();
  }

  toStage(x, y) { return { x: this.left + x * this.scale, y: this.top + y * this.scale }; }
  toPhoto(x, y) { return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale }; }

  /** A place of the photograph in the middle of what is seen. */
  middle() {
    const { x, y } = this.toPhoto(this.stage.clientWidth / 2, this.stage.clientHeight / 2);
    return inside(this.photo, x, y);
  }

  /** Whether the screen could show more pixels than the picture at hand has. */
  get hungry() {
    const share = (this.color?.width ?? Infinity) / (this.photo?.width ?? 1);
    return share < 1 && this.scale * devicePixelRatio > 1.1 * share;
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const context = this.canvas.getContext("2d"), ratio = devicePixelRatio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.photo) return;
    const { width, height } = this.photo;
    const placed = [ratio * this.left, ratio * this.top, ratio * width * this.scale, ratio * height * this.scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(this.color ?? this.gray, ...placed);
    if (this.heat) context.drawImage(this.heat, ...placed);
    if (this.split > 0 && this.gray) {
      context.save();
      context.beginPath();
      context.rect(0, 0, this.split * this.canvas.width, this.canvas.height);
      context.clip();
      context.drawImage(this.gray, ...placed);
      context.restore();
    }
    if (this.fresh) this.canvas.dataset.pictures = Number(this.canvas.dataset.pictures ?? 0) + 1; // for who waits for one
    this.fresh = false;
  }

  #resized() {
    this.canvas.width = Math.max(1, Math.round(this.stage.clientWidth * devicePixelRatio));
    this.canvas.height = Math.max(1, Math.round(this.stage.clientHeight * devicePixelRatio));
    if (this.fitted) this.fit();
    else this.#changed();
  }

  #changed() {
    this.draw();
    this.dispatchEvent(new Event("view"));
  }

  #wheel(event) {
    event.preventDefault();
    const { left, top } = this.stage.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - left, event.clientY - top);
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.travelled = this.pointers.size > 1 ? Infinity : 0; // two fingers never click
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before.x, event.clientY - before.y];
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = (place) => Math.hypot(place.x - other.x, place.y - other.y);
      const { left, top } = this.stage.getBoundingClientRect();
      this.left += dx / 2, this.top += dy / 2;
      this.zoom(apart({ x: event.clientX, y: event.clientY }) / Math.max(1, apart(before)), other.x - left, other.y - top);
    } else if ((this.travelled += Math.hypot(dx, dy)) > CLICK) {
      this.stage.classList.add("panning");
      this.left += dx, this.top += dy;
      this.fitted = false;
      this.#changed();
    }
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  #up(event) {
    const clicked = this.pointers.size === 1 && this.travelled <= CLICK && event.type === "pointerup";
    this.pointers.delete(event.pointerId);
    this.stage.classList.remove("panning");
    if (!clicked || !this.photo || event.button > 0) return;
    const { left, top } = this.stage.getBoundingClientRect();
    const { x, y } = this.toPhoto(event.clientX - left, event.clientY - top);
    if (x >= 0 && y >= 0 && x < this.photo.width && y < this.photo.height) {
      this.dispatchEvent(new CustomEvent("place", { detail: { x, y } }));
    }
  }
}

/** The nearest place within a photograph, to a tenth of a pixel. */
export function inside({ width, height }, x, y) {
  const within = (value, size) => Math.min(size - 0.1, Math.max(0, Math.round(value * 10) / 10));
  return { x: within(x, width), y: within(y, height) };
}

function heated(map) {
  const canvas = new OffscreenCanvas(map.width, map.height), context = canvas.getContext("2d");
  context.drawImage(map, 0, 0);
  const image = context.getImageData(0, 0, map.width, map.height), { data } = image;
  for (let i = 0; i < data.length; i += 4) {
    const share = data[i] / 255, at = Math.min(HEAT.length - 2, Math.floor(share * (HEAT.length - 1)));
    const part = share * (HEAT.length - 1) - at;
    for (let k = 0; k < 3; k += 1) data[i + k] = HEAT[at][k] + part * (HEAT[at + 1][k] - HEAT[at][k]);
    data[i + 3] = 255 * COVER * share;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
