// Makes the fields of the parts that are loaded later, in the form of those that are there at first.
'use strict';

{
  const { make } = Imagine.dom;
  const { catalogue } = Imagine;

  /** A field of the form; its notes and errors are added when the form adopts it. */
  const field = (name, ...children) =>
    make('div', { className: 'field', dataset: { field: name } }, ...children);

  const label = (id, text) => make('label', { htmlFor: id }, text);

  const number = (id, { min, max, step, value = '', required = true }) =>
    make('input', { type: 'number', id, min, max, step, value, required });

  /** A number with a slider below it, which goes up to `most`. */
  function pair(name, text, { most, ...bounds }) {
    const ofSlider = { ...bounds, max: most ?? bounds.max, ariaLabel: `${text}, slider` };
    const slider = make('input', { type: 'range', ...ofSlider, dataset: { of: name } });
    const made = field(name, label(name, text), number(name, bounds), slider);
    made.classList.add('pair');
    return made;
  }

  /** A choice; `options` are pairs of value and text. */
  function select(name, text, options) {
    const all = options.map(([value, shown]) => make('option', { value }, shown));
    return field(name, label(name, text), make('select', { id: name }, ...all));
  }

  const tick = (id, text) =>
    make('label', { className: 'check' }, make('input', { type: 'checkbox', id }), ` ${text}`);

  const check = (name, text) => field(name, tick(name, text));

  const button = (text, onclick, properties = {}) =>
    make('button', { type: 'button', className: 'small', onclick, ...properties }, text);

  /** A button that lets the user choose a picture's file. */
  function chooser(text, chosen, properties = {}) {
    const input = make('input', { type: 'file', className: 'sr', accept: 'image/*', ...properties });
    input.onchange = () => {
      const [file] = input.files;
      input.value = ''; // so that the same file can be chosen again
      if (file) chosen(file);
    };
    return make('label', { className: 'button small' }, text, input);
  }

  /** A group of choices of which one is on. */
  function choice(text, name, options, chosen) {
    const labels = options.map(([value, shown]) =>
      make(
        'label',
        {},
        make('input', { type: 'radio', name, value, onchange: () => chosen(value) }),
        make('span', {}, shown),
      ),
    );
    const group = make('div', { className: 'switch', ariaLabel: text }, ...labels);
    group.setAttribute('role', 'radiogroup');
    return group;
  }

  const two = (...children) => make('div', { className: 'two' }, ...children);

  /** Put other options into a choice, and keep what is chosen. */
  function offer(element, options, value = element.value) {
    element.replaceChildren(
      ...options.map(([each, shown]) => make('option', { value: each }, shown)),
    );
    Imagine.form.choose(element, value);
  }

  const lists = new Map(); // promises, by path, for the server as it is now
  let models = null;

  /** What the server lists at `/name`, or nothing if it knows no such list. */
  function listOf(name) {
    if (models !== catalogue.models) lists.clear();
    models = catalogue.models;
    if (!lists.has(name)) {
      const reading = catalogue.read(name);
      lists.set(name, reading);
      reading.catch(() => lists.delete(name));
    }
    return lists.get(name);
  }

  const titled = ({ name, label: text }) => [name, text ?? name];

  /** The server's upscalers as options; the one that every server has, where it says nothing. */
  async function upscalers() {
    const all = await listOf('upscalers').catch(() => []);
    const usable = all.filter(({ problem }) => !problem).map(titled);
    return usable.length ? usable : [['lanczos', 'Lanczos']];
  }

  /** Take a picture that is dropped onto `element`; `text` names the use of it. */
  function takes(element, text, taken) {
    element.dataset.takes = text;
    element.addEventListener('picture', ({ detail }) => taken(detail));
    return element;
  }

  Imagine.fields = {
    ...{ field, label, number, pair, select, tick, check, button, chooser, choice, two },
    ...{ offer, listOf, titled, upscalers, takes },
  };
}
