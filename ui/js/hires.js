// The form's fields for the second pass of the hires fix.
'use strict';

{
  const { byId } = Imagine.dom;
  const { catalogue, form } = Imagine;
  const { field, label, number, pair, select, check, two, offer, titled } = Imagine.fields;
  const { upscalers } = Imagine.fields;

  const place = byId('hires-more');
  const steps = number('hires_steps', { min: 1, max: 10000, step: 1, required: false });
  steps.placeholder = 'as many';
  place.append(
    check('keep_size', 'Keep the larger picture'),
    two(
      select('hires_upscaler', 'Enlarge with', [['lanczos', 'Lanczos']]),
      select('hires_sampler', 'Sampler of that pass', [['', 'The same']]),
    ),
    field('hires_steps', label('hires_steps', 'Steps of that pass'), steps),
    pair('hires_strength', 'Strength of that pass', { min: 0, max: 1, step: 0.01, value: 0.35 }),
  );
  place.className = 'later';

  form.adopt({
    keep_size: {},
    hires_upscaler: {},
    hires_strength: {},
    hires_sampler: { read: () => byId('hires_sampler').value || null },
    hires_steps: {
      read: () => (steps.value === '' && steps.validity.valid ? null : steps.valueAsNumber),
      write: (value) => (steps.value = value ?? ''),
    },
  });

  let samplers = null; // those that are offered
  let models = null; // those of the server whose upscalers are offered

  /** Offer what the server has now. */
  async function offerAll() {
    if (samplers !== catalogue.samplers) {
      samplers = catalogue.samplers;
      offer(byId('hires_sampler'), [['', 'The same'], ...samplers.map(titled)]);
    }
    if (models === catalogue.models) return;
    models = catalogue.models;
    offer(byId('hires_upscaler'), await upscalers());
  }

  function show() {
    place.hidden = !byId('hires-on').checked;
    if (!place.hidden) offerAll();
  }

  Imagine.hires = { show };
}
