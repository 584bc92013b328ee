// The form's fields under "More".
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const { catalogue, form, vae } = Imagine;
  const { field, label, number, pair, select, tick, check, two, offer } = Imagine.fields;

  const HIRES = { min: 1.05, max: 8, step: 0.05, value: 1.5 };
  const TILINGS = [
    ['false', 'No'],
    ['true', 'In both directions'],
    ['"x"', 'From left to right'],
    ['"y"', 'From top to bottom'],
  ];
  const PREVIEWS = [
    ['fast', 'Fast'],
    ['vae', 'Full (slower)'],
  ];
  const note = { className: 'note', id: 'stream-note' };
  const hires = pair('hires', 'Hires scale', { ...HIRES, most: 3 });
  hires.removeAttribute('data-field');
  const stream = number('stream', { min: 0, max: 1000, step: 1, value: 1 });
  stream.setAttribute('aria-describedby', 'stream-note');

  const vaeField = select('vae', 'VAE', []);
  const decoder = check('decoder', 'Fast decoder: a small VAE, nearly as good');
  byId('more').append(
    pair('clip', 'Clip skip', { min: 1, max: 12, step: 1, value: 1 }),
    field('hires', tick('hires-on', 'Hires fix: draw, enlarge and refine'), hires),
    make('div', { id: 'hires-more', hidden: true }),
    select('tiling', 'Seamless', TILINGS),
    two(
      field(
        'stream',
        label('stream', 'Stream every N steps'),
        stream,
        make('p', note, 'A preview that often; 0 for none.'),
      ),
      select('preview', 'Kind of preview', PREVIEWS),
    ),
    ...[vaeField, decoder],
    check('vae_tiling', 'VAE in tiles: large pictures in less memory'),
    check(
      'deterministic',
      'The same bytes whatever else the server does (slower when it is busy)',
    ),
  );

  form.adopt({
    clip: {},
    hires: {
      read: () => (byId('hires-on').checked ? byId('hires').valueAsNumber : null),
      write(value) {
        byId('hires-on').checked = value !== null;
        if (value !== null) byId('hires').value = value;
      },
    },
    tiling: {
      read: () => JSON.parse(byId('tiling').value),
      write: (value) => (byId('tiling').value = JSON.stringify(value)),
    },
    stream: {},
    preview: {},
    vae: { read: () => byId('vae').value || null },
    decoder: {
      read: () => (byId('decoder').checked ? 'fast' : 'full'),
      write: (value) => (byId('decoder').checked = value === 'fast'),
    },
    vae_tiling: {},
    deterministic: {},
  });

  // ------------------------------------------------------------------------- what applies

  function applyClip() {
    const layers = form.model()?.clip_layers;
    const most = layers > 0 ? layers : 12;
    byId('clip').max = document.querySelector('[data-of=clip]').max = most;
    form.apply('clip', most === 1 && "This model's text encoder has one layer.");
  }

  function applyHires() {
    const { pixels } = catalogue.limits;
    const area = byId('width').valueAsNumber * byId('height').valueAsNumber;
    const most = pixels > 0 && area > 0 ? Math.sqrt(pixels / area) : 8;
    const none = most < HIRES.min && 'The picture is already as large as this server draws.';
    byId('hires-on').disabled = Boolean(none);
    form.apply('hires', none, Boolean(none) || !byId('hires-on').checked);
    byId('hires').max = Math.min(HIRES.max, Math.floor(most * 20) / 20);
  }

  let vaes = null; // those that are offered

  /** Show the VAEs that there are for the model, and what is chosen although it does not fit. */
  function showVaes() {
    if (vaes !== catalogue.vaes) offer(byId('vae'), vae.choices());
    vaes = catalogue.vaes;
    const [model, chosen] = [form.model(), byId('vae').value];
    const some = vae.fitting(model);
    for (const option of byId('vae').options) {
      const { value } = option;
      const fits = value === 'none' ? model?.vae : !vae.named(value) || some.includes(vae.named(value));
      option.hidden = option.disabled = !fits && value !== chosen;
    }
    vaeField.hidden = !chosen && !model?.vae && some.every(vae.isFast);
    const fast = byId('decoder').checked;
    decoder.hidden = !fast && !some.some(vae.isFast);
    say(byId('vae-why'), (vae.named(chosen) && catalogue.misfit(vae.named(chosen), model)) ?? '');
    const none = fast && model && !some.some(vae.isFast);
    say(byId('decoder-why'), none ? `This server has no fast decoder for ${model.name}.` : '');
  }

  function show() {
    applyClip();
    applyHires();
    form.apply('preview', !(byId('stream').valueAsNumber > 0) && 'No previews are asked for.');
    showVaes();
  }

  Imagine.more = { show };
}
