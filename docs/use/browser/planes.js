// Planes of numbers, {height, width, data}, at other sizes: as examples/onnx_colorize.py has them.

export function plane(height, width, data = new Float32Array(height * width)) {
  return { height, width, data };
}

/** At another size, each axis on its own: means over areas, or bicubic, in the range of x. */
export function resized(x, height, width) {
  const small = weighed(weighed(x, meanWeights(x.width, Math.min(width, x.width)), "columns"),
    meanWeights(x.height, Math.min(height, x.height)), "rows");
  if (small.height === height && small.width === width) return small;
  let least = Infinity, most = -Infinity;
  for (const value of small.data) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const large = weighed(weighed(small, cubicWeights(small.width, width), "columns"), cubicWeights(small.height, height), "rows");
  for (let i = 0; i < large.data.length; i++) large.data[i] = Math.min(Math.max(large.data[i], least), most);
  return large;
}

/** A photograph at 128x128: doubled from 64x64 where it has fewer pixels, as training has seen such. */
export function sharp(gray, gray64) {
  if (Math.min(gray.height, gray.width) >= 128) return resized(gray, 128, 128);
  const doubled = weighed(weighed(gray64, doublingWeights(64), "rows"), doublingWeights(64), "columns");
  doubled.data.forEach((value, i) => { doubled.data[i] = Math.min(Math.max(value, 0), 1); });
  return doubled;
}

/** Mean over a window of 2 radius + 1 around each pixel, at the border over the part inside. */
export function windowMean(x, radius) {
  const weights = (count) => Array.from({ length: count }, (_, i) => {
    const first = Math.max(0, i - radius), last = Math.min(count - 1, i + radius);
    return Array.from({ length: last - first + 1 }, (_, k) => [first + k, 1 / (last - first + 1)]);
  });
  return weighed(weighed(x, weights(x.width), "columns"), weights(x.height), "rows");
}

/** Where entries of `count` enlarged linearly to `size` lie: the lower and the upper one, and the share of the upper. */
export function linearPlaces(count, size) {
  const low = new Int32Array(size), high = new Int32Array(size), share = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const place = Math.min(Math.max((i + 0.5) * (count / size) - 0.5, 0), count - 1);
    low[i] = Math.floor(place);
    high[i] = Math.min(low[i] + 1, count - 1);
    share[i] = place - low[i];
  }
  return { low, high, share };
}

/** Sums along an axis. weights: for each entry of the result, pairs of an entry of x and its weight. */
function weighed(x, weights, axis) {
  const columns = axis === "columns", count = weights.length;
  const result = columns ? plane(x.height, count) : plane(count, x.width);
  const outer = columns ? x.height : x.width, step = columns ? 1 : x.width, stride = columns ? x.width : 1;
  const resultStep = columns ? 1 : x.width, resultStride = columns ? count : 1;
  weights.forEach((pairs, part) => {
    for (let line = 0; line < outer; line++) {
      let sum = 0;
      for (const [index, weight] of pairs) sum += weight * x.data[line * stride + index * step];
      result.data[line * resultStride + part * resultStep] = sum;
    }
  });
  return result;
}

/** How much of each of `count` pixels is in each of fewer equal parts. */
function meanWeights(count, parts) {
  return Array.from({ length: parts }, (_, part) => {
    const begin = part * count / parts, end = (part + 1) * count / parts, pairs = [];
    for (let pixel = Math.floor(begin); pixel < Math.min(count, Math.ceil(end)); pixel++) {
      pairs.push([pixel, (Math.min(end, pixel + 1) - Math.max(begin, pixel)) * parts / count]);
    }
    return pairs;
  });
}

/** Bicubic interpolation from `count` pixels to more, a = -0.75. */
function cubicWeights(count, parts) {
  return Array.from({ length: parts }, (_, part) => {
    if (count === parts) return [[part, 1]];
    const place = (part + 0.5) * count / parts - 0.5;
    return [-1, 0, 1, 2].map((shift) => {
      const pixel = Math.floor(place) + shift, away = Math.abs(place - pixel);
      const weight = away <= 1 ? (1.25 * away - 2.25) * away ** 2 + 1 : ((-0.75 * away + 3.75) * away - 6) * away + 3;
      return [Math.min(Math.max(pixel, 0), count - 1), weight];
    });
  });
}

/** Each pixel as two halves, on the slope between its neighbors. */
function doublingWeights(count) {
  return Array.from({ length: 2 * count }, (_, half) => {
    const pixel = half >> 1, slope = half % 2 ? 1 / 8 : -1 / 8;
    return [[pixel, 1], [Math.min(pixel + 1, count - 1), slope], [Math.max(pixel - 1, 0), -slope]];
  });
}
