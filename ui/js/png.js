// The text chunks of PNG files: read with every length checked, and written.
'use strict';

{
  const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
  const LONGEST_TEXT = 64 * 2 ** 20; // bytes, unpacked: a small file must not fill the memory
  const latin1 = new TextDecoder('latin1');
  const utf8 = new TextDecoder('utf-8', { fatal: true });
  const { decode } = Imagine.exif; // the standard says Latin-1, and several programs write UTF-8

  const isPng = (bytes) => SIGNATURE.every((byte, at) => bytes[at] === byte);

  /** Each chunk of a PNG as {type, data}; throws if the file is cut or malformed. */
  function* chunks(bytes) {
    if (!isPng(bytes)) throw new Error('this is not a PNG file');
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = SIGNATURE.length; at < bytes.length;) {
      if (at + 12 > bytes.length) throw new Error('this PNG file is cut short');
      const length = view.getUint32(at);
      if (at + 12 + length > bytes.length) throw new Error('this PNG file is cut short');
      const type = latin1.decode(bytes.subarray(at + 4, at + 8));
      yield { type, data: bytes.subarray(at + 8, at + 8 + length), from: at, to: at + 12 + length };
      if (type === 'IEND') return;
      at += 12 + length;
    }
  }

  async function inflate(packed) {
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
    const reader = stream.getReader();
    const parts = [];
    let size = 0;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      size += value.length;
      if (size > LONGEST_TEXT) {
        await reader.cancel();
        throw new Error('a text in this PNG file unpacks to more than 64 MiB');
      }
      parts.push(value);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }

  /** Split at the first zero byte: [the text before it, the rest]. */
  function upToZero(data) {
    const zero = data.indexOf(0);
    if (zero < 0) throw new Error('a text in this PNG file has no keyword');
    return [latin1.decode(data.subarray(0, zero)), data.subarray(zero + 1)];
  }

  const readers = {
    tEXt: decode,
    zTXt: async (data) => decode(await inflate(data.subarray(1))),
    async iTXt(data) {
      const packed = data[0] === 1;
      const [, afterLanguage] = upToZero(data.subarray(2));
      const [, text] = upToZero(afterLanguage);
      return utf8.decode(packed ? await inflate(text) : text);
    },
  };

  /**
   * The texts of a PNG by keyword, the last of each, and the comment of its Exif data under the
   * type of its chunk. Throws an Error in words if the file is invalid.
   */
  async function readTexts(bytes) {
    const texts = new Map();
    for (const { type, data } of chunks(bytes)) {
      if (type === 'eXIf') texts.set(type, Imagine.exif.comment(data));
      if (!Object.hasOwn(readers, type)) continue;
      const [keyword, rest] = upToZero(data);
      texts.set(keyword, await readers[type](rest));
    }
    return texts;
  }

  const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    return crc;
  });

  function crc32(bytes) {
    let crc = ~0;
    for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
    return ~crc >>> 0;
  }

  /** A text chunk: tEXt for ASCII, which every tool reads; else UTF-8. */
  function textChunk(keyword, text) {
    const plain = /^[\n -~]*$/.test(text);
    const gap = plain ? '\0' : '\0\0\0\0\0'; // iTXt: uncompressed, no language, no translation
    const body = new TextEncoder().encode(`${plain ? 'tEXt' : 'iTXt'}${keyword}${gap}${text}`);
    const chunk = new Uint8Array(body.length + 8);
    const view = new DataView(chunk.buffer);
    view.setUint32(0, body.length - 4);
    chunk.set(body, 4);
    view.setUint32(body.length + 4, crc32(body));
    return chunk;
  }

  /** `bytes` with these texts (keyword to text) in place of those of the same keyword. */
  function withTexts(bytes, texts) {
    const parts = [bytes.subarray(0, SIGNATURE.length)];
    for (const { type, data, from, to } of chunks(bytes)) {
      if (Object.hasOwn(readers, type) && Object.hasOwn(texts, upToZero(data)[0])) continue;
      parts.push(bytes.subarray(from, to));
      if (type !== 'IHDR') continue;
      for (const [keyword, text] of Object.entries(texts)) parts.push(textChunk(keyword, text));
    }
    return new Blob(parts, { type: 'image/png' });
  }

  Imagine.png = { isPng, readTexts, withTexts };
}
