// Reads and writes settings files, the same JSON and PNG as `imagine run` writes.
'use strict';

{
  const { fromBase64, toBase64, bytesOf, decodedImage, asPng } = Imagine.bytes;
  const { isPng, readTexts, withTexts } = Imagine.png;
  const LARGEST_FILE = 128 * 2 ** 20;

  class BadFile extends Error {}

  /** Parse JSON without rounding a seed: JavaScript numbers hold 53 of its 64 bits. */
  function parse(text) {
    const keepSeed = (key, value, context) =>
      ['seed', 'subseed'].includes(key) && typeof value === 'number' ? (context?.source ?? String(value)) : value;
    try {
      return JSON.parse(text, keepSeed);
    } catch {
      throw new BadFile('it is not valid JSON');
    }
  }

  const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

  /** `bytes` as a picture that the browser can read; `what` names it in errors. */
  async function picture(bytes, what) {
    const blob = new Blob([bytes], isPng(bytes) ? { type: 'image/png' } : {});
    try {
      URL.revokeObjectURL((await decodedImage(blob)).src);
    } catch {
      throw new BadFile(`${what} is not a picture that the browser can show`);
    }
    return blob;
  }

  async function pictureIn(text, what) {
    if (typeof text !== 'string' || !text) return null;
    let bytes;
    try {
      bytes = await fromBase64(text);
    } catch {
      throw new BadFile(`${what} is not base64`);
    }
    return picture(bytes, what);
  }

  /** What a picture was drawn with unless its settings say otherwise. */
  function unsaid() {
    const said = ['prompt', 'neg', 'model', 'width', 'height', 'steps', 'guidance', 'sampler'];
    said.push('seed', 'clip', 'strength', 'stream', 'preview', 'deterministic', 'original_prompt');
    const all = Object.entries(Imagine.parameters.defaults());
    return Object.fromEntries(all.filter(([name]) => !said.includes(name)));
  }

  /** The hints in a list of ControlNets, and the list without them. */
  async function withoutHints(controls = []) {
    const hints = await Promise.all(
      controls.map(({ name, img }) => pictureIn(img, `the picture of ${name}`)),
    );
    return { controls: controls.map(({ img, ...use }) => use), hints };
  }

  /** The settings in a parsed object: {values, refused, input, mask, hints, output}. */
  async function fromObject(object) {
    const meta = isObject(object) && isObject(object.meta) ? object.meta : object;
    if (!isObject(meta)) throw new BadFile('it holds no settings');
    const { values, refused } = Imagine.parameters.read(meta);
    if (!Object.keys(values).length) throw new BadFile('it holds no settings');
    const ofPicture = 'seed' in values && 'steps' in values;
    const { controls, hints } = await withoutHints(values.controls);
    if (values.controls) Object.assign(values, { controls });
    return {
      values: { ...(ofPicture ? unsaid() : {}), ...values },
      refused,
      hints,
      input: await pictureIn(meta.img, 'its input picture (img)'),
      mask: await pictureIn(meta.mask, 'its mask'),
      output: object === meta ? null : await pictureIn(object.out, 'its picture (out)'),
    };
  }

  const read = (text) => (text ? Imagine.infotext.read(text) : null);

  async function textsOf(bytes) {
    try {
      return await readTexts(bytes);
    } catch (error) {
      throw new BadFile(error.message);
    }
  }

  /** The settings in a PNG, or null if it has none. */
  async function fromPng(bytes) {
    const texts = await textsOf(bytes);
    const infotext = () => read(texts.get('parameters')) ?? read(texts.get('eXIf'));
    const meta = texts.has('meta') ? parse(texts.get('meta')) : infotext();
    if (!meta) return null;
    return { ...(await fromObject({ meta })), output: await picture(bytes, 'it') };
  }

  /** The settings in a JPEG or WebP, which becomes a PNG; null if it has none. */
  async function fromOther(bytes) {
    const meta = read(Imagine.exif.ofPicture(bytes));
    if (!meta) return null;
    return { ...(await fromObject({ meta })), output: await asPng(await picture(bytes, 'it')) };
  }

  /**
   * Read a settings file.
   * @returns {Promise<?{values, refused, input, mask, hints, output}>} null for a picture without settings.
   * @throws {BadFile} The file is invalid, in words.
   */
  async function load(file) {
    if (file.size > LARGEST_FILE) throw new BadFile('it is larger than 128 MiB');
    const bytes = await bytesOf(file);
    if (isPng(bytes)) return fromPng(bytes);
    if (Imagine.exif.isPicture(bytes)) return fromOther(bytes);
    if (file.type.startsWith('image/')) return null;
    return fromObject(parse(new TextDecoder().decode(bytes)));
  }

  const encoded = async (blob) => (blob ? toBase64(await bytesOf(blob)) : null);

  /** The `meta` object of a picture, the pictures that it was made of included. */
  async function metaWith(values, { input, mask, hints = [] }) {
    const meta = { ...values, img: await encoded(input) };
    if (mask) meta.mask = await encoded(mask);
    const pictures = await Promise.all(hints.map(encoded));
    if (pictures.length && Array.isArray(meta.controls))
      meta.controls = meta.controls.map((use, at) => ({ ...use, img: pictures[at] ?? '' }));
    return meta;
  }

  /** The JSON file of these settings and the picture they made, if any. */
  async function toJson(values, { output = null, ...pictures } = {}) {
    const document = { meta: await metaWith(values, pictures) };
    if (output) document.out = await toBase64(await bytesOf(output));
    return new Blob([JSON.stringify(document, null, 2)], { type: 'application/json' });
  }

  /** The PNG with its settings: the server's text, and the pictures, which the server omits. */
  async function toPng(output, values, { date, ...pictures }) {
    const bytes = await bytesOf(output);
    const texts = await textsOf(bytes);
    const written = texts.has('meta') ? parse(texts.get('meta')) : null;
    const meta = { ...(isObject(written) ? written : values), date: date.toISOString() };
    return withTexts(bytes, { meta: JSON.stringify(await metaWith(meta, pictures)) });
  }

  Imagine.settings = { load, toJson, toPng, BadFile };
}
