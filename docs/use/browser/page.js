// The page: a photograph in, a colored one out. Nothing leaves the browser.

import { withXmp } from "./png.js";

const element = (id) => document.getElementById(id);
const [says, canvas, another, download] = ["says", "picture", "another", "download"].map(element);
const worker = new Worker(new URL("./colorizer.js", import.meta.url), { type: "module" });
let name, candidate, xmp;
let ticket = 0; // of the draw that is waited for

worker.onmessage = ({ data }) => {
  if (data.says) say(data.says);
  else if (data.error) say(`It failed: ${data.error}`);
  else if (data.ticket === ticket) show(data);
};
worker.onerror = () => say("It failed: ort/ is not there, or not what it should be: see docs/use/export.md");

element("photo").addEventListener("change", ({ target }) => target.files[0] && open(target.files[0]));
another.addEventListener("click", () => draw(candidate + 1));
download.addEventListener("click", async () => {
  const link = document.createElement("a");
  const png = await new Promise((done) => canvas.toBlob(done, "image/png"));
  link.href = URL.createObjectURL(withXmp(new Uint8Array(await png.arrayBuffer()), xmp));
  link.download = `${name}-colored.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});

async function open(file) {
  name = file.name.replace(/\.[^.]*$/, "");
  say("Reading the photograph");
  let image;
  try {
    // The levels that are in the file, upright: colors of a profile would be converted to those of the screen.
    image = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  } catch {
    return say(`${file.name} is no picture that this browser reads`);
  }
  let pixels;
  try {
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    pixels = context.getImageData(0, 0, image.width, image.height);
  } catch {
    return say(`${image.width}x${image.height} pixels are more than this browser draws; make the photograph smaller`);
  }
  const { data, width, height } = pixels;
  canvas.hidden = false;
  draw(0, { photo: { pixels: data, width, height } });
}

function draw(number, photo = {}) {
  candidate = number;
  ticket += 1;
  say("Drawing colors");
  worker.postMessage({ ...photo, seed: 0, candidate, ticket });
}

function show(colored) {
  xmp = colored.xmp;
  canvas.getContext("2d").putImageData(new ImageData(colored.pixels, colored.width, colored.height), 0, 0);
  say(`Draw ${candidate + 1}. Its colors are a guess.`, true);
}

/** colored: there is a picture, to be taken or drawn anew. */
function say(text, colored = false) {
  says.textContent = text;
  another.disabled = download.disabled = !colored;
}
