// The gallery: every picture made here, kept in the browser, newest first.
'use strict';

{
  const { byId, make, say, plural, bytesText } = Imagine.dom;
  const { thumbnail } = Imagine.bytes;
  const { store } = Imagine;
  const { tell } = Imagine.messages;
  const SIDE = 320; // pixels of a thumbnail's longer side: sharp on dense screens
  const PAGE = 60; // thumbnails put on the page at a time

  let records = []; // newest first
  let shown = 0; // how many of them are on the page
  let selected = null;
  let onOpen = () => {};

  // Pictures in this window's memory, by record: those on the stage, which the user can save
  // even if the browser's storage fails, and those that it refused.
  const held = new Map();
  const unkept = new Set();
  let ofRun = new Set(); // the records of the newest run
  let staged = null; // the last record on the stage
  let complaint = null; // the message about unkept pictures
  let warned = false; // whether the user knows that nothing is kept

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

  /** Adds thumbnails when the user scrolls to the last one. */
  const end = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && showMore());

  function showNote() {
    const bytes = records.reduce((sum, record) => sum + record.bytes, 0);
    const missing = unkept.size ? `, ${unkept.size} not kept` : '';
    say(
      byId('gallery-note'),
      records.length
        ? `${plural(records.length, 'picture')}, ${bytesText(bytes)}${missing}`
        : 'Kept in this browser',
    );
    byId('gallery-clear').hidden = thumbs().hidden = !records.length;
  }

  /** Mark a record as the one on the stage; null: none. */
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

  // ------------------------------------------------------------------------------ holding

  /** A run begins: pictures of the one before it leave the stage. */
  function beginRun() {
    ofRun = new Set();
  }

  /** Mark the record on the stage, and hold only the pictures on the stage. */
  function stage(record) {
    mark(record);
    staged = record ?? staged;
    for (const one of held.keys()) {
      if (one !== staged && !ofRun.has(one) && !unkept.has(one)) held.delete(one);
    }
  }

  /** The pictures of a record in memory, {output, input, mask, hints}; rejects if one is lost. */
  async function picture(record) {
    if (!held.has(record)) {
      const { output, input, mask, hints = [] } = await store.picture(record.id);
      const [out, start, over, ...rest] = await Promise.all(
        [output, input, mask, ...hints].map(store.read),
      );
      held.set(record, { output: out, input: start, mask: over, hints: rest });
    }
    return held.get(record);
  }

  /** Store a picture; on failure it stays in memory, and the user is told. */
  async function keep(record, picture) {
    try {
      await store.add(record, picture);
      unkept.delete(record);
      if (!unkept.size) complaint?.remove();
    } catch (error) {
      unkept.add(record);
      held.set(record, picture);
      complain(error.message);
    }
    showNote();
  }

  function complain(why) {
    if (warned) return;
    complaint?.remove();
    const many = unkept.size > 1;
    complaint = tell(
      'warn',
      `${many ? `${unkept.size} pictures are` : 'This picture is'} not kept: ${why}. ` +
        `Download ${many ? 'them' : 'it'} before you close the page.`,
    );
  }

  // ------------------------------------------------------------------------------ changing

  /**
   * Add a picture to the gallery, and to the storage if possible.
   * @param {Blob} output
   * @param {{values: Object, input: ?Blob, mask: ?Blob, hints: Array<?Blob>, seconds: number,
   *   run: boolean}} of Its settings, and whether the run on the stage made it.
   * @returns {Promise<Object>} its record.
   */
  async function add(output, { values, seconds = 0, run = false, ...pictures }) {
    const { input = null, mask = null, hints = [] } = pictures;
    const small = await thumbnail(output, SIDE);
    const newest = records[0]?.id ?? 0;
    const record = {
      id: Math.max(Date.now(), newest + 1),
      values,
      seconds,
      bytes: output.size,
      ...small,
    };
    held.set(record, { output, input, mask, hints });
    if (run) ofRun.add(record);
    records.unshift(record);
    shown += 1;
    thumbs().prepend(thumbFor(record));
    await keep(record, held.get(record));
    return record;
  }

  /** Remove records. Returns a function that restores them. */
  async function remove(gone) {
    const pictureOf = (record) => held.get(record) ?? store.picture(record.id).catch(() => null);
    const pictures = await Promise.all(gone.map(pictureOf));
    const stored = gone.filter((record) => !unkept.has(record));
    if (stored.length) await store.remove(stored.map(({ id }) => id));
    for (const record of gone) unkept.delete(record);
    records = records.filter((record) => !gone.includes(record));
    for (const record of unkept) await keep(record, held.get(record)); // there may be room now
    redraw();
    return async () => {
      for (const [at, record] of gone.entries()) {
        if (!pictures[at]) continue;
        records.push(record);
        await keep(record, pictures[at]);
      }
      records.sort((a, b) => b.id - a.id);
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

  /** Move by key; returns whether the key was handled. */
  function walk(key) {
    if (!Object.hasOwn(KEYS, key) || !records.length) return false;
    walkTo(KEYS[key]());
    return true;
  }

  /** Show the stored pictures; `refused` receives the reason if it fails. */
  async function build({ opened, refused }) {
    onOpen = opened;
    try {
      records = (await store.all()).sort((a, b) => b.id - a.id);
    } catch (error) {
      warned = true;
      refused(error.message);
    }
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
    beginRun,
    stage,
    walk,
    neighbour,
    byThumb,
    newest: () => records[0] ?? null,
    all: () => [...records],
  };
}
