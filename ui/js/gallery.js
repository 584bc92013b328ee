// The gallery: every picture made here, kept in the browser, newest first.
'use strict';

{
  const { byId, make, say, plural, bytesText } = Imagine.dom;
  const { thumbnail } = Imagine.bytes;
  const SIDE = 320; // pixels of a thumbnail's longer side: sharp on dense screens
  const PAGE = 60; // thumbnails put on the page at a time

  let store;
  let records = []; // newest first
  let shown = 0; // how many of them are on the page
  let selected = null;
  let onOpen = () => {};

  const thumbs = () => byId('thumbs');
  const thumbOf = (record) => (record ? byId(`thumb-${record.id}`) : null);

  // ------------------------------------------------------------------------------ drawing

  function thumbFor(record) {
    const src = URL.createObjectURL(record.thumb);
    const image = make('img', { src, alt: '', decoding: 'async', draggable: false });
    const element = make(
      'div',
      {
        id: `thumb-${record.id}`,
        className: 'thumb',
        role: 'option',
        tabIndex: -1,
        title: record.values.prompt,
        ariaLabel: `${record.values.prompt}, seed ${record.values.seed}`,
        ariaSelected: 'false',
        draggable: true,
        dataset: { id: record.id },
      },
      image,
    );
    image.onload = () => URL.revokeObjectURL(src);
    return element;
  }

  function showMore() {
    const next = records.slice(shown, shown + PAGE);
    shown += next.length;
    thumbs().append(...next.map(thumbFor));
    end.disconnect();
    if (shown < records.length) end.observe(thumbs().lastElementChild);
  }

  /** Whoever comes to see the last of the thumbnails is shown more. */
  const end = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && showMore());

  function showNote() {
    const bytes = records.reduce((sum, record) => sum + record.bytes, 0);
    say(
      byId('gallery-note'),
      records.length
        ? `${plural(records.length, 'picture')}, ${bytesText(bytes)}`
        : 'Kept in this browser',
    );
    byId('gallery-clear').hidden = thumbs().hidden = !records.length;
  }

  /** Mark a record as the one on the stage; null for none. */
  function mark(record) {
    const old = thumbOf(selected) ?? thumbs().querySelector('[tabindex="0"]');
    old?.setAttribute('aria-selected', 'false');
    if (old) old.tabIndex = -1;
    selected = record;
    while (record && !thumbOf(record) && shown < records.length) showMore();
    const thumb = thumbOf(record) ?? thumbs().firstElementChild;
    if (!thumb) return;
    thumb.tabIndex = 0;
    if (!record) return;
    thumb.setAttribute('aria-selected', 'true');
    reveal(thumb);
  }

  /** Scroll a thumbnail into the gallery's own view; the page itself stays where it is. */
  function reveal(thumb) {
    const around = thumbs().getBoundingClientRect();
    const box = thumb.getBoundingClientRect();
    const by = (start, end, from, to) => (start < from ? start - from : Math.max(0, end - to));
    thumbs().scrollBy(
      by(box.left, box.right, around.left, around.right),
      by(box.top, box.bottom, around.top, around.bottom),
    );
  }

  // ------------------------------------------------------------------------------ changing

  /**
   * Keep a picture.
   * @param {Blob} output
   * @param {{values: Object, input: ?Blob, seconds: number}} of What it was made of.
   * @returns {Promise<Object>} its record.
   */
  async function add(output, { values, input = null, seconds = 0 }) {
    const small = await thumbnail(output, SIDE);
    const newest = records[0]?.id ?? 0;
    const record = {
      id: Math.max(Date.now(), newest + 1),
      values,
      seconds,
      bytes: output.size,
      ...small,
    };
    await store.add(record, { output, input });
    records.unshift(record);
    shown += 1;
    thumbs().prepend(thumbFor(record));
    showNote();
    return record;
  }

  /** The picture of a record: {output, input}. */
  async function picture(record) {
    const found = await store.picture(record.id);
    if (!found) throw new Error('This picture is no longer in the gallery.');
    return found;
  }

  /** Take records away. Returns a function that brings them back. */
  async function remove(gone) {
    const pictures = await Promise.all(gone.map((record) => store.picture(record.id)));
    await store.remove(gone.map(({ id }) => id));
    records = records.filter((record) => !gone.includes(record));
    redraw();
    return async () => {
      for (const [at, record] of gone.entries()) await store.add(record, pictures[at]);
      records = [...records, ...gone].sort((a, b) => b.id - a.id);
      redraw();
    };
  }

  function redraw() {
    thumbs().replaceChildren();
    shown = 0;
    showMore();
    showNote();
    mark(records.includes(selected) ? selected : null);
  }

  // ------------------------------------------------------------------------------- walking

  const byThumb = (thumb) => records.find(({ id }) => String(id) === thumb?.dataset.id);

  /** The record `offset` places older than the selected one, or the first. */
  function neighbour(offset) {
    if (!records.length) return null;
    const at = selected ? records.indexOf(selected) + offset : 0;
    return records[Math.min(records.length - 1, Math.max(0, at))];
  }

  function walkTo(record) {
    if (!record) return;
    const focused = thumbs().contains(document.activeElement);
    mark(record);
    if (focused) thumbOf(record)?.focus();
    onOpen(record);
  }

  const KEYS = {
    ArrowRight: () => neighbour(1),
    ArrowDown: () => neighbour(1),
    ArrowLeft: () => neighbour(-1),
    ArrowUp: () => neighbour(-1),
    Home: () => records[0],
    End: () => records.at(-1),
    Enter: () => byThumb(document.activeElement),
    ' ': () => byThumb(document.activeElement),
  };

  /** Walk by key; returns whether the key was one of ours. */
  function walk(key) {
    if (!Object.hasOwn(KEYS, key) || !records.length) return false;
    walkTo(KEYS[key]());
    return true;
  }

  async function build({ opened, fleeting }) {
    onOpen = opened;
    const opening = await Imagine.store.openStore();
    store = opening.store;
    if (!opening.lasting) fleeting();
    records = (await store.all()).sort((a, b) => b.id - a.id);
    redraw();
    thumbs().onclick = ({ target }) => walkTo(byThumb(target.closest('.thumb')));
    thumbs().onkeydown = (event) => {
      if (!event.ctrlKey && !event.metaKey && walk(event.key)) {
        event.preventDefault();
        event.stopPropagation();
      }
    };
  }

  Imagine.gallery = {
    build,
    add,
    picture,
    remove,
    mark,
    walk,
    neighbour,
    byThumb,
    newest: () => records[0] ?? null,
    all: () => [...records],
  };
}
