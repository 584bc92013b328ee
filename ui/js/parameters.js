// The parameters of a generation: one row each, under its name on the wire.
'use strict';

{
  const LARGEST_SEED = 2n ** 64n - 1n;

  const LONGEST = 1e5; // characters: a longer prompt would block the page

  const text = (otherwise) => ({
    otherwise,
    fits: (value) => typeof value === 'string' && value.length <= LONGEST,
  });
  const choice = (...allowed) => ({
    otherwise: allowed[0],
    fits: (value) => allowed.includes(value),
  });
  const number = (otherwise, least, most, step = 0) => ({
    otherwise,
    fits: (value) =>
      typeof value === 'number' && value >= least && value <= most && !(step && value % step),
  });
  const optional = (kind, otherwise = null) => ({
    ...kind,
    otherwise,
    fits: (value) => value === null || kind.fits(value),
  });
  /** The model's own where the user says nothing; `usual` where the model says nothing, too. */
  const ofModel = (kind) => ({ ...optional(kind), usual: kind.otherwise });
  const within = (least, most) => number(1, least, most).fits;
  const name = (value) => typeof value === 'string' && value.trim() !== '' && value.length <= 1000;
  const OF_A_LORA = {
    name,
    weight: within(-100, 100),
    text_weight: within(-100, 100),
    start: within(0, 1),
    end: within(0, 1),
    blocks: name,
  };
  const OF_A_CONTROL = {
    name,
    img: (value) => typeof value === 'string',
    weight: within(0, 10),
    start: within(0, 1),
    end: within(0, 1),
    mode: (value) => ['balanced', 'prompt', 'control'].includes(value),
    preprocessor: name,
  };
  const said = (use) => Object.entries(use).filter(([, value]) => value !== null);
  /** A list of files, each with how it is used. */
  const uses = (members, most) => {
    const isPart = ([key, value]) => Object.hasOwn(members, key) && members[key](value);
    const isUse = (use) => name(use?.name) && said(use).every(isPart);
    return {
      otherwise: [],
      fits: (value) => Array.isArray(value) && value.length <= most && value.every(isUse),
      take: (value) => value.map((use) => ({ weight: 1, ...Object.fromEntries(said(use)) })),
    };
  };
  const borders = {
    otherwise: [0, 0, 0, 0],
    fits: (value) =>
      Array.isArray(value) && value.length === 4 && value.every(number(0, 0, 16384, 8).fits),
  };
  const seed = {
    fits: (value) => /^\d{1,20}$/.test(value) && BigInt(value) <= LARGEST_SEED,
    take: (value) => value === null ? null : BigInt(value).toString(),
  };

  // prettier-ignore
  const PARAMETERS = {
    prompt:        text(''),
    neg:           text(''),
    model:         optional(text('')),
    width:         ofModel(number(512, 64, 16384, 8)),
    height:        ofModel(number(512, 64, 16384, 8)),
    steps:         ofModel(number(25, 1, 10000, 1)),
    guidance:      ofModel(number(7, 0, 1000)),
    distilled_guidance: optional(number(3.5, 0, 1000)),
    sampler:       ofModel(text('dpm++ 2m')),
    schedule:      text('default'),
    seed:          optional(seed),
    clip:          number(1, 1, 100, 1),
    strength:      number(0.8, 0, 1),
    stream:        optional(number(1, 0, 10000, 1), 1),
    preview:       choice('fast', 'vae'),
    hires:         optional(number(1.5, 1, 8)),
    keep_size:     choice(false, true),
    hires_upscaler: text('lanczos'),
    hires_steps:   optional(number(25, 1, 10000, 1)),
    hires_strength: number(0.35, 0, 1),
    hires_sampler: optional(text('')),
    subseed:       optional(seed),
    subseed_strength: number(0, 0, 1),
    mask_blur:     number(4, 0, 256),
    mask_fill:     choice('original', 'noise', 'blank', 'average'),
    mask_invert:   choice(false, true),
    mask_padding:  optional(number(32, 0, 16384, 1)),
    extend:        borders,
    controls:      uses(OF_A_CONTROL, 8),
    tiling:        choice(false, true, 'x', 'y'),
    vae_tiling:    choice(false, true),
    loras:         uses(OF_A_LORA, 32),
    vae:           optional(text('')),
    decoder:       choice('full', 'fast'),
    deterministic: choice(false, true),
    original_prompt: optional(text('')),
  };

  /** The default of each parameter. */
  const defaults = () =>
    Object.fromEntries(
      Object.entries(PARAMETERS).map(([name, { otherwise }]) => [name, otherwise ?? null]),
    );

  /** What is usual for the parameters that models have values of their own for. */
  const usual = Object.fromEntries(
    Object.entries(PARAMETERS).flatMap(([name, { usual: value }]) => (value ? [[name, value]] : [])),
  );

  /**
   * Take the valid parameters of an untrusted object.
   * @returns {{values: Object, refused: string[]}} `refused` names the parameters with invalid
   *   values; other keys are ignored.
   */
  function read(object) {
    const values = {};
    const refused = [];
    for (const [name, { fits, take = (value) => value }] of Object.entries(PARAMETERS)) {
      if (!Object.hasOwn(object, name)) continue;
      if (fits(object[name])) values[name] = take(object[name]);
      else refused.push(name);
    }
    return { values, refused };
  }

  /** The seed in a text; undefined if there is none. */
  const readSeed = (digits) => (seed.fits(digits) ? seed.take(digits) : undefined);

  Imagine.parameters = { names: Object.keys(PARAMETERS), defaults, usual, read, readSeed };
}
