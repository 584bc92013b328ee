// Wires the page together: connects the events of each part to the other parts.
'use strict';

{
  const { byId, say, remember, plural } = Imagine.dom;
  const { api, form, input, gallery, stage, compare, run, jobs, shown, parameters } = Imagine;
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
    const problems = form.problems();
    if (problems.length) form.showErrors(problems);
    else await draw({ ...form.values(), seed: Imagine.seed.next() }, form.count());
  }

  /** Show a run to its end; returns its records and the error that ended it, if any. */
  async function watch(going, count) {
    compare.close();
    showRunning(true);
    const before = stage.current;
    const outcome = going();
    byId('stage').scrollIntoView({ block: 'nearest' });
    const { results, error, begun } = await outcome;
    showRunning(false);
    if (!begun) await shown.goBack(before);
    const records = results.map(({ record }) => record);
    if (records.length) Imagine.seed.made(records[0].values.seed);
    if (count === 1 && records.length === 1 && stage.current === null) stage.present(records[0]);
    if (!error) finish(records, new Set(results.flatMap(({ warnings }) => warnings)));
    return { records, error };
  }

  async function draw(values, count) {
    const { error } = await watch(() => run.start(values, { count, input: input.get() }), count);
    if (error) explain(error, generate);
    // The server may have kept the picture of a lost connection: ask for it.
    if (error instanceof api.Unreachable || error instanceof api.ConnectionLost)
      await Imagine.server.look();
    else await recover();
  }

  function finish(records, warnings) {
    for (const warning of warnings) tell('warn', String(warning));
    say(byId('announce'), `${plural(records.length, 'picture')} finished.`);
  }

  /** Resume the pictures that were in progress when the page or the server was lost. */
  async function recover() {
    if (run.running()) return;
    const left = await jobs.leftBehind();
    if (run.running()) return left.forEach(({ id }) => jobs.release(id)); // after that one
    if (!left.length) return;
    clearErrors(); // such as of the lost connection
    const { records, error } = await watch(() => run.resume(left), left.length);
    const many = records.length > 1;
    if (records.length)
      tell('good', `The picture${many ? 's' : ''} that you left behind ${many ? 'are' : 'is'} finished.`);
    if (error?.status === 404) tellGone(left[0].values);
    else if (error) explain(error);
  }

  function tellGone(values) {
    const again = () => {
      form.fill(values);
      generate();
    };
    tell('warn', 'The server did not keep the picture that it was making.', [
      { label: 'Make it again', run: again },
    ]);
  }

  // ------------------------------------------------------------------------------- the form

  let saving = null;
  function keepForm() {
    if (saving === null) return;
    clearTimeout(saving);
    saving = null;
    remember.set('form', { ...form.values(), n: form.count() });
  }

  function saveForm() {
    clearTimeout(saving);
    saving = setTimeout(keepForm, 300);
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
    // Chromium may show a file:// page no storage until the browser's process has answered it.
    await navigator.locks?.query().catch(() => {});
    api.recall();
    wireForm();
    for (const part of [stage, compare, shown, Imagine.files, Imagine.drop]) part.build();
    Imagine.enhance.build(explain);
    Imagine.ideas.build(generate);
    Imagine.keyboard.build({ generate, escape, remove: shown.remove });
    await gallery.build({
      opened: shown.open,
      refused: (why) =>
        tell(
          'warn',
          `This browser keeps nothing for this page (${why}): the gallery lasts until you close it.`,
        ),
    });
    if (gallery.newest()) await shown.open(gallery.newest());
    await Imagine.server.build(recover);
  }

  addEventListener('pagehide', keepForm);
  addEventListener('unhandledrejection', (event) => {
    explain(event.reason);
    if (event.reason instanceof Imagine.store.StoreError) event.preventDefault(); // already shown
  });
  begin();
}
