// The zones that a dragged picture can be dropped on, and what becomes of it.
'use strict';

{
  const { make } = Imagine.dom;
  const { gallery, parts } = Imagine;

  const zone = (name, note, properties = {}) =>
    make(
      'div',
      { className: 'drop-zone', ...properties },
      ...[make('strong', {}, name), make('span', {}, note)],
    );
  const all = make(
    'div',
    { className: 'drop', id: 'drop', hidden: true },
    zone('Restore its settings', 'a PNG or JSON of Imagine', { dataset: { do: 'restore' } }),
    zone('Use as input picture', 'any picture', { dataset: { do: 'input' } }),
  );
  document.body.append(all);

  const takers = new Map(); // places that take pictures, by the zone of each

  /** Offer every place that takes a picture, which the zones cover. */
  function addZones() {
    for (const old of takers.keys()) old.remove();
    takers.clear();
    for (const taker of document.querySelectorAll('.fields [data-takes]')) {
      if (taker.checkVisibility()) takers.set(zone(taker.dataset.takes, ''), taker);
    }
    all.append(...takers.keys());
  }

  /** Show the zones while something is dragged over `target`. */
  function show(target) {
    if (all.hidden) addZones();
    all.hidden = false;
    for (const one of all.children) one.classList.toggle('over', one === zoneAt(target));
  }

  function hide() {
    all.hidden = true;
  }

  const zoneAt = (target) => target.closest?.('.drop-zone') ?? null;

  /** The place that takes what is dropped at an element; undefined if none does. */
  const takerAt = (target) =>
    takers.get(zoneAt(target)) ?? target.closest?.('[data-takes]') ?? undefined;

  const give = (taker, detail) => taker.dispatchEvent(new CustomEvent('picture', { detail }));

  /** The use of a drop: by the zone or place that it hit, else by the file. */
  const purpose = (target) =>
    target.closest?.('#input-well') ? 'input' : (zoneAt(target)?.dataset.do ?? 'any');

  const useAsInput = (file) => parts.call('files', 'useAsInput', file);

  async function takeRecord(record, use) {
    if (use !== 'input') return parts.call('files', 'restore', record);
    return useAsInput((await gallery.picture(record)).output);
  }

  /** Take what was dropped on `target`: a file, or the gallery's picture of this id. */
  async function take(target, { file, id }) {
    const [use, taker] = [purpose(target), takerAt(target)];
    const record = id && gallery.all().find((one) => String(one.id) === id);
    if (taker && record) give(taker, (await gallery.picture(record)).output);
    else if (taker && file) give(taker, file);
    else if (record) await takeRecord(record, use);
    else if (file) await (use === 'input' ? useAsInput(file) : parts.call('files', 'take', file));
  }

  async function paste(file) {
    const taker = document.querySelector('dialog[open][data-takes]');
    if (taker) give(taker, file);
    else await useAsInput(file);
  }

  Imagine.zones = { show, hide, take, paste };
}
