// Takes dropped and pasted files, and pictures dragged from the gallery.
'use strict';

{
  const { byId } = Imagine.dom;
  const { gallery, parts, stage } = Imagine;
  const OURS = 'application/x-imagine-picture'; // a drag that began in this page's gallery

  const types = (event) => [...(event.dataTransfer?.types ?? [])];
  const wanted = (event) => types(event).includes('Files') || types(event).includes(OURS);

  function over(event) {
    if (!wanted(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = 'copy';
    byId('drop').hidden = false;
    for (const zone of byId('drop').children) {
      zone.classList.toggle('over', zone === event.target.closest?.('.drop-zone'));
    }
  }

  function hide() {
    byId('drop').hidden = true;
  }

  /** The use of a drop: by the zone or place that it hit, else by the file. */
  function purpose({ target }) {
    if (target.closest?.('#input-well')) return 'input';
    return target.closest?.('.drop-zone')?.dataset.do ?? 'any';
  }

  async function dropRecord(id, use) {
    const record = gallery.all().find((one) => String(one.id) === id);
    if (!record) return;
    if (use !== 'input') return parts.call('files', 'restore', record);
    return parts.call('files', 'useAsInput', (await gallery.picture(record)).output);
  }

  async function drop(event) {
    hide();
    if (!wanted(event)) return;
    event.preventDefault();
    const use = purpose(event);
    const [file] = event.dataTransfer.files;
    const id = event.dataTransfer.getData(OURS);
    if (id) await dropRecord(id, use);
    else if (file) await parts.call('files', use === 'input' ? 'useAsInput' : 'take', file);
  }

  function start(event) {
    const thumb = event.target.closest?.('.thumb');
    const record = thumb
      ? gallery.byThumb(thumb)
      : event.target.closest?.('.tile') && stage.current;
    if (!record) return;
    event.dataTransfer.setData(OURS, String(record.id));
    event.dataTransfer.effectAllowed = 'copy';
  }

  async function paste(event) {
    const [file] = event.clipboardData.files;
    if (!file) return; // text goes where the cursor is
    event.preventDefault();
    await parts.call('files', 'useAsInput', file);
  }

  function build() {
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
