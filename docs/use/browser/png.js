// PNG files that say of themselves that their colors are synthesized.

const HEAD = 8 + 25; // the signature, and the chunk that comes first, IHDR

/** The bytes of a PNG with a packet of XMP, in a chunk of international text behind the first chunk. */
export function withXmp(png, xmp) {
  const text = new TextEncoder().encode(`iTXtXML:com.adobe.xmp\0\0\0\0\0${xmp}`);
  const chunk = new Uint8Array(text.length + 8), view = new DataView(chunk.buffer);
  view.setUint32(0, text.length - 4); // without the name
  chunk.set(text, 4);
  view.setUint32(text.length + 4, crc(text));
  return new Blob([png.subarray(0, HEAD), chunk, png.subarray(HEAD)], { type: "image/png" });
}

/** CRC-32 as PNG has it (ISO 3309). */
function crc(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb88320 : 0);
  }
  return ~rest >>> 0;
}
