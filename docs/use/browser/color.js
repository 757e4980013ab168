// Luma and chroma, and the photograph at its full size: as examples/onnx_colorize.py has them.

import { linearPlaces, plane, resized, windowMean } from "./planes.js";

export class Color {
  /** about: the content of trichrome.json. */
  constructor(about) {
    this.luma = about.color.luma;
    this.scales = about.color.scales;
    this.sharpen = about.sharpen;
    this.fullSize = about["full size"];
  }

  /** The luma in [0, 1] of pixels as a canvas has them, four bytes each. */
  gray(pixels, height, width) {
    const [red, green, blue] = this.luma, result = plane(height, width);
    for (let i = 0, at = 0; i < result.data.length; i++, at += 4) {
      const [r, g, b] = [pixels[at], pixels[at + 1], pixels[at + 2]];
      result.data[i] = (r === g && g === b ? r : red * r + green * g + blue * b) / 255;
    }
    return result;
  }

  /** Luma, Cb and Cr of an answer of the graphs (1, 3, side, side). */
  split(rgb, side) {
    const count = side * side, parts = [plane(side, side), plane(side, side), plane(side, side)];
    for (let i = 0; i < count; i++) {
      const gray = this.luma[0] * rgb[i] + this.luma[1] * rgb[count + i] + this.luma[2] * rgb[2 * count + i];
      parts[0].data[i] = gray;
      parts[1].data[i] = (rgb[2 * count + i] - gray) / this.scales[0];
      parts[2].data[i] = (rgb[i] - gray) / this.scales[1];
    }
    return parts;
  }

  /** The color of a luma with as much of the chroma as fits into sRGB, into `into`: red, green, blue. */
  merge(gray, cb, cr, into) {
    const red = this.scales[1] * cr, blue = this.scales[0] * cb;
    const green = -(this.luma[0] * red + this.luma[2] * blue) / this.luma[1];
    const up = (1 - gray) / Math.max(red, green, blue, 1e-12);
    const down = gray / Math.max(-Math.min(red, green, blue), 1e-12);
    const share = Math.min(Math.max(Math.min(up, down), 0), 1);
    into[0] = Math.min(Math.max(gray + share * red, 0), 1);
    into[1] = Math.min(Math.max(gray + share * green, 0), 1);
    into[2] = Math.min(Math.max(gray + share * blue, 0), 1);
  }

  /** An answer of the last graph, (1, 3, side, side), with steeper edges of color, in place. */
  sharpened(gray256, rgb) {
    const side = gray256.width, count = side * side, radius = this.sharpen.window >> 1, into = [0, 0, 0];
    const [, cb, cr] = this.split(rgb, side);
    const [softCb, softCr] = [windowMean(cb, radius), windowMean(cr, radius)];
    const sharper = (chroma, soft, i) => chroma.data[i] + this.sharpen.sharpness * (chroma.data[i] - soft.data[i]);
    for (let i = 0; i < count; i++) {
      this.merge(gray256.data[i], sharper(cb, softCb, i), sharper(cr, softCr, i), into);
      for (let channel = 0; channel < 3; channel++) rgb[channel * count + i] = into[channel];
    }
    return rgb;
  }

  /** The colors of rgb (1, 3, side, side) along the edges of the photograph, four bytes per pixel. */
  finished(gray, rgb, side) {
    const { height, width } = gray, size = [Math.min(side, height), Math.min(side, width)];
    const [low, ...chroma] = this.split(rgb, side).map((one) => resized(one, ...size));
    const direct = size[0] === height && size[1] === width;
    const fits = chroma.map((one) => direct ? { slope: plane(...size), offset: one } : this.#fit(low, one));
    const rows = linearPlaces(size[0], height), columns = linearPlaces(size[1], width);
    const [slopeCb, offsetCb, slopeCr, offsetCr] = fits.flatMap(
      ({ slope, offset }) => [widened(slope, columns), widened(offset, columns)]);
    const pixels = new Uint8ClampedArray(4 * height * width), into = [0, 0, 0];
    for (let y = 0; y < height; y++) {
      const share = rows.share[y];
      for (let x = 0; x < width; x++) {
        const luma = gray.data[y * width + x], upper = rows.low[y] * width + x, lower = rows.high[y] * width + x;
        const between = (map) => map[upper] + share * (map[lower] - map[upper]);
        const cb = between(slopeCb) * luma + between(offsetCb), cr = between(slopeCr) * luma + between(offsetCr);
        this.merge(luma, cb, cr, into);
        this.#round(into, pixels, 4 * (y * width + x));
      }
    }
    return pixels;
  }

  /** Chroma as slope * gray + offset around each pixel. */
  #fit(gray, chroma) {
    const { radius, epsilon } = this.fullSize, product = (a, b) => plane(a.height, a.width, a.data.map((v, i) => v * b.data[i]));
    const [mean, meanChroma, square, both] = [gray, chroma, product(gray, gray), product(gray, chroma)].map(
      (one) => windowMean(one, radius).data);
    const slope = plane(gray.height, gray.width), offset = plane(gray.height, gray.width);
    for (let i = 0; i < slope.data.length; i++) {
      const variance = Math.max(square[i] - mean[i] * mean[i], 0);
      slope.data[i] = (both[i] - mean[i] * meanChroma[i]) / (variance + epsilon);
      offset.data[i] = chroma.data[i] - slope.data[i] * gray.data[i];
    }
    return { slope, offset };
  }

  /** A color in [0, 1] as whole levels whose luma is its own to half a level. */
  #round(rgb, pixels, at) {
    let error = 0;
    for (let channel = 0; channel < 3; channel++) {
      const level = 255 * rgb[channel], whole = nearest(level);
      error += this.luma[channel] * (level - whole);
      pixels[at + channel] = whole;
    }
    const colored = rgb[0] !== rgb[1] || rgb[1] !== rgb[2];
    if (colored && Math.abs(error) > 0.48) pixels[at + 1] += Math.sign(error);
    pixels[at + 3] = 255;
  }
}

/** The whole number next to a number, of two the even one. */
export function nearest(number) {
  const below = Math.floor(number), rest = number - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
}

/** The rows of a map, enlarged linearly. */
function widened(map, { low, high, share }) {
  const width = low.length, result = new Float32Array(map.height * width);
  for (let y = 0; y < map.height; y++) {
    for (let x = 0; x < width; x++) {
      const first = map.data[y * map.width + low[x]];
      result[y * width + x] = first + share[x] * (map.data[y * map.width + high[x]] - first);
    }
  }
  return result;
}
