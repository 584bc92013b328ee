// The form: its values as one object, the server's choices in it, and which controls apply.
'use strict';

{
  const { byId, make, say, bytesText, plural } = Imagine.dom;
  const { catalogue, parameters, own, size, tokens, input, loras, controls, later } = Imagine;

  const entry = (name) => byId(name === 'img' ? 'input-file' : name);

  // ------------------------------------------------------------------------------ values

  const readers = {
    loras: loras.values,
    controls: controls.values,
    subseed: () => byId('subseed').value.trim() || null,
    model: () => byId('model').value || null,
    seed: () => byId('seed').value.trim() || null,
    original_prompt: () => Imagine.enhance.original(),
  };

  function read(name) {
    if (Object.hasOwn(readers, name)) return readers[name]();
    const element = byId(name);
    if (!element) return later.values[name];
    if (element.type === 'checkbox') return element.checked;
    return element.type === 'number' ? element.valueAsNumber : element.value;
  }

  /** Every parameter's value. An empty number is NaN, which the server refuses too. */
  const values = () => Object.fromEntries(parameters.names.map((name) => [name, read(name)]));

  /** What to remember of them: without what is the model's, or goes with the input picture. */
  function kept() {
    const all = { ...own.without(values()), extend: parameters.defaults().extend };
    return size.isOfPicture() ? { ...all, width: null, height: null } : all;
  }

  /** The pictures beside the values. */
  const pictures = () => ({
    input: input.get(),
    mask: input.mask(),
    hints: controls.pictures(),
  });

  /** Select a value; one that the server does not offer is added and marked. */
  function choose(select, value) {
    const known = [...select.options].some((option) => option.value === value);
    const mark = catalogue.samplers.length ? ' (not on this server)' : '';
    if (!known && value) select.append(make('option', { value }, value + mark));
    select.value = value ?? '';
  }

  /** The sampler of this name or alias, as in "dpm++ 2m karras" with its schedule. */
  function meant(value) {
    for (const { name, aliases = [], schedules = [] } of catalogue.samplers) {
      const names = [name, ...aliases];
      if (names.includes(value)) return { name };
      const isIt = (one) => names.some((known) => `${known} ${one}` === value);
      const schedule = schedules.find(isIt);
      if (schedule) return { name, schedule };
    }
    return { name: value };
  }

  const writers = {
    seed: (value) => Imagine.seed.set(value),
    loras: loras.set,
    controls: controls.set,
    subseed: (value) => (byId('subseed').value = value ?? ''),
    original_prompt: (value) => Imagine.enhance.noteOriginal(value),
    sampler(value) {
      const { name, schedule } = meant(value);
      choose(byId('sampler'), name);
      offerSchedules();
      if (schedule) byId('schedule').value = schedule;
    },
  };

  /** Put values into the form; others keep their value. */
  function fill(some) {
    for (const name of parameters.names) {
      if (!Object.hasOwn(some, name)) continue;
      if (!own.has(name) || some[name] !== null) write(name, some[name]);
    }
    own.take(some);
    refresh();
  }

  function write(name, value) {
    if (name === 'stream' && value === null) return; // as it is
    const element = byId(name);
    if (Object.hasOwn(writers, name)) writers[name](value);
    else if (!element) later.values[name] = value;
    else if (element.type === 'checkbox') element.checked = value;
    else if (element.tagName === 'SELECT') choose(element, value);
    else element.value = value;
  }

  /**
   * Take over the controls that a part of the page has put into the form.
   * @param {Object} ways By parameter, how it is read and written: {read, write}; {} as usual.
   */
  function adopt(ways) {
    for (const [name, { read: reader, write: writer }] of Object.entries(ways)) {
      if (reader) readers[name] = reader;
      if (writer) writers[name] = writer;
      placeWords(document.querySelector(`[data-field=${name}]`));
      write(name, later.values[name]);
    }
    Imagine.wrong.markAgain();
  }

  // --------------------------------------------------------------- what the server offers

  function offer(select, items) {
    const chosen = select.value;
    select.replaceChildren(
      ...items.map(({ value, label, disabled = false }) =>
        make('option', { value, disabled }, label),
      ),
    );
    choose(select, chosen || items.find((item) => !item.disabled)?.value);
  }

  function offerModels() {
    const usable = catalogue.models.map(({ name, problem }) => ({
      value: name,
      label: problem ? `${name} (unusable)` : name,
      disabled: Boolean(problem),
    }));
    const { defaultModel } = catalogue;
    const label = defaultModel ? `The server's choice: ${defaultModel}` : "The server's choice";
    offer(byId('model'), [{ value: '', label }, ...usable]);
  }

  function offerSamplers() {
    const items = catalogue.samplers.map(({ name, label }) => ({
      value: name,
      label: label ?? name,
    }));
    offer(byId('sampler'), items);
    writers.sampler(byId('sampler').value);
  }

  const sampler = () => catalogue.samplers.find(({ name }) => name === byId('sampler').value);
  const model = () => {
    const chosen = byId('model').value || catalogue.defaultModel;
    return catalogue.models.find(({ name }) => name === chosen);
  };

  function offerSchedules() {
    const known = sampler()?.schedules;
    const schedules = Array.isArray(known) && known.length ? known : ['default'];
    const select = byId('schedule');
    const wanted = schedules.includes(select.value) ? select.value : 'default';
    select.replaceChildren(...schedules.map((name) => make('option', { value: name }, name)));
    choose(select, wanted);
  }

  /** Show the server's choices; call it after each `catalogue.refresh()`. */
  function offerAll() {
    offerModels();
    offerSamplers();
    offerLimits();
    refresh();
  }

  function offerLimits() {
    const { steps, images, prompt, smallest, multiple, pixels } = catalogue.limits;
    const set = (id, name, value) => value > 0 && byId(id).setAttribute(name, value);
    set('steps', 'max', steps);
    set('n', 'max', images);
    for (const side of ['width', 'height']) {
      set(side, 'min', smallest);
      set(side, 'step', multiple);
      set(side, 'max', pixels / smallest);
    }
    for (const text of ['prompt', 'neg']) set(text, 'maxlength', prompt);
  }

  // ------------------------------------------------------------------------ what applies

  /** Switch a control off with its reason, or on again (no reason). */
  function apply(name, why, off = Boolean(why)) {
    byId(name).disabled = off;
    const slider = document.querySelector(`[data-of=${name}]`);
    if (slider) slider.disabled = off;
    say(byId(`${name}-why`), why || '');
  }

  function applySchedule() {
    const { label = byId('sampler').value, schedules = [] } = sampler() ?? {};
    apply('schedule', sampler() && schedules.length < 2 && `${label} has one schedule.`);
  }

  function describeSampler() {
    const { evaluations, stochastic, plugin } = sampler() ?? {};
    const parts = sampler() || !catalogue.samplers.length ? [] : ['This server has no such sampler.'];
    if (evaluations > 0) parts.push(`${plural(evaluations, 'evaluation')} a step`);
    if (stochastic) parts.push('adds noise on the way');
    if (typeof plugin === 'string') parts.push(`from ${plugin}`);
    say(byId('sampler-note'), parts.join(', '));
  }

  function describeModel() {
    const { family, bytes, best, problem } = model() ?? {};
    const parts = [catalogue.familyText(family), bytes > 0 && bytesText(bytes)];
    parts.push(best && `at its best at ${best.join(' × ')}`);
    const none = catalogue.state !== 'unknown' && !catalogue.models.some((one) => !one.problem);
    const note = none ? 'This server has no model that it can draw with.' : parts.filter(Boolean);
    say(byId('model-note'), problem ?? [note].flat().join(', '));
  }

  function followModel() {
    own.follow(model(), write);
    if (model()?.best) size.recommend(model().best);
  }

  /** Bring notes, sliders and the controls that do not apply up to date. */
  function refresh() {
    followModel();
    for (const slider of document.querySelectorAll('[data-of]')) {
      slider.value = byId(slider.dataset.of).value;
    }
    describeModel();
    describeSampler();
    size.show();
    tokens.show(/^sd([12]|xl)/.test(model()?.family));
    Imagine.enhance.show();
    loras.show();
    controls.show();
    byId('subseed-field').hidden = !(byId('subseed_strength').valueAsNumber > 0);
    apply('strength', !input.get() && 'For an input picture.');
    apply(
      'neg',
      byId('guidance').valueAsNumber <= 1 && 'Not used while the guidance scale is 1 or less.',
    );
    applySchedule();
    later.show();
    Imagine.wrong.settle();
  }

  // ------------------------------------------------------------------------------ at first

  /** Add a note and an error message below each field. */
  function placeWords(field) {
    const name = field.dataset.field;
    const words = ['why', 'error'].map((kind) =>
      make('p', { className: kind, id: `${name}-${kind}` }),
    );
    const ids = [entry(name).getAttribute('aria-describedby') ?? '', ...words.map(({ id }) => id)];
    entry(name).setAttribute('aria-describedby', ids.join(' ').trim());
    field.append(...words);
  }

  function build(changed) {
    byId('form').querySelectorAll('.fields [data-field]').forEach(placeWords);
    size.build();
    Imagine.seed.build();
    byId('form').addEventListener('input', ({ target }) => {
      if (target.dataset.of) byId(target.dataset.of).value = target.value;
      own.note(target.dataset.of ?? target.id);
      if (target.id === 'sampler') offerSchedules();
      refresh();
      changed();
    });
  }

  Imagine.form = {
    build,
    values,
    kept,
    pictures,
    model,
    fill,
    adopt,
    apply,
    choose,
    offerAll,
    refresh,
    read,
    entry,
    count: () => byId('n').valueAsNumber,
  };
}
