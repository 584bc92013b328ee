// Enlarges the picture on the stage with one of the server's upscalers, and compares the two.
'use strict';

{
  const { byId, make, say, remember } = Imagine.dom;
  const { catalogue, gallery, parts, stream } = Imagine;
  const { fromBase64, toBase64, bytesOf } = Imagine.bytes;
  const { button, label, offer, upscalers } = Imagine.fields;
  const { tell } = Imagine.messages;
  const { explain } = Imagine.explain;

  const USUAL = 'lanczos'; // of the server and of `imagine upscale`, too; which file is best, none tells

  let record = null; // whose picture is enlarged
  let controller = null; // of the request in progress

  const choice = make('select', { id: 'enlarge-upscaler' });
  const factor = make('input', {
    ...{ type: 'number', id: 'enlarge-factor', min: 0.1, max: 16, step: 0.1, value: 2 },
    required: true,
  });
  const note = make('p', { className: 'note', id: 'enlarge-note' });
  const bar = make('div', { className: 'progress', hidden: true }, make('span'));
  bar.setAttribute('role', 'progressbar');
  bar.setAttribute('aria-label', 'Progress of the enlarging');
  const saying = make('p', { className: 'note', role: 'status' });
  const start = make('button', { className: 'primary' }, 'Enlarge');
  const close = button('Close', cancel, { className: '' });
  const fields = make(
    'div',
    { className: 'two' },
    make('div', { className: 'field' }, label('enlarge-upscaler', 'Enlarge with'), choice),
    make('div', { className: 'field' }, label('enlarge-factor', 'Times'), factor),
  );
  const form = make(
    'form',
    { noValidate: true, className: 'later' },
    make('h2', { id: 'h-enlarge' }, 'Enlarge this picture'),
    ...[fields, note, bar, saying],
    make('div', { className: 'row' }, start, close),
  );
  const dialog = make('dialog', { id: 'enlarge' }, form);
  dialog.setAttribute('aria-labelledby', 'h-enlarge');
  factor.setAttribute('aria-describedby', 'enlarge-note');
  document.body.append(dialog);

  /** Why the factor does not serve, in words; null if it does. */
  function problem() {
    if (!factor.validity.valid && !factor.validity.stepMismatch)
      return `A number from ${factor.min} to ${factor.max}.`;
    const { pixels } = catalogue.limits;
    const [width, height] = size();
    if (pixels && width * height > pixels)
      return `That is ${width} × ${height}; this server makes at most ${pixels.toLocaleString('en')} pixels.`;
    return null;
  }

  const size = () =>
    [record.width, record.height].map((side) => Math.round(side * factor.valueAsNumber));

  function describe() {
    const why = problem();
    note.className = why ? 'error' : 'note';
    start.disabled = Boolean(why || controller);
    factor.setAttribute('aria-invalid', Boolean(why));
    const sizes = why ? [] : [[record.width, record.height], size()];
    say(note, why ?? sizes.map((one) => one.join(' × ')).join(' becomes '));
  }

  const PHASES = {
    queued: 'Waiting',
    loading: 'Loading the upscaler',
    enlarging: 'Enlarging',
  };

  function show({ status, step, steps, position }) {
    const ahead = position > 0 ? `, ${position} ahead in the queue` : '';
    const part = step > 0 && steps > 1 ? ` ${step} of ${steps}` : '';
    const phase = PHASES[status] ?? PHASES.enlarging;
    say(saying, phase + (part || ahead));
    const fraction = steps > 0 ? step / steps : 0;
    bar.setAttribute('aria-valuenow', Math.round(fraction * 100));
    bar.firstElementChild.style.transform = `scaleX(${fraction})`;
  }

  function showRunning(is) {
    bar.hidden = !is;
    choice.disabled = factor.disabled = is;
    say(close, is ? 'Cancel' : 'Close');
    if (is) show({ status: 'queued' });
    else say(saying, '');
    describe();
  }

  /** Close the dialog, or end the request in progress. */
  function cancel() {
    if (controller) controller.abort();
    else dialog.close();
  }

  async function ask(output) {
    controller = new AbortController();
    showRunning(true);
    const body = { img: await toBase64(await bytesOf(output)), upscaler: choice.value };
    body.scale = factor.valueAsNumber;
    try {
      const options = { signal: controller.signal, onEvent: show };
      return await stream.upscale(body, options);
    } finally {
      controller = null;
      showRunning(false);
    }
  }

  /** Keep the larger picture with the settings of its source, and show both. */
  async function keep(source, { output, ...pictures }, reply) {
    const blob = new Blob([await fromBase64(reply.img)], { type: 'image/png' });
    const { values } = source;
    const seconds = Object.values(reply.timings ?? {}).reduce((sum, each) => sum + each, 0);
    const larger = await gallery.add(blob, { values, ...pictures, seconds });
    for (const warning of [reply.warnings ?? []].flat()) tell('warn', String(warning));
    await Imagine.shown.open(larger);
    await parts.call('compare', 'open', { record: source, blob: output }, { record: larger, blob });
    // Seen in the comparison, which a message would cover.
    say(byId('announce'), `Enlarged to ${larger.width} × ${larger.height}.`);
  }

  async function enlarge() {
    const source = record;
    try {
      const pictures = await gallery.picture(source);
      const reply = await ask(pictures.output);
      dialog.close();
      await keep(source, pictures, reply);
    } catch (error) {
      if (error.name !== 'AbortError') dialog.close();
      const why = (error.fields ?? []).map(({ message }) => message).join('; ');
      if (why) tell('bad', `The picture was not enlarged: ${why}.`);
      else explain(error);
    }
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    if (!controller && !problem()) enlarge();
  };
  choice.onchange = () => remember.set('upscaler', choice.value);
  factor.oninput = describe;
  dialog.oncancel = (event) => {
    event.preventDefault();
    cancel();
  };

  /** Ask how to enlarge the picture of `shown`, a record of the gallery. */
  async function open(shown) {
    record = shown;
    describe();
    dialog.showModal();
    const offered = await upscalers();
    const names = offered.map(([name]) => name);
    const wanted = [choice.value, remember.get('upscaler', ''), USUAL];
    offer(choice, offered, wanted.find((name) => names.includes(name)) ?? names[0]);
  }

  Imagine.enlarge = { open };
}
