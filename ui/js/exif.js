// The comment in Exif data, where A1111 and others put infotext into JPEG and WebP.
'use strict';

{
  const COMMENT = 0x9286;
  const EXIF_IFD = 0x8769;
  const SIZES = { 1: 1, 2: 1, 3: 2, 4: 4, 7: 1 }; // bytes of BYTE, ASCII, SHORT, LONG, UNDEFINED
  const CODES = ['ASCII\0\0\0', 'UNICODE\0', 'JIS\0\0\0\0\0', '\0'.repeat(8)];

  const latin1 = (bytes) => new TextDecoder('latin1').decode(bytes);
  const startsWith = (bytes, text, at = 0) => latin1(bytes.subarray(at, at + text.length)) === text;
  const isJpeg = (bytes) => startsWith(bytes, '\xff\xd8\xff');
  const isWebp = (bytes) => startsWith(bytes, 'RIFF') && startsWith(bytes, 'WEBP', 8);

  /** Decodes UTF-8, or Latin-1 if that fails, regardless of the standard. */
  function decode(bytes) {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
    }
  }

  /**
   * The text of a comment. Its character code is unreliable: UTF-16 has no mark, and its byte order
   * may differ from the data's, so the label of an infotext decides, else the zero bytes of ASCII
   * characters, which Japanese spaces have too, on the other side.
   */
  function decodeComment(raw) {
    const code = CODES.find((one) => startsWith(raw, one)) ?? '';
    const text = raw.subarray(code.length);
    const mark = (text[0] << 8) | text[1];
    if (mark === 0xfeff || mark === 0xfffe) {
      return new TextDecoder(mark === 0xfeff ? 'utf-16be' : 'utf-16le').decode(text);
    }
    const zeros = [0, 0];
    text.forEach((byte, at) => byte || zeros[at % 2]++);
    const [high, low] = zeros;
    if (code !== 'UNICODE\0') return decode(text);
    const [big, little] = ['utf-16be', 'utf-16le'].map((name) => new TextDecoder(name).decode(text));
    const labelled = [big, little].find((each) => each.includes('Steps:'));
    return labelled ?? (high === low ? decode(text) : high > low ? big : little);
  }

  /** The entries of a TIFF directory: tag to value, those inside the data. */
  function entries(block, view, start, little) {
    const found = new Map();
    const count = start + 2 <= block.length ? view.getUint16(start, little) : 0;
    for (let at = start + 2; at < start + 2 + 12 * count && at + 12 <= block.length; at += 12) {
      const [tag, kind] = [view.getUint16(at, little), view.getUint16(at + 2, little)];
      const size = (SIZES[kind] ?? 0) * view.getUint32(at + 4, little);
      const value = size <= 4 ? at + 8 : view.getUint32(at + 8, little);
      if (size && value + size <= block.length) found.set(tag, { value, size });
    }
    return found;
  }

  /** The user's comment in Exif data, a TIFF; null if there is none, or the data is broken. */
  function comment(data) {
    const block = startsWith(data, 'Exif\0\0') ? data.subarray(6) : data;
    const little = startsWith(block, 'II');
    if (block.length < 8 || !(little || startsWith(block, 'MM'))) return null;
    const view = new DataView(block.buffer, block.byteOffset, block.length);
    const first = entries(block, view, view.getUint32(4, little), little);
    const nested = first.get(EXIF_IFD);
    // The standard has the comment in the nested directory; several tools write it into the first.
    const inner =
      nested?.size === 4
        ? entries(block, view, view.getUint32(nested.value, little), little)
        : new Map();
    const at = inner.get(COMMENT) ?? first.get(COMMENT);
    return at ? decodeComment(block.subarray(at.value, at.value + at.size)) : null;
  }

  /** The Exif blocks of a JPEG, from the segments before the scan. */
  function* jpegBlocks(bytes) {
    for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff;) {
      const marker = bytes[at + 1];
      if (marker === 0xda) return;
      const length = marker === 0xff ? -1 : (bytes[at + 2] << 8) | bytes[at + 3]; // -1: fill
      const segment = bytes.subarray(at + 4, at + 2 + length);
      if (marker === 0xe1 && startsWith(segment, 'Exif\0\0')) yield segment;
      at += 2 + length;
    }
  }

  function* webpBlocks(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 12; at + 8 <= bytes.length;) {
      const length = view.getUint32(at + 4, true);
      if (startsWith(bytes, 'EXIF', at)) yield bytes.subarray(at + 8, at + 8 + length);
      at += 8 + length + (length % 2);
    }
  }

  /** The comment in a JPEG or WebP; null if it is neither, or has none. */
  function ofPicture(bytes) {
    const blocks = isJpeg(bytes) ? jpegBlocks(bytes) : isWebp(bytes) ? webpBlocks(bytes) : [];
    for (const block of blocks) {
      const found = comment(block);
      if (found) return found;
    }
    return null;
  }

  Imagine.exif = { isPicture: (bytes) => isJpeg(bytes) || isWebp(bytes), ofPicture, comment, decode };
}
