// Notices files and pictures that are dragged over the page, dropped or pasted; a part takes them.
'use strict';

{
  const { gallery, parts } = Imagine;
  const OURS = 'application/x-imagine-picture'; // a drag that began in this page's gallery

  const types = (event) => [...(event.dataTransfer?.types ?? [])];
  const wanted = (event) => types(event).includes('Files') || types(event).includes(OURS);

  let failed = () => {};
  let dragging = false; // the part may come once it is over
  const zones = (does, ...all) => parts.call('zones', does, ...all).catch(failed);

  function over(event) {
    if (!wanted(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = 'copy';
    const begins = !dragging;
    dragging = true;
    if (document.querySelector('dialog[open]')) return; // which is above everything
    const { target } = event;
    if (Imagine.zones) Imagine.zones.show(target);
    else if (begins) parts.load('zones').then((loaded) => dragging && loaded.show(target), failed);
  }

  function hide() {
    dragging = false;
    Imagine.zones?.hide();
  }

  /** Read the event at once: afterwards the browser takes its data back. */
  async function drop(event) {
    hide();
    if (!wanted(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    await zones('take', event.target, { file, id: event.dataTransfer.getData(OURS) });
  }

  function start(event) {
    const thumb = event.target.closest?.('.thumb');
    const record = thumb
      ? gallery.byThumb(thumb)
      : event.target.closest?.('.tile') && Imagine.stage.current;
    if (!record) return;
    event.dataTransfer.setData(OURS, String(record.id));
    event.dataTransfer.effectAllowed = 'copy';
  }

  function paste(event) {
    const [file] = event.clipboardData.files;
    if (!file) return; // text goes where the cursor is
    event.preventDefault();
    zones('paste', file);
  }

  /** @param {function(Error)} refused Tells the user why the part does not come. */
  function build(refused) {
    failed = refused;
    addEventListener('dragstart', start);
    addEventListener('dragenter', over);
    addEventListener('dragover', over);
    addEventListener('dragleave', (event) => event.relatedTarget ?? hide());
    addEventListener('dragend', hide);
    addEventListener('drop', drop);
    addEventListener('paste', paste);
  }

  Imagine.drop = { build };
}
