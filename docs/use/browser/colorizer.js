// The graphs, one after another. In a worker, so that the page answers meanwhile.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { Color } from "./color.js";
import { noiseKey, noiseOf } from "./noise.js";
import { resized, sharp } from "./planes.js";

const GRAPHS = new URL("./graphs/", import.meta.url);
if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1; // without shared memory there is no second thread

let opened; // promise of {about, color, sessions}
let photo; // what all draws of it have in common
let last = Promise.resolve(); // one message after another: a session answers one question at a time

/** Messages: {photo: {pixels, height, width}, seed, candidate, ticket}, without a photo for another draw of the last.
 *  Answers: {says}, {pixels, height, width, xmp, ticket}, {error, ticket}. */
self.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};

async function answer(asked) {
  const { seed, candidate, ticket } = asked;
  try {
    if (asked.photo) photo = await look(await open(), asked.photo);
    postMessage({ ...await draw(photo, seed, candidate), ticket });
  } catch (error) {
    postMessage({ error: error.message ?? String(error), ticket });
  }
}

function open() {
  opened ??= (async () => {
    postMessage({ says: "Loading the networks, once" });
    const about = await (await fetched("trichrome.json")).json();
    if (about.format !== 2) throw new Error(`trichrome.json has format ${about.format}; this page reads 2`);
    const sessions = {};
    for (const [name, { file }] of Object.entries(about.graphs)) {
      sessions[name] = await ort.InferenceSession.create(await (await fetched(file)).arrayBuffer());
    }
    return { about, sessions, color: new Color(about) };
  })();
  opened.catch(() => { opened = undefined; }); // a download that has failed may go well the next time
  return opened;
}

async function look({ about, sessions, color }, { pixels, height, width }) {
  postMessage({ says: "Looking at the photograph" });
  const run = (name, tensors) => answers(about.graphs[name], sessions[name], tensors);
  const gray = color.gray(pixels, height, width);
  const gray64 = resized(gray, 64, 64), gray256 = resized(gray, 256, 256);
  const inputs = { gray64: tensor(gray64.data, [1, 1, 64, 64]), gray128: tensor(sharp(gray, gray64).data, [1, 1, 128, 128]) };
  const encoding = await run("stage1_encode", inputs);
  return { run, color, xmp: about.xmp, gray, gray256, key: await noiseKey(gray), inputs: { ...inputs, ...encoding } };
}

async function draw({ run, color, xmp, gray, gray256, key, inputs }, seed, candidate) {
  postMessage({ says: "Drawing colors" });
  const noise = tensor(await noiseOf(key, seed, candidate), [1, 2, 32, 32]);
  const { coarse64 } = await run("stage1_draw", { ...inputs, noise });
  const { rgb64 } = await run("stage2", { ...inputs, coarse64 });
  const { rgb256 } = await run("stage3", { gray256: tensor(gray256.data, [1, 1, 256, 256]), rgb64 });
  const pixels = color.finished(gray, color.sharpened(gray256, rgb256.data), 256);
  return { pixels, height: gray.height, width: gray.width, xmp };
}

/** The outputs of a graph, by name. Inputs that are not among the tensors have their defaults. */
async function answers(graph, session, tensors) {
  const inputs = {};
  for (const [name, { shape, default: value }] of Object.entries(graph.inputs)) {
    inputs[name] = tensors[name] ?? tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value), shape);
  }
  const outputs = await session.run(inputs);
  for (const { type, data } of Object.values(outputs)) {
    if (type === "float32" && !data.every(Number.isFinite)) throw new Error(`the answers of ${graph.file} are not finite`);
  }
  return outputs;
}

function tensor(data, shape) {
  return new ort.Tensor("float32", data, shape);
}

async function fetched(name) {
  const answer = await fetch(new URL(name, GRAPHS));
  if (!answer.ok) throw new Error(`graphs/${name} is not there: run trichrome export, as docs/use/export.md says`);
  return answer;
}
