// The VAE of the next picture, and the fast decoder, where the server has any for the model.
'use strict';

{
  const { byId, say } = Imagine.dom;
  const { catalogue } = Imagine;

  const isFast = ({ details }) => details?.decoder === 'fast';
  const named = (name) => catalogue.vaes.find((one) => one.name === name);

  /** What there is to choose from, as options. */
  function choices() {
    const full = catalogue.vaes.filter((one) => !isFast(one));
    return [
      { value: '', label: "The model's" },
      { value: 'none', label: 'The one in the model' },
      ...full.map(({ name }) => ({ value: name, label: name })),
    ];
  }

  /** Show what there is for `model`, and what is chosen although it does not fit. */
  function show(model) {
    const [chosen, fast] = [byId('vae').value, byId('decoder').checked];
    const some = catalogue.vaes.filter((one) => !catalogue.misfit(one, model));
    for (const option of byId('vae').options) {
      const { value } = option;
      const fits = value === 'none' ? model?.vae : !named(value) || some.includes(named(value));
      option.hidden = option.disabled = !fits && value !== chosen;
    }
    byId('vae-field').hidden = !chosen && !model?.vae && some.every(isFast);
    byId('decoder-field').hidden = !fast && !some.some(isFast);
    const why = named(chosen) && catalogue.misfit(named(chosen), model);
    say(byId('vae-why'), why ?? '');
    const none = fast && model && !some.some(isFast);
    say(byId('decoder-why'), none ? `This server has no fast decoder for ${model.name}.` : '');
  }

  Imagine.vae = { choices, show };
}
