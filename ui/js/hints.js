// The rows of the ControlNets in the form: each with its picture, how that becomes a hint, and how it acts.
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const { api, catalogue, controls, form, input } = Imagine;
  const { button, chooser, offer, listOf, titled, takes, two } = Imagine.fields;
  const { decodedImage, fromBase64, toBase64, bytesOf } = Imagine.bytes;
  const { settle } = Imagine.messages;
  const { explain } = Imagine.explain;
  const FINISHED = 'None: it is a finished hint';
  const MODES = [
    ['balanced', 'Balanced'],
    ['prompt', 'The prompt counts more'],
    ['control', 'The hint counts more'],
  ];

  const rows = new Map(); // by the use that each shows
  let known = []; // the server's ControlNets
  let asked = null; // the server's models when they were asked for; null: not yet known
  let number = 0; // of the last row, for ids

  async function readAgain() {
    if (!catalogue.models.length || asked === catalogue.models) return;
    asked = catalogue.models;
    try {
      known = await catalogue.readKind('controlnet');
    } catch {
      known = []; // the server's state is on the page
    }
    show();
  }

  // ----------------------------------------------------------------------------- a picture

  /** Show a picture in a row's frame, or that there is none. */
  async function showPicture(row, blob) {
    const image = row.querySelector('.hint-picture');
    const url = image.src;
    image.hidden = !blob;
    if (blob) image.src = (await decodedImage(blob)).src;
    else image.removeAttribute('src');
    if (url) URL.revokeObjectURL(url);
  }

  async function setPicture(use, blob) {
    const copy = new Blob([await bytesOf(blob)], { type: blob.type }); // the file may disappear
    try {
      URL.revokeObjectURL((await decodedImage(copy)).src);
    } catch {
      return input.refuse(blob);
    }
    settle('picture');
    use.picture = copy;
    return controls.changed();
  }

  /** Show what the preprocessor makes of the picture. */
  async function preview(use, row) {
    const shown = row.querySelector('.hint-preview');
    const again = row.querySelector('.hint-look');
    again.disabled = true;
    try {
      const img = await toBase64(await bytesOf(use.picture));
      const body = { img, preprocessor: use.preprocessor };
      const { img: hint } = await api.json('/preprocess', { body });
      const image = await decodedImage(new Blob([await fromBase64(hint)]));
      if (shown.src) URL.revokeObjectURL(shown.src);
      shown.src = image.src;
      shown.hidden = false;
    } catch (error) {
      explain(error);
    } finally {
      again.disabled = false;
    }
  }

  function hidePreview(row) {
    const shown = row.querySelector('.hint-preview');
    if (shown.src) URL.revokeObjectURL(shown.src);
    shown.removeAttribute('src');
    shown.hidden = true;
  }

  // --------------------------------------------------------------------------------- a row

  function remove(use) {
    const all = controls.all();
    const next = all[all.indexOf(use) + 1] ?? all.at(-2);
    controls.remove(use);
    (rows.get(next)?.querySelector('.bare') ?? byId('controls')).focus();
  }

  /** A labelled number of a use. */
  function entry(use, key, text, otherwise, bounds) {
    const made = make('input', { type: 'number', ...bounds, required: true });
    made.value = use[key] ?? otherwise;
    made.oninput = () => (use[key] = made.valueAsNumber);
    return make('label', { className: 'border' }, make('span', {}, text), made);
  }

  /** A weight with its slider. */
  function weightOf(use) {
    const text = `Weight of ${use.name}`;
    const range = { min: 0, max: 2, step: 0.05, value: use.weight, ariaLabel: `${text}, slider` };
    const slider = make('input', { type: 'range', ...range, title: 'Double-click for 1' });
    const bounds = { min: 0, max: 10, step: 0.05, required: true, ariaLabel: text };
    const entered = make('input', { type: 'number', ...bounds, value: use.weight });
    const set = (weight) => (use.weight = weight);
    slider.oninput = () => (entered.value = set(slider.valueAsNumber));
    entered.oninput = () => (slider.value = set(entered.valueAsNumber));
    slider.ondblclick = () => {
      entered.value = slider.value = set(1);
      slider.dispatchEvent(new Event('input', { bubbles: true }));
    };
    return [entered, slider];
  }

  /** A labelled choice of a use; the first option is the default, which is not noted. */
  function choiceOf(use, key, text, options) {
    const id = `control-${key}-${number}`;
    const made = make('select', { id });
    offer(made, options, use[key] ?? options[0][0]);
    made.oninput = () => {
      if (made.selectedIndex) use[key] = made.value;
      else delete use[key];
    };
    return make('div', { className: 'field' }, make('label', { htmlFor: id }, text), made);
  }

  function wellOf(use) {
    const image = make('img', { className: 'hint-picture', alt: `Picture for ${use.name}` });
    image.hidden = true;
    const fromInput = button('Use the input picture', () => setPicture(use, input.get()), {
      className: 'small hint-input',
    });
    const choose = chooser('Choose a picture', (file) => setPicture(use, file));
    const text = make('div', { className: 'well-text' }, choose, fromInput);
    return make('div', { className: 'well' }, image, text);
  }

  function rowOf(use) {
    number += 1;
    const label = make('span', { className: 'lora-name', title: use.name }, use.name);
    const close = { type: 'button', className: 'bare', ariaLabel: `Remove ${use.name}` };
    const away = make('button', { ...close, onclick: () => remove(use) }, '×');
    const [weight, slider] = weightOf(use);
    const options = [['', FINISHED]];
    if (use.preprocessor) options.push([use.preprocessor, use.preprocessor]);
    const part = { min: 0, max: 1, step: 0.05 };
    const row = make(
      'div',
      { className: 'lora control' },
      ...[label, weight, away, slider, wellOf(use)],
      choiceOf(use, 'preprocessor', 'Preprocessor', options),
      button('Show the hint', () => preview(use, row), { className: 'small hint-look' }),
      make('img', { className: 'hint-preview', alt: `The hint for ${use.name}`, hidden: true }),
      choiceOf(use, 'mode', 'What counts', MODES),
      two(
        entry(use, 'start', 'From this part of the steps', 0, part),
        entry(use, 'end', 'To this part', 1, part),
      ),
      make('p', { className: 'why' }),
    );
    row.setAttribute('role', 'group');
    row.setAttribute('aria-label', use.name);
    row.querySelector('select').addEventListener('change', () => hidePreview(row));
    return takes(row, `Picture for ${use.name}`, (blob) => setPicture(use, blob));
  }

  // ------------------------------------------------------------------------------- showing

  /** Why the ControlNet of this name does not serve, in words. */
  function problem(name) {
    const info = known.find((one) => one.name === name);
    if (info) return catalogue.misfit(info, form.model());
    return known.length ? 'Not among the ControlNets of this server.' : null;
  }

  function update(row, use) {
    const why = problem(use.name) ?? '';
    row.classList.toggle('odd', Boolean(why));
    say(row.querySelector(':scope > .why'), why);
    row.querySelector('.hint-input').disabled = !input.get();
    row.querySelector('.hint-look').hidden = !use.preprocessor || !use.picture;
    if (row.picture === use.picture) return;
    row.picture = use.picture;
    hidePreview(row);
    showPicture(row, use.picture).catch(() => {});
  }

  /** Offer the server's preprocessors in all rows. */
  async function offerPreprocessors() {
    const all = await listOf('preprocessors').catch(() => []);
    const options = [['', FINISHED], ...all.filter(({ problem: why }) => !why).map(titled)];
    for (const [use, row] of rows) {
      const select = row.querySelector('select');
      if (select.dataset.offered === String(options)) continue;
      select.dataset.offered = String(options);
      offer(select, options, use.preprocessor ?? '');
    }
  }

  /** Bring the rows up to date with the uses, the model and the input picture. */
  function show() {
    const uses = controls.all();
    for (const use of rows.keys()) if (!uses.includes(use)) rows.delete(use);
    for (const use of uses) if (!rows.has(use)) rows.set(use, rowOf(use));
    const wanted = uses.map((use) => rows.get(use));
    const place = byId('control-rows');
    const same = wanted.every((row, at) => row === place.children[at]);
    if (!same || wanted.length !== place.children.length) place.replaceChildren(...wanted);
    for (const use of uses) update(rows.get(use), use);
    if (!uses.length) return;
    readAgain();
    offerPreprocessors();
  }

  Imagine.hints = { show };
}
