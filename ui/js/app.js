// Wires the page together: connects the events of each part to the other parts.
'use strict';

{
  const { byId, say, remember, plural } = Imagine.dom;
  const { api, form, input, gallery, parameters, parts, wrong } = Imagine;
  const { tell, clearErrors } = Imagine.messages;
  const { explain } = Imagine.explain;

  // ---------------------------------------------------------------------------- generating

  function showRunning(is) {
    const focused = [byId('generate'), byId('cancel')].includes(document.activeElement);
    byId('generate').hidden = is;
    byId('cancel').hidden = !is;
    if (focused) byId(is ? 'cancel' : 'generate').focus({ preventScroll: true });
  }

  let running = false;
  let abort = () => {}; // ends a run whose script has not come yet

  async function generate() {
    if (running) return;
    clearErrors();
    wrong.clear();
    const problems = wrong.problems();
    if (problems.length) wrong.show(problems, false);
    else await draw({ ...form.values(), seed: Imagine.seed.next() }, form.count());
  }

  const staged = () => Imagine.stage?.current ?? null; // the part may not have come

  /** Show a run to its end; returns its records and the error that ended it, if any. */
  async function watch(does, all, options) {
    const count = options?.count ?? all.length;
    running = true;
    Imagine.compare?.close();
    showRunning(true);
    const before = staged();
    const aborted = new Promise((resolve, reject) => {
      abort = () => reject(new DOMException('', 'AbortError'));
    });
    const outcome = Promise.race([parts.load('run'), aborted]).then((run) => {
      const going = run[does](all, options);
      byId('stage').scrollIntoView({ block: 'nearest' }); // which has its tiles by now
      return going;
    });
    const lost = (error) => ({ results: [], error, begun: false }); // the script did not come
    const { results, error, begun } = await outcome.catch(lost);
    running = false;
    showRunning(false);
    if (!begun) await Imagine.shown?.goBack(before);
    const records = results.map(({ record }) => record);
    if (records.length) {
      parts.prepare();
      Imagine.seed.made(records[0].values.seed);
    }
    if (count === 1 && records.length === 1 && !staged()) Imagine.stage.present(records[0]);
    if (!error) finish(records, new Set(results.flatMap(({ warnings }) => warnings)));
    return { records, error };
  }

  /** End the run. Returns whether there was one. */
  function cancel() {
    abort();
    Imagine.run?.cancel();
    return running;
  }

  async function draw(values, count) {
    const given = { count, pictures: form.pictures(), unsaid: Imagine.own.unsaid() };
    const { error } = await watch('start', values, given);
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
    if (running || !remember.get('jobs', []).length) return;
    await parts.load('run');
    const { jobs } = Imagine;
    const left = await jobs.leftBehind();
    if (running) return left.forEach(({ id }) => jobs.release(id)); // after that one
    if (!left.length) return;
    clearErrors(); // such as of the lost connection
    const { records, error } = await watch('resume', left);
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
    remember.set('form', { ...form.kept(), n: form.count() });
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
    const [before, { hints }] = [form.values(), form.pictures()];
    form.fill(parameters.defaults());
    byId('n').value = 1;
    saveForm();
    const undo = () => {
      form.fill(before);
      Imagine.controls.setPictures(hints);
      form.refresh();
    };
    tell('info', 'All parameters are as at first.', [
      { label: 'Undo', run: undo },
    ]);
  }

  function wireForm() {
    const needed = {
      repaint: input.get,
      more: () => byId('more').open,
      hires: () => byId('hires-on')?.checked,
    };
    Imagine.later.build(needed, explain);
    byId('more').ontoggle = Imagine.later.show;
    form.build(saveForm);
    input.build({
      changed: form.refresh,
      taken(image) {
        form.fill({ extend: parameters.defaults().extend }); // the borders are those of a picture
        Imagine.size.follow(image);
      },
    });
    byId('form').onsubmit = (event) => {
      event.preventDefault();
      generate();
    };
    byId('cancel').onclick = cancel;
    byId('reset').onclick = reset;
    byId('save-settings').onclick = () => parts.call('files', 'saveSettings').catch(explain);
    byId('settings-file').onchange = ({ target }) => {
      const [file] = target.files;
      target.value = '';
      if (file) parts.call('files', 'take', file).catch(explain);
    };
    restoreForm();
  }

  function escape() {
    if (!Imagine.stage?.comparing()) return cancel();
    Imagine.compare.close();
    return true;
  }

  /** Show a picture of the gallery. */
  const open = (record) => parts.call('shown', 'open', record).catch(explain);

  async function begin() {
    // Chromium may show a file:// page no storage until the browser's process has answered it.
    await navigator.locks?.query().catch(() => {});
    api.recall();
    wireForm();
    Imagine.drop.build(explain);
    Imagine.loras.build(explain);
    Imagine.controls.build(explain);
    Imagine.enhance.build(explain);
    Imagine.ideas.build(generate);
    const list = () => void parts.call('keys', 'open').catch(explain);
    Imagine.keyboard.build({ generate, escape, remove: () => Imagine.shown?.remove(), list });
    await gallery.build({
      opened: open,
      refused: (why) =>
        tell(
          'warn',
          `This browser keeps nothing for this page (${why}): the gallery lasts until you close it.`,
        ),
    });
    if (gallery.newest()) {
      parts.prepare();
      await open(gallery.newest());
    }
    await Imagine.server.build(recover);
  }

  addEventListener('pagehide', keepForm);
  addEventListener('unhandledrejection', (event) => {
    explain(event.reason);
    if (event.reason instanceof Imagine.store.StoreError) event.preventDefault(); // already shown
  });
  begin();
}
