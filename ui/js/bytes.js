// Converts base64 and pictures in slices that never block the page.
'use strict';

{
  const { breathe } = Imagine.dom;
  const MOST_PIXELS = 2 ** 26; // a small file can claim an enormous size
  const SLICE = 3 * 2 ** 17; // bytes: a multiple of 3, so that slices join without padding

  function decodeSlice(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  /** The bytes of a base64 text, with or without a `data:` prefix. Throws on anything else. */
  async function fromBase64(text) {
    const from = text.startsWith('data:') ? text.indexOf(',') + 1 : 0;
    const slices = [];
    for (let at = from; at < text.length; at += (SLICE / 3) * 4) {
      if (at > from) await breathe();
      slices.push(decodeSlice(text.slice(at, at + (SLICE / 3) * 4)));
    }
    return new Uint8Array(await new Blob(slices).arrayBuffer());
  }

  function encodeSlice(bytes) {
    if (bytes.toBase64) return bytes.toBase64();
    let binary = '';
    for (let at = 0; at < bytes.length; at += 8192) {
      binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
    }
    return btoa(binary);
  }

  async function toBase64(bytes) {
    const slices = [];
    for (let at = 0; at < bytes.length; at += SLICE) {
      if (at) await breathe();
      slices.push(encodeSlice(bytes.subarray(at, at + SLICE)));
    }
    return slices.join('');
  }

  const bytesOf = async (blob) => new Uint8Array(await blob.arrayBuffer());

  /** An <img> of `blob`, decoded off the main thread, so that showing it costs a frame. */
  async function decodedImage(blob) {
    const image = new Image();
    image.src = URL.createObjectURL(blob);
    try {
      await new Promise((resolve, reject) => {
        Object.assign(image, { onload: resolve, onerror: reject }); // the size is known
      });
      if (image.naturalWidth * image.naturalHeight > MOST_PIXELS) throw new Error('too large');
      await image.decode();
    } catch {
      URL.revokeObjectURL(image.src);
      throw new Error('the browser cannot read this picture');
    }
    return image;
  }

  /** `blob` as a picture of another `type`, and its size, shrunk to `side` pixels along a side. */
  async function redraw(blob, type, side = Infinity) {
    const full = await createImageBitmap(blob);
    const scale = Math.min(1, side / Math.max(full.width, full.height));
    const canvas = document.createElement('canvas');
    canvas.width = Math.max(1, Math.round(full.width * scale));
    canvas.height = Math.max(1, Math.round(full.height * scale));
    const context = canvas.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.drawImage(full, 0, 0, canvas.width, canvas.height);
    const size = { width: full.width, height: full.height };
    full.close();
    const drawn = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.85));
    return { drawn, ...size };
  }

  /** A small WebP of `blob`, `side` pixels along its longer side. */
  async function thumbnail(blob, side) {
    const { drawn: thumb, ...size } = await redraw(blob, 'image/webp', side);
    return { thumb, ...size };
  }

  const asPng = async (blob) => (await redraw(blob, 'image/png')).drawn;

  Imagine.bytes = { fromBase64, toBase64, bytesOf, decodedImage, thumbnail, asPng };
}
