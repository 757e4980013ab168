// Files in and out: chosen, dropped or pasted, and saved.

const SUFFIXES = /\.(jpe?g|png|tiff?|webp)$/i;

/** Calls opened(files) with pictures, and read(file) with a hints file, however they come. */
export function takeFiles(opened, read) {
  const input = document.querySelector("#file"), hints = document.querySelector("#hints-file"), curtain = document.querySelector("#drop");
  const taken = (files) => {
    const [notes, pictures] = [[], []];
    for (const file of files) (file.name.endsWith(".json") ? notes : pictures).push(file);
    if (pictures.length) opened(pictures);
    if (notes.length) read(notes[0]);
  };
  const chosen = (event) => { taken([...event.target.files]); event.target.value = ""; };
  input.addEventListener("change", chosen);
  hints.addEventListener("change", chosen);
  for (const id of ["choose", "open"]) document.querySelector(`#${id}`).addEventListener("click", () => input.click());
  document.querySelector("#hints-load").addEventListener("click", () => hints.click());

  let inside = 0; // dragenter and dragleave come for every element on the way
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (carriesFiles(event)) curtain.hidden = ++inside === 0; });
  addEventListener("dragleave", (event) => { if (carriesFiles(event)) curtain.hidden = --inside === 0; });
  addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    inside = 0;
    curtain.hidden = true;
    taken([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => taken([...event.clipboardData.files]));
}

/** Whether a file may be a picture of a kind that is read; what it is, the server says. */
export function mayBePicture(file) {
  return SUFFIXES.test(file.name) || /^image\//.test(file.type) || !file.name.includes(".");
}

/** Hands a file to the browser's downloads. */
export function saveFile(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function saveJson(record, name) {
  saveFile(new Blob([`${JSON.stringify(record, null, 1)}\n`], { type: "application/json" }), name);
}
