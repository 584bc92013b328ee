// What a generation is made of: one row a parameter, under its name on the wire.
'use strict';

(() => {
  const LARGEST_SEED = 2n ** 64n - 1n;

  const text = (otherwise) => ({
    otherwise,
    read: (value) => (typeof value === 'string' ? value : undefined),
  });
  const choice = (otherwise, ...allowed) => ({
    otherwise,
    read: (value) => (allowed.includes(value) ? value : undefined),
  });
  const number = (otherwise, least, most, step = 0) => ({
    otherwise,
    read(value) {
      if (typeof value !== 'number' || !(value >= least && value <= most)) return undefined;
      return step && value % step ? undefined : value;
    },
  });
  const flag = {
    otherwise: false,
    read: (value) => (typeof value === 'boolean' ? value : undefined),
  };
  const optional = (kind, otherwise = null) => ({
    otherwise,
    read: (value) => (value === null ? null : kind.read(value)),
  });
  const seed = {
    read(value) {
      const digits = String(value);
      if (!/^\d{1,20}$/.test(digits) || BigInt(digits) > LARGEST_SEED) return undefined;
      return BigInt(digits).toString();
    },
  };

  // prettier-ignore
  const PARAMETERS = {
    prompt:        text(''),
    neg:           text(''),
    model:         optional(text('')),
    width:         number(512, 64, 16384, 8),
    height:        number(512, 64, 16384, 8),
    steps:         number(25, 1, 10000, 1),
    guidance:      number(7, 0, 1000),
    sampler:       text('dpm++ 2m'),
    schedule:      text('default'),
    seed:          optional(seed),
    clip:          number(1, 1, 100, 1),
    strength:      number(0.8, 0, 1),
    stream:        optional(number(1, 0, 10000, 1), 1),
    preview:       choice('fast', 'fast', 'vae'),
    hires:         optional(number(1.5, 1, 8)),
    deterministic: flag,
  };

  /** The value of each parameter where nothing else is said. */
  const defaults = () =>
    Object.fromEntries(
      Object.entries(PARAMETERS).map(([name, { otherwise }]) => [name, otherwise ?? null]),
    );

  /**
   * Take what can be taken of an object from outside.
   * @returns {{values: Object, refused: string[]}} `refused` names the parameters with values that
   *   cannot be; keys that are no parameters are left alone.
   */
  function read(object) {
    const values = {};
    const refused = [];
    for (const [name, { read: readOne }] of Object.entries(PARAMETERS)) {
      if (!Object.hasOwn(object, name)) continue;
      const value = readOne(object[name]);
      if (value === undefined) refused.push(name);
      else values[name] = value;
    }
    return { values, refused };
  }

  Imagine.parameters = { names: Object.keys(PARAMETERS), defaults, read, readSeed: seed.read };
})();
