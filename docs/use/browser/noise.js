// The noise of a photograph's draw, as the library has it: the same seed and number, the same colors.

import { nearest } from "./color.js";

/** What the noise of a photograph is named by: a hash of its size and gray levels. */
export async function noiseKey(gray) {
  const head = new TextEncoder().encode(`${gray.height} ${gray.width} 8\n`);
  const bytes = new Uint8Array(head.length + gray.data.length);
  bytes.set(head);
  gray.data.forEach((value, i) => { bytes[head.length + i] = nearest(Math.fround(value * 255)); });
  return Array.from(await sha256(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Standard normal numbers (2, 32, 32). */
export async function noiseOf(key, seed, candidate) {
  const digest = await sha256(new TextEncoder().encode(`(${seed}, '${key}', ${candidate}, 'stage1')`));
  const stream = new DataView(digest.buffer).getBigUint64(0) >> 1n;
  const numbers = uniform(Number(stream & 0xffffffffn), 2 * 32 * 32);
  const noise = new Float32Array(numbers.length);
  for (let first = 0; first < numbers.length; first += 16) {
    for (let i = first; i < first + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - numbers[i])), angle = 2 * Math.PI * numbers[i + 8];
      noise[i] = radius * Math.cos(angle);
      noise[i + 8] = radius * Math.sin(angle);
    }
  }
  return noise;
}

/** So many numbers of [0, 1): 24 bits of each 32 of MT19937 (Matsumoto and Nishimura 1998). */
function uniform(seed, count) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  return Float32Array.from({ length: count }, (_, number) => {
    const at = number % 624;
    if (at === 0) twist(state);
    let y = state[at];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return (y & 0xffffff) / 2 ** 24;
  });
}

function twist(state) {
  for (let i = 0; i < 624; i++) {
    const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
    state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
  }
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
