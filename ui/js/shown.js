// The shown picture and its actions: open, compare, restore, repaint, enlarge, download, delete.
'use strict';

{
  const { byId, plural } = Imagine.dom;
  const { form, gallery, stage, parts } = Imagine;
  const { tell } = Imagine.messages;
  const { explain } = Imagine.explain;

  /** Show a gallery picture; while comparing, it becomes the other side. */
  async function open(record) {
    try {
      if (stage.comparing() && stage.current && stage.current !== record)
        return await compareWith(record);
      const { output } = await gallery.picture(record);
      await stage.show(record, output);
      return byId('stage').scrollIntoView({ block: 'nearest' });
    } catch (error) {
      gallery.stage(stage.current);
      return explain(error);
    }
  }

  /** After a run without pictures, show the picture from before it. */
  async function goBack(record) {
    if (stage.current) return; // the user has chosen another
    const last = record ?? gallery.newest();
    if (last) await open(last);
    else stage.empty();
  }

  async function compareWith(other) {
    const load = async (record) => ({ record, blob: (await gallery.picture(record)).output });
    const both = await Promise.all([load(stage.current), load(other)]);
    await parts.call('compare', 'open', ...both);
  }

  async function toggleCompare() {
    if (stage.comparing()) return Imagine.compare.close();
    const older = gallery.neighbour(1);
    const other = older === stage.current ? gallery.neighbour(-1) : older;
    if (!other || other === stage.current)
      return tell('info', 'Make another picture to compare with.');
    await compareWith(other);
    return tell('info', 'Choose any picture of the gallery to compare with that one.');
  }

  async function removeRecords(records, text) {
    const next = gallery.neighbour(1);
    Imagine.compare?.close();
    const bringBack = await gallery.remove(records);
    const undo = async () => {
      await bringBack();
      await open(records[0]);
    };
    tell('info', text, [{ label: 'Undo', run: undo }]);
    const remaining = records.includes(next) ? gallery.newest() : next;
    if (remaining) await open(remaining);
    else if (!stage.running()) stage.empty();
  }

  /** Delete the shown picture; returns whether one was shown. */
  function remove() {
    if (!stage.current) return false;
    removeRecords([stage.current], 'Picture deleted.').catch(explain);
    return true;
  }

  function lockSeed({ values }) {
    form.fill({ seed: values.seed });
    tell('good', 'The seed is locked to that of this picture.');
  }

  const withShown = (act) => () => Promise.resolve(act(stage.current)).catch(explain);
  byId('act-restore').onclick = withShown((record) => parts.call('files', 'restore', record));
  byId('act-download').onclick = withShown((record) => parts.call('files', 'downloadPicture', record));
  byId('act-input').onclick = withShown(async (record) =>
    parts.call('files', 'useAsInput', (await gallery.picture(record)).output),
  );
  byId('act-repaint').onclick = withShown(async (record) => {
    await parts.call('files', 'useAsInput', (await gallery.picture(record)).output);
    await parts.call('repaint', 'paint');
  });
  byId('act-enlarge').onclick = withShown((record) => parts.call('enlarge', 'open', record));
  byId('act-seed').onclick = withShown(lockSeed);
  byId('act-compare').onclick = withShown(toggleCompare);
  byId('act-full').onclick = withShown(() => byId('canvas').requestFullscreen());
  byId('act-delete').onclick = remove;
  byId('gallery-clear').onclick = () =>
    removeRecords(gallery.all(), `${plural(gallery.all().length, 'picture')} deleted.`).catch(
      explain,
    );
  stage.onShow = gallery.stage;

  Imagine.shown = { open, goBack, remove };
}
