// One photograph: its file, what the server knows of it, and how it is to look.

import { nameOf, request, upload } from "./api.js";
import { History } from "./history.js";

const SHOWN_SIDE = 2048, THUMBNAIL_SIDE = 240; // pixels of the longer side on the page; a download has them all

/** A look is what decides about the picture. It is never changed in place: see History. */
const PLAIN = Object.freeze({ seed: 0, candidate: null, hints: [], palette: [], strength: 1, reference: null });

export class Photo {
  constructor(file) {
    this.file = file;
    this.name = file.name;
    this.id = null; // of the upload; null before, and after the visit has ended
    this.history = new History(PLAIN);
    this.versions = null; // [{candidate, thumbnail}] of this.look.seed
    this.gray = null; // ImageBitmap
    this.thumbnail = null; // an address
  }

  get look() { return this.history.now; }
  get longest() { return Math.max(this.width, this.height); }

  /** Sends the file. Raises ApiError where it can not be read. */
  async open(watching = {}) {
    const told = await upload(`/page/photos?name=${encodeURIComponent(this.name)}`, this.file, watching);
    Object.assign(this, told); // id, width, height, depth, format, notes
    if (!this.thumbnail) this.setThumbnail(await (await this.#ask("gray", { side: THUMBNAIL_SIDE })).blob());
  }

  setThumbnail(blob) {
    if (this.thumbnail) URL.revokeObjectURL(this.thumbnail);
    this.thumbnail = URL.createObjectURL(blob);
  }

  async grayPicture(options) {
    this.gray ??= await createImageBitmap(await (await this.#ask("gray", { side: SHOWN_SIDE }, options)).blob());
    return this.gray;
  }

  /** The colored picture as a blob; zoomed: with all pixels there are. The number of the draw is kept. */
  async picture(look, options, zoomed = false) {
    const response = await this.#ask("picture", { look: sent(look, this), side: zoomed ? null : SHOWN_SIDE }, options);
    this.candidate = Number(response.headers.get("Trichrome-Candidate"));
    return response.blob();
  }

  async drawVersions(options) {
    const { seed } = this.look;
    const response = await this.#ask("versions", { seed }, options);
    this.versions = (await response.json()).versions.map((one) => ({ ...one, seed }));
  }

  async uncertainty(look, options) {
    return (await this.#ask("uncertainty", { look: sent(look, this) }, options)).json();
  }

  /** Colors that draws have around a place. */
  async colorsAt(x, y, radius, options) {
    return (await (await this.#ask("colors", { seed: this.look.seed, x, y, radius }, options)).json()).colors;
  }

  hintsFile(look = this.look) {
    const points = look.hints.map(({ x, y, color, radius }) => ({ x, y, color, radius }));
    return { format: 1, size: [this.width, this.height], points };
  }

  async download(options) {
    const response = await this.#ask("file", { look: sent(this.look, this) }, options);
    return { blob: await response.blob(), name: nameOf(response) };
  }

  /** For a zip: which upload, and how. */
  ordered() { return { photo: this.id, look: sent(this.look, this) }; }

  async close() { await request(`/page/photos/${this.id}`, { method: "DELETE" }); }

  /** A request about this photo. Where the visit has ended meanwhile, the file is sent again: the page still has it. */
  async #ask(what, json, options = {}) {
    const ask = () => request(`/page/photos/${this.id}/${what}`, { json, ...options });
    try {
      return await ask();
    } catch (fault) {
      if (fault.code !== "gone") throw fault;
      await this.open(options);
      const reference = json.look?.reference && this.look.reference;
      if (reference) json.look.reference = await sendReference(reference.file);
      return ask();
    }
  }
}

/** Takes a color picture to the server: its name there. */
export async function sendReference(file, options) {
  return (await upload(`/page/photos?name=${encodeURIComponent(file.name)}`, file, options)).id;
}

function sent(look, photo) {
  const { seed, candidate, palette, strength, reference } = look;
  const hints = look.hints.length ? photo.hintsFile(look) : null;
  return { seed, candidate, palette, strength, reference: reference && reference.id, hints };
}
