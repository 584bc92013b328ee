// Infotext, the "parameters" text of A1111 and many tools, as our parameters; docs/pictures.md.
'use strict';

{
  const LABELS = {
    Steps: 'steps',
    Sampler: 'sampler',
    'Schedule type': 'schedule',
    Scheduler: 'schedule',
    'Sampler sigma': 'schedule',
    'CFG scale': 'guidance',
    'Guidance scale': 'guidance',
    'Distilled CFG Scale': 'distilled_guidance',
    Seed: 'seed',
    Size: 'size',
    Model: 'model',
    VAE: 'vae',
    'Model hash': 'model_hash',
    'Denoising strength': 'strength',
    'Clip skip': 'clip',
    'Hires upscale': 'hires',
    'Hires scale': 'hires',
    'Hires resize': 'hires_size',
    'Keep size': 'keep_size',
    'Hires strength': 'hires_strength',
    'Hires upscaler': 'hires_upscaler',
    'Hires steps': 'hires_steps',
    'Hires sampler': 'hires_sampler',
    'Variation seed': 'subseed',
    'Variation seed strength': 'subseed_strength',
    'Mask blur': 'mask_blur',
    'Masked content': 'mask_fill',
    'Mask mode': 'mask_invert',
    'Masked area padding': 'mask_padding',
    Extend: 'extend',
    Tiling: 'tiling',
  };
  const FIELDS = new Map(Object.entries(LABELS).map(([label, f]) => [label.toLowerCase(), f]));
  const NEGATIVE = 'Negative prompt:';

  // ------------------------------------------------------------------------------ values

  const matching = (pattern, make) => (text) => pattern.test(text) ? make(text) : undefined;
  const whole = matching(/^[0-9]{1,9}$/, Number);
  const number = matching(/^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/, Number);
  const decimal = (text) => {
    const value = text.length > 40 ? undefined : number(text);
    return Number.isFinite(value) ? value : undefined;
  };
  const size = (text) => /^([0-9]{1,6}) ?x ?([0-9]{1,6})$/.exec(text)?.slice(1).map(Number);
  const schedule = (text) => {
    const name = text.toLowerCase().replaceAll(' ', '_');
    return ['', 'automatic', 'default', 'discrete', 'uniform'].includes(name) ? undefined : name;
  };

  const FILES = ['safetensors', 'sft', 'ckpt', 'pt', 'pth', 'bin', 'gguf'];
  const nameOfModel = (text) => {
    const dot = text.lastIndexOf('.');
    const isFile = dot > 0 && FILES.includes(text.slice(dot + 1).toLowerCase());
    return isFile ? text.slice(0, dot).split(/[/\\]/).at(-1) : text;
  };

  // What others call what the masked part starts from.
  const FILLS = {
    original: 'original',
    fill: 'average',
    'latent noise': 'noise',
    'latent nothing': 'blank',
  };
  const AXES = { true: true, x: 'x', y: 'y' };
  const among = (words) => (text) =>
    Object.hasOwn(words, text.toLowerCase()) ? words[text.toLowerCase()] : undefined;

  /** A latent upscaler is none of ours: the usual one takes its place. */
  const upscaler = (text) => {
    const name = text.toLowerCase();
    return !name || name === 'none' || name.startsWith('latent') ? undefined : name;
  };
  const lower = (text) => text.toLowerCase() || undefined;
  const seed = (text) => Imagine.parameters.readSeed(text);

  const READERS = {
    steps: whole,
    keep_size: (text) => lower(text) === 'true' || undefined,
    hires_steps: (text) => whole(text) || undefined,
    hires_upscaler: upscaler,
    hires_sampler: (text) => (lower(text) === 'use same sampler' ? undefined : lower(text)),
    subseed: seed,
    subseed_strength: decimal,
    mask_blur: decimal,
    mask_fill: among(FILLS),
    mask_invert: (text) => lower(text) === 'inpaint not masked' || undefined,
    mask_padding: whole,
    extend: (text) => /^\d{1,5}(, ?\d{1,5}){3}$/.test(text) ? text.split(',').map(Number) : undefined,
    tiling: among(AXES),
    clip: whole,
    guidance: decimal,
    distilled_guidance: decimal,
    strength: decimal,
    hires_strength: decimal,
    hires: (text) => (decimal(text) >= 1 ? decimal(text) : undefined), // others: an upscaler's name
    size,
    hires_size: size,
    schedule,
    sampler: lower,
    seed,
    model: (text) => nameOfModel(text) || undefined,
    vae: (text) => nameOfModel(text) || undefined,
    model_hash: (text) => text || undefined,
  };

  const COMPOUND =
    /^(.+?)[ _](karras|exponential|beta|simple|normal|sgm[ _]uniform|kl[ _]optimal|automatic|discrete)$/s;

  /** Values by parameter: a sampler may name its schedule, a size is two values. */
  function inOurWords({ size: [width, height] = [], hires_size: large = [], ...meta }) {
    const [, sampler, spacing] = COMPOUND.exec(meta.sampler ?? '') ?? [];
    if (sampler) Object.assign(meta, { sampler, schedule: meta.schedule ?? schedule(spacing) });
    if (!(width && height)) return meta;
    const [wide, high] = [large[0] / width, large[1] / height];
    if (wide > 1 && Math.abs(wide - high) < 0.02) meta.hires ??= wide;
    return { ...meta, width, height };
  }

  // ------------------------------------------------------------------------------ settings

  /** The match of a sticky `pattern` in `text` at `at`. */
  function matchAt(pattern, text, at) {
    pattern.lastIndex = at;
    return pattern.exec(text);
  }

  const KEY = /([^:,\n]*):[ \t]*/y;
  const PLAIN = /[^,\n]*/y;
  const QUOTED = /"((?:\\.|[^"\\])*)"[ \t]*(?=[,\n]|$)/sy;
  const BRACKETS = /"(?:\\.|[^"\\])*(?:"|\\?$)|[{}[\]]/gs;
  const END = /[ \t]*(?=[,\n]|$)/y;

  // Each of these returns the value at `start` and its end; undefined if there is none.

  function plain(text, start) {
    const [value] = matchAt(PLAIN, text, start);
    return [trim(value), start + value.length];
  }

  function quotation(text, start) {
    const quoted = matchAt(QUOTED, text, start);
    if (!quoted) return undefined;
    const [whole, inner] = quoted;
    try {
      return [JSON.parse(`"${inner}"`), start + whole.length];
    } catch {
      return [inner, start + whole.length]; // quoted, but not as JSON
    }
  }

  function bracketed(text, start) {
    let depth = 0;
    let to = start;
    for (let token; (token = matchAt(BRACKETS, text, to)?.[0]);) {
      to = BRACKETS.lastIndex;
      if (token === '{' || token === '[') depth++;
      else if (token === '}' || token === ']') depth--;
      if (depth) continue;
      const end = matchAt(END, text, to);
      return end ? [text.slice(start, to), to + end[0].length] : undefined;
    }
    return undefined;
  }

  /** The labels of some settings, and the values by field; the first readable of each. */
  function readSettings(text) {
    const labels = [];
    const values = {};
    let brackets = true;
    for (let at = 0; at < text.length; at++) {
      const key = matchAt(KEY, text, at);
      if (!key) {
        [, at] = plain(text, at); // the rest of a value with a comma
        continue;
      }
      const start = at + key[0].length;
      let found = quotation(text, start);
      if (!found && brackets && '{['.includes(text[start])) {
        found = bracketed(text, start);
        brackets = Boolean(found); // stop at a failure: each may scan to the end
      }
      const [value, end] = found ?? plain(text, start);
      at = end;
      const label = key[1].toLowerCase().split(/\s+/).filter(Boolean).join(' ');
      labels.push(label);
      const field = FIELDS.get(label);
      if (field) values[field] ??= READERS[field](value);
    }
    const read = Object.entries(values).filter(([, value]) => value !== undefined);
    return { labels, values: Object.fromEntries(read) };
  }

  // --------------------------------------------------------------------------------- text

  /** `text` without blanks around it, in linear time. */
  function trim(text, blanks = ' \t\n') {
    let [from, to] = [0, text.length];
    while (from < to && blanks.includes(text[from])) from++;
    while (from < to && blanks.includes(text[to - 1])) to--;
    return text.slice(from, to);
  }

  /** Whether a line is a list of fields: the number of steps, two more, and no prompt in front. */
  function isSettings(line) {
    if (!/steps/i.test(line) || line.includes(NEGATIVE) || !matchAt(KEY, line, 0)) return false;
    const { values } = readSettings(line);
    return 'steps' in values && Object.keys(values).length >= 3;
  }

  function prompts(lines) {
    const at = lines.findIndex((line) => line.startsWith(NEGATIVE));
    if (at < 0) return { prompt: trim(lines.join('\n')), neg: '' };
    const neg = lines.slice(at).join('\n').slice(NEGATIVE.length);
    return { prompt: trim(lines.slice(0, at).join('\n')), neg: trim(neg) };
  }

  /** Some tools write one line; a full stop, a comma or a blank replaces a line break. */
  function promptsOfOneLine(head) {
    const [negative] = head.matchAll(/(?:^|,?\s|[.,])Negative prompt:/g);
    if (!negative) return { prompt: trim(head), neg: '' };
    const neg = head.slice(negative.index + negative[0].length);
    return { prompt: trim(head.slice(0, negative.index)), neg: trim(neg) };
  }

  /** The prompts and the text of the settings behind them; null if there are none. */
  function parts(text) {
    const lines = text.split('\n');
    for (let at = lines.length - 1; at >= 0; at--) {
      const alone = at === lines.length - 1 && /^Steps: ?[0-9]/.test(lines[at]);
      if (alone || isSettings(lines[at])) {
        return { ...prompts(lines.slice(0, at)), settings: lines.slice(at).join('\n') };
      }
    }
    const mark = [...text.matchAll(/(?:^|,?\s|[.,])(?=Steps: ?[0-9]+,)/g)].at(-1);
    const settings = mark && text.slice(mark.index + mark[0].length);
    return mark && isSettings(settings.split('\n', 1)[0])
      ? { ...promptsOfOneLine(text.slice(0, mark.index)), settings }
      : null;
  }

  /** The parameters in an infotext, or null if it is invalid. */
  function read(text) {
    const found = parts(trim(text.replace(/\r\n?/g, '\n'), ' \t\n\0'));
    if (!found) return null;
    const { labels, values } = readSettings(found.settings);
    const hires = labels.some((label) => label.startsWith('hires'));
    if (hires && 'strength' in values && !('hires_strength' in values)) {
      values.hires_strength = values.strength; // the second pass's
      delete values.strength;
    }
    const tagged = Imagine.tags.read(found.prompt, values.steps ?? Imagine.parameters.usual.steps);
    const prompt = trim(tagged.prompt ?? found.prompt);
    return { ...inOurWords(values), ...tagged, prompt, neg: found.neg };
  }

  Imagine.infotext = { LABELS, read };
}
