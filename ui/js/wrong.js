// What is wrong in the form, found by the page or by the server: marked until it is mended.
'use strict';

{
  const { byId, say, bytesText } = Imagine.dom;
  const { catalogue, controls, input, later, loras, parameters } = Imagine;
  const { read, entry, pictures } = Imagine.form;
  const SIZES = ['width', 'height', 'extend', 'hires', 'keep_size', 'mask_padding', 'img', 'mask'];

  let told = []; // the errors in the form: {field, message, causes}

  /** What a field holds, to tell whether it has changed. */
  function stateOf(field) {
    const pictureOf = { img: [input.get()], mask: [input.mask()], controls: controls.pictures() };
    return [JSON.stringify(read(field)), ...(pictureOf[field] ?? [])];
  }

  /** The fields that may have led to what the server says of one, and what they hold. */
  const causesOf = (field) =>
    [field, 'model', ...(SIZES.includes(field) ? SIZES : [])].map((name) => [name, stateOf(name)]);

  const isAsThen = ([name, then]) => stateOf(name).every((one, at) => one === then[at]);

  function mark({ field, message }) {
    const place = byId(`${field}-error`);
    if (!place) return; // it comes with its part
    say(place, message);
    entry(field)?.setAttribute('aria-invalid', 'true');
  }

  /** Mark wrong fields: [{field, message}], by the page or by the server. Returns unknown ones. */
  function show(errors, byServer = true) {
    const comes = ({ field }) => !byId(`${field}-error`) && Object.hasOwn(later.values, field);
    const known = errors.filter((one) => byId(`${one.field}-error`) || comes(one));
    for (const error of known) {
      mark(error);
      const place = comes(error) ? byId('more') : byId(`${error.field}-error`).closest('details');
      if (place) place.open = true;
      told.push({ ...error, causes: byServer ? causesOf(error.field) : null });
    }
    document.querySelector('#form [aria-invalid=true]')?.focus();
    const unknown = errors.filter((one) => !known.includes(one));
    return unknown.map(({ field, message }) => `${field}: ${message}`);
  }

  function unmark({ field }) {
    if (byId(`${field}-error`)) say(byId(`${field}-error`), '');
    entry(field)?.removeAttribute('aria-invalid');
  }

  function clear() {
    told.forEach(unmark);
    told = [];
  }

  /** Take away the errors whose cause is gone. */
  function settle() {
    if (!told.length) return;
    const found = problems();
    const before = told;
    const now = ({ field, causes, ...error }) => {
      if (causes) return causes.every(isAsThen) && { ...error, field, causes };
      const same = found.find((one) => one.field === field);
      return same && { ...same, causes };
    };
    told = before.map(now).filter(Boolean);
    before.forEach(unmark);
    told.forEach(mark);
    if (!told.length) Imagine.messages.settle('fields');
  }

  /** The errors that the page can find, in the server's form: [{field, message}]. */
  function problems() {
    const found = [];
    for (const element of byId('form').elements) {
      const { disabled, validity, validationMessage: message } = element;
      const field = element.closest('[data-field]')?.dataset.field;
      const between = validity?.stepMismatch && element.step < 1; // arrows step, values need not
      if (!field || disabled || validity.valid || between || element.closest('[hidden]')) continue;
      found.push({ field, message });
    }
    const { pixels, body } = catalogue.limits;
    const [width, height] = ['width', 'height'].map((side) => byId(side).valueAsNumber);
    const most = `This server draws at most ${pixels?.toLocaleString('en')} pixels`;
    if (width * height > pixels) found.push({ field: 'width', message: `${most}.` });
    const [left, top, right, bottom] = read('extend');
    const extended = (width + left + right) * (height + top + bottom);
    const keepsOwn = input.mask() && read('mask_padding') !== null;
    if (input.get() && !keepsOwn && extended > Math.max(pixels, width * height))
      found.push({ field: 'extend', message: `${most}, with what is beyond the edges.` });
    const sent = Object.values(pictures()).flat();
    if (body && sent.reduce((sum, one) => sum + (one?.size ?? 0), 0) * 1.34 > body) {
      // base64 is a third larger
      found.push({ field: 'img', message: `This server takes at most ${bytesText(body * 0.74)}.` });
    }
    if (loras.all().some(({ weight }) => !(Math.abs(weight) <= 100))) {
      found.push({ field: 'loras', message: 'A weight is a number from -100 to 100.' });
    }
    const bare = controls.all().find(({ picture }) => !picture);
    if (bare) found.push({ field: 'controls', message: `Give ${bare.name} a picture.` });
    if (!byId('prompt').value.trim()) found.push({ field: 'prompt', message: 'Say what to draw.' });
    const message = 'A seed is a whole number from 0 to 2^64 - 1.';
    if (Imagine.seed.next() === undefined) found.push({ field: 'seed', message });
    const subseed = read('subseed');
    if (subseed && parameters.readSeed(subseed) === undefined)
      found.push({ field: 'subseed', message });
    return found;
  }

  /** Mark those whose fields have come with a part. */
  const markAgain = () => told.forEach(mark);

  Imagine.wrong = { problems, show, clear, settle, markAgain };
}
