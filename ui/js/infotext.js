// The "parameters" text of A1111, which many tools write, as our parameters.
'use strict';

{
  const NUMBERS = {
    Steps: 'steps',
    'CFG scale': 'guidance',
    'Clip skip': 'clip',
    'Denoising strength': 'strength',
    'Hires upscale': 'hires',
  };

  function readDetails(line) {
    const meta = {};
    for (const [, name, value] of line.matchAll(/(?:^|, *)(\w[\w ]*): ("(?:\\.|[^"\\])*"|[^,]*)/g)) {
      const plain = value.startsWith('"') ? JSON.parse(value) : value;
      if (Object.hasOwn(NUMBERS, name)) meta[NUMBERS[name]] = Number(plain);
      else if (name === 'Seed') meta.seed = plain;
      else if (name === 'Model') meta.model = plain;
      else if (name === 'Sampler') meta.sampler = plain.toLowerCase();
      else if (name === 'Schedule type') meta.schedule = plain.toLowerCase().replaceAll(' ', '_');
      else if (name === 'Size') [meta.width, meta.height] = plain.split('x').map(Number);
    }
    return meta;
  }

  /** The parameters in an infotext, or null if it is none. */
  function read(text) {
    const at = text.lastIndexOf('\nSteps: ');
    if (at < 0) return null;
    const [prompt, ...negative] = text.slice(0, at).split('\nNegative prompt: ');
    const meta = readDetails(text.slice(at + 1).split('\n', 1)[0]);
    return { ...meta, prompt, neg: negative.join('\nNegative prompt: ') };
  }

  Imagine.infotext = { read };
}
