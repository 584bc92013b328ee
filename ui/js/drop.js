// Takes dropped and pasted files, and pictures dragged from the gallery.
'use strict';

{
  const { byId, make } = Imagine.dom;
  const { gallery, parts, stage } = Imagine;
  const OURS = 'application/x-imagine-picture'; // a drag that began in this page's gallery

  const types = (event) => [...(event.dataTransfer?.types ?? [])];
  const wanted = (event) => types(event).includes('Files') || types(event).includes(OURS);

  function over(event) {
    if (!wanted(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = 'copy';
    if (document.querySelector('dialog[open]')) return; // which is above everything
    if (byId('drop').hidden) addZones();
    byId('drop').hidden = false;
    for (const zone of byId('drop').children) {
      zone.classList.toggle('over', zone === event.target.closest?.('.drop-zone'));
    }
  }

  const takers = new Map(); // places that take pictures, by the zone of each

  /** Offer every place that takes a picture, which the zones cover. */
  function addZones() {
    for (const zone of takers.keys()) zone.remove();
    takers.clear();
    for (const taker of document.querySelectorAll('.fields [data-takes]')) {
      if (!taker.checkVisibility()) continue;
      const name = make('strong', {}, taker.dataset.takes);
      takers.set(make('div', { className: 'drop-zone' }, name), taker);
    }
    byId('drop').append(...takers.keys());
  }

  /** The place that takes what is dropped at an element; undefined if none does. */
  function takerAt(target) {
    const zone = target.closest?.('.drop-zone');
    return takers.get(zone) ?? target.closest?.('[data-takes]') ?? undefined;
  }

  const give = (taker, detail) => taker.dispatchEvent(new CustomEvent('picture', { detail }));

  function hide() {
    byId('drop').hidden = true;
  }

  /** The use of a drop: by the zone or place that it hit, else by the file. */
  function purpose({ target }) {
    if (target.closest?.('#input-well')) return 'input';
    return target.closest?.('.drop-zone')?.dataset.do ?? 'any';
  }

  const recordOf = (id) => gallery.all().find((one) => String(one.id) === id);

  async function dropRecord(id, use) {
    const record = recordOf(id);
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
    const taker = takerAt(event.target);
    if (taker && id) give(taker, (await gallery.picture(recordOf(id))).output);
    else if (taker && file) give(taker, file);
    else if (id) await dropRecord(id, use);
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
    const taker = document.querySelector('dialog[open][data-takes]');
    if (taker) give(taker, file);
    else await parts.call('files', 'useAsInput', file);
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
