// A run: one picture or several variations, from the request to the gallery.
'use strict';

{
  const { stage, gallery, seed, jobs } = Imagine;
  const { fromBase64, toBase64, bytesOf } = Imagine.bytes;
  const { Progress } = Imagine.progress;
  const AT_ONCE = 4; // requests: a browser opens six connections, and Cancel needs one

  let controller = null;

  const pngOf = async (text) => new Blob([await fromBase64(text)], { type: 'image/png' });

  // Parameters that mean nothing without another.
  const NEEDS = {
    strength: ['img'],
    extend: ['img'],
    mask_blur: ['mask', 'extend'],
    mask_fill: ['mask', 'extend'],
    mask_invert: ['mask'],
    mask_padding: ['mask'],
    keep_size: ['hires'],
    hires_upscaler: ['hires'],
    hires_steps: ['hires'],
    hires_strength: ['hires'],
    hires_sampler: ['hires'],
    subseed: ['subseed_strength'],
    preview: ['stream'],
  };
  // Others are sent although they have their defaults.
  const QUIET = ['deterministic', 'loras', 'decoder', 'controls', 'extend', 'subseed_strength'];
  QUIET.push('tiling', 'vae_tiling');

  /** The body of POST /generate for these values, without unused ones and those of `unsaid`. */
  function bodyOf(values, { img, mask, hints }, unsaid) {
    const all = { ...values, img, mask };
    const byDefault = Imagine.parameters.defaults();
    const isDefault = (name) => JSON.stringify(all[name]) === JSON.stringify(byDefault[name]);
    const acts = (name) => all[name] && !(QUIET.includes(name) && isDefault(name));
    const isSaid = ([name, value]) =>
      value !== null &&
      !unsaid.includes(name) &&
      (!QUIET.includes(name) || acts(name)) &&
      (NEEDS[name]?.some(acts) ?? true);
    const body = Object.fromEntries(Object.entries(all).filter(isSaid));
    if (body.controls) body.controls = body.controls.map((use, at) => ({ ...use, img: hints[at] }));
    return { ...body, on_disconnect: 'finish' }; // a closed page comes back for its picture
  }

  const encoded = async (blob) => (blob ? toBase64(await bytesOf(blob)) : null);

  /** The pictures of a form in base64: {img, mask, hints}. */
  async function encodedAll({ input, mask, hints }) {
    const [img, of, ...rest] = await Promise.all([input, mask, ...hints].map(encoded));
    return { img, mask: of, hints: rest };
  }

  /** Put the picture of `ask` into tile `index` and the gallery. Returns record and warnings. */
  async function draw(index, { values, pictures, progress, tile, signal, ask }) {
    const reply = await ask(index, {
      signal,
      onEvent(event) {
        progress.take(index, event);
        tile.progress(progress.fractionOf(index));
        Imagine.progress.show(progress);
        if (event.img) tile.preview(() => pngOf(event.img));
      },
    });
    try {
      const output = await pngOf(reply.img);
      await tile.finish(output);
      progress.take(index, { status: 'final' });
      Imagine.progress.show(progress);
      const { seed: drawn = values.seed, model = values.model, timings = {} } = reply;
      const kept = { ...values, seed: drawn, model };
      const seconds = Object.values(timings).reduce((sum, each) => sum + each, 0);
      const record = await gallery.add(output, { values: kept, ...pictures, seconds, run: true });
      return { record, warnings: Array.isArray(reply.warnings) ? reply.warnings : [] };
    } finally {
      jobs.forget(reply.id);
    }
  }

  /** Make `count` pictures, `atOnce` at a time; a failure stops further ones. */
  async function drawAll(count, atOnce, one) {
    const results = [];
    let next = 0;
    const worker = async () => {
      while (next < count) {
        const index = next++;
        results[index] = await one(index);
      }
    };
    const workers = Array.from({ length: Math.min(atOnce, count) }, worker);
    const outcomes = await Promise.allSettled(
      workers.map((work) =>
        work.catch((error) => {
          next = count;
          throw error;
        }),
      ),
    );
    const failed = outcomes.find(({ status }) => status === 'rejected');
    return { results: results.filter(Boolean), error: failed?.reason ?? null };
  }

  /** Show a run on the stage: `ask` makes a picture of each of `all`, a list of values. */
  async function follow(all, { pictures, ask, atOnce }) {
    controller = new AbortController();
    const { signal } = controller;
    gallery.beginRun();
    const tiles = stage.begin(all[0], all.length);
    const progress = new Progress(all.length, all[0].steps);
    Imagine.progress.show(progress);
    const ticking = setInterval(() => Imagine.progress.show(progress), 1000);
    const outcome = await drawAll(all.length, atOnce, async (index) => {
      const [values, tile] = [all[index], tiles[index]];
      const result = await draw(index, { values, pictures, progress, tile, signal, ask });
      if (all.length > 1) stage.link(tile, () => Imagine.shown.open(result.record));
      return result;
    });
    clearInterval(ticking);
    const word = signal.aborted ? 'Cancelled' : 'Not finished';
    for (const tile of tiles) if (!tile.element.classList.contains('done')) tile.fail(word);
    controller = null;
    stage.end();
    Imagine.progress.hide();
    return { ...outcome, begun: progress.begun };
  }

  /**
   * Make `count` pictures with the seeds seed, seed + 1, …; variations of one seed count theirs.
   * `unsaid` names what the model's own is asked for.
   * @returns {Promise<{results: Array<{record, warnings}>, error: ?Error, begun: boolean}>} `begun`
   *   tells whether the server accepted a request.
   */
  function start(values, { count, pictures, unsaid }) {
    const numbers = Array.from({ length: count }, (_, index) => index);
    const counted = values.subseed_strength > 0 ? 'subseed' : 'seed';
    const first = values[counted] ?? seed.draw();
    const all = numbers.map((number) => ({ ...values, [counted]: seed.plus(first, number) }));
    const sent = encodedAll(pictures);
    const ask = async (index, options) =>
      jobs.make(bodyOf(all[index], await sent, unsaid), all[index], options);
    return follow(all, { pictures, ask, atOnce: AT_ONCE });
  }

  /** Resume the jobs of an earlier visit; returns what `start` does. */
  const resume = (left) =>
    follow(
      left.map(({ values }) => values),
      {
        pictures: {},
        ask: (index, options) => jobs.outcome(left[index].id, options),
        atOnce: left.length,
      },
    );

  const cancel = () => controller?.abort();

  Imagine.run = { start, resume, cancel };
}
