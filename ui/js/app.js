// Wires the page together: who is told when something happens. Everything else has its own file.
'use strict';

(() => {
  const { byId, say, remember, plural } = Imagine.dom;
  const { form, input, gallery, stage, compare, run, shown, parameters } = Imagine;
  const { tell, clearErrors } = Imagine.messages;
  const { explain } = Imagine.explain;

  // ---------------------------------------------------------------------------- generating

  function showRunning(is) {
    const focused = [byId('generate'), byId('cancel')].includes(document.activeElement);
    byId('generate').hidden = is;
    byId('cancel').hidden = !is;
    if (focused) byId(is ? 'cancel' : 'generate').focus({ preventScroll: true });
  }

  async function generate() {
    if (run.running()) return;
    clearErrors();
    form.clearErrors();
    compare.close();
    const problems = form.problems();
    if (problems.length) form.showErrors(problems);
    else await draw({ ...form.values(), seed: Imagine.seed.next() }, form.count());
  }

  async function draw(values, count) {
    byId('stage').scrollIntoView({ block: 'nearest' });
    showRunning(true);
    const before = stage.current;
    const { results, error, begun } = await run.start(values, { count, input: input.get() });
    showRunning(false);
    if (!begun) await shown.goBack(before);
    const records = results.map(({ record }) => record);
    if (records.length) Imagine.seed.made(records[0].values.seed);
    if (count === 1 && records.length === 1 && stage.current === null) stage.present(records[0]);
    if (error) explain(error, generate);
    else finish(records, new Set(results.flatMap(({ warnings }) => warnings)));
  }

  function finish(records, warnings) {
    for (const warning of warnings) {
      if (!/\bon_disconnect\b/.test(warning)) tell('warn', String(warning)); // we only offered it
    }
    say(byId('announce'), `${plural(records.length, 'picture')} finished.`);
  }

  const recover = () =>
    run.recover({
      onFound(record) {
        tell('good', 'The picture that you left behind is finished.');
        if (!run.running()) shown.open(record);
      },
      onGone(values) {
        const again = () => {
          form.fill(values);
          generate();
        };
        tell('warn', 'The server did not keep the picture that was being made when you left.', [
          { label: 'Make it again', run: again },
        ]);
      },
    });

  // ------------------------------------------------------------------------------- the form

  let saving;
  function saveForm() {
    clearTimeout(saving);
    saving = setTimeout(() => remember.set('form', { ...form.values(), n: form.count() }), 300);
  }

  function restoreForm() {
    const kept = remember.get('form', {});
    form.fill({ ...parameters.defaults(), ...parameters.read(kept).values });
    if (Number.isInteger(kept.n)) byId('n').value = kept.n;
  }

  function reset() {
    const before = form.values();
    form.fill(parameters.defaults());
    byId('n').value = 1;
    saveForm();
    tell('info', 'All parameters are as at first.', [
      { label: 'Undo', run: () => form.fill(before) },
    ]);
  }

  function wireForm() {
    form.build(saveForm);
    input.build({
      changed: form.refresh,
      refused: (name) => tell('bad', `${name} is not a picture that the browser can read.`),
    });
    byId('form').onsubmit = (event) => {
      event.preventDefault();
      generate();
    };
    byId('cancel').onclick = run.cancel;
    byId('reset').onclick = reset;
    restoreForm();
  }

  function escape() {
    if (!compare.on()) return run.cancel();
    compare.close();
    return true;
  }

  async function begin() {
    wireForm();
    for (const part of [stage, compare, shown, Imagine.files, Imagine.drop]) part.build();
    Imagine.enhance.build(explain);
    Imagine.ideas.build(generate);
    Imagine.keyboard.build({ generate, escape, remove: shown.remove });
    await gallery.build({
      opened: shown.open,
      fleeting: () =>
        tell(
          'warn',
          'This browser keeps nothing for this page: the gallery lasts until you close it.',
        ),
    });
    if (gallery.newest()) await shown.open(gallery.newest());
    await Imagine.server.build(recover);
  }

  addEventListener('unhandledrejection', ({ reason }) => explain(reason));
  begin();
})();
