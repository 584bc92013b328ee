// The painter: paints the mask over the picture to start from, with a mouse, a pen, fingers or keys.
'use strict';

{
  const { make, say } = Imagine.dom;
  const { input } = Imagine;
  const { button, chooser, choice, takes } = Imagine.fields;
  const { Mask, withImage } = Imagine.mask;
  const { View } = Imagine.view;
  const WHEEL = 0.0015; // how much of a turn of the wheel zooms; a pinch on a trackpad turns less
  const PINCH = 0.01;

  let picture = null; // the blob that is painted over
  let mask = null;
  let tool = 'brush';
  let cursor = [0, 0]; // on the picture
  let hand = null; // what the pointers or keys do: 'stroke', 'move', 'pinch', or null
  let finished = () => {};

  // ------------------------------------------------------------------------------ elements

  const image = make('img', { alt: '', draggable: false });
  const sheet = make('div', { className: 'paint-sheet' }, image);
  const ring = make('div', { className: 'paint-ring', hidden: true });
  const around = make('div', { className: 'paint-view', tabIndex: 0 }, sheet, ring);
  const name = 'The picture: paint what is to be repainted. Arrow keys move the brush, Space paints';
  around.setAttribute('role', 'application');
  around.setAttribute('aria-label', name);
  const view = new View(around, sheet, () => mask && showRing());

  const size = make('input', { type: 'range', min: 1, max: 400, value: 48, id: 'brush-size' });
  const sizeText = make('output', { className: 'note' });
  const tools = choice(
    'Tool',
    'paint-tool',
    [
      ['brush', 'Brush'],
      ['eraser', 'Eraser'],
      ['move', 'Move'],
    ],
    (value) => (tool = value),
  );
  const undo = button('Undo', () => step(() => mask.undo()));
  const redo = button('Redo', () => step(() => mask.redo()));
  const does = (what) => () => step(() => mask.take({ does: what }));
  const note = make('p', { className: 'note grow', role: 'status' });

  const KEYS = [
    ['← ↑ → ↓', 'move the brush; with Shift a pixel at a time'],
    ['Space', 'paint; held down, the arrow keys draw'],
    ['B, E, M', 'brush, eraser, move'],
    ['[ and ]', 'smaller, larger brush'],
    ['Ctrl+Z, Ctrl+Y', 'undo, redo'],
    ['I', 'invert'],
    ['+, −, 0', 'zoom in, out, show all'],
    ['Esc', 'done'],
  ];
  const keys = make(
    'dl',
    {},
    ...KEYS.flatMap(([key, text]) => [make('dt', {}, key), make('dd', {}, text)]),
  );
  const dialog = make(
    'dialog',
    { id: 'painter' },
    make(
      'div',
      { className: 'paint-bar' },
      make('h2', { id: 'h-painter' }, 'What to repaint'),
      make('button', { type: 'button', className: 'primary', onclick: finish }, 'Done'),
    ),
    make(
      'div',
      { className: 'paint-bar' },
      tools,
      make('label', { className: 'paint-size' }, make('span', {}, 'Size'), size, sizeText),
      make('div', { className: 'row' }, undo, redo),
      make(
        'div',
        { className: 'row' },
        button('−', () => view.zoom(1 / 1.25), { ariaLabel: 'Zoom out' }),
        button('Show all', () => view.fit()),
        button('+', () => view.zoom(1.25), { ariaLabel: 'Zoom in' }),
      ),
      make(
        'div',
        { className: 'row' },
        button('Invert', does('invert')),
        button('Fill', does('fill')),
        button('Clear', does('clear')),
        chooser('Load a mask', load, { id: 'paint-file' }),
      ),
    ),
    around,
    make(
      'div',
      { className: 'paint-bar paint-foot' },
      note,
      make('details', {}, make('summary', {}, 'Keys'), keys),
    ),
  );
  dialog.setAttribute('aria-labelledby', 'h-painter');
  document.body.append(dialog);
  takes(dialog, 'Use as the mask', load);

  // -------------------------------------------------------------------------------- state

  const pixels = () => Number(size.value);

  /** The brush where the pointer or the keys have brought it. */
  function showRing() {
    const [x, y] = view.placeOf(cursor);
    const across = Math.max(3, pixels() * view.scale);
    Object.assign(ring.style, { width: `${across}px`, height: `${across}px` });
    ring.style.transform = `translate(${x - across / 2}px, ${y - across / 2}px)`;
    say(sizeText, `${size.value} px`);
  }

  function show() {
    [undo.disabled, redo.disabled] = [!mask.canUndo, !mask.canRedo];
    const share = mask.share();
    const percent = share > 0 && share < 0.01 ? 'Less than 1%' : `${Math.round(share * 100)}%`;
    const marked = share ? `${percent} of the picture is marked.` : 'Nothing is marked yet.';
    say(note, [marked, mask.remark].filter(Boolean).join(' '));
  }

  function step(act) {
    end();
    act();
    show();
  }

  async function load(blob) {
    const into = mask;
    await into.load(blob).then(show, () => input.refuse(blob));
  }

  const choose = (value) => {
    tool = value;
    tools.querySelector(`[value=${value}]`).checked = true;
  };

  // ------------------------------------------------------------------------------- strokes

  function begin(point) {
    hand = 'stroke';
    mask.begin(point, { size: pixels(), erase: tool === 'eraser' });
  }

  function end() {
    const painted = hand === 'stroke';
    hand = null;
    if (painted) show();
  }

  const pointers = new Map(); // where each is, in the window

  const placesOf = () => [...pointers.values()];
  const middleOf = ([[x, y], [u, v]]) => [(x + u) / 2, (y + v) / 2];
  const distanceOf = ([[x, y], [u, v]]) => Math.hypot(x - u, y - v);

  function down(event) {
    if (event.button > 1) return;
    event.preventDefault();
    around.focus({ preventScroll: true });
    around.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    cursor = view.pointAt([event.clientX, event.clientY]);
    ring.hidden = false;
    showRing();
    if (pointers.size > 1) {
      if (hand === 'stroke') mask.forget(); // a second finger: it was no stroke
      hand = 'pinch';
    } else if (tool === 'move' || event.button === 1) hand = 'move';
    else begin(cursor);
  }

  function pinch(event) {
    const before = placesOf().slice(0, 2);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = placesOf().slice(0, 2);
    const [[x, y], [u, v]] = [middleOf(before), middleOf(after)];
    view.move(u - x, v - y);
    view.zoom(distanceOf(after) / (distanceOf(before) || 1), [u, v]);
  }

  function moved(event) {
    const place = [event.clientX, event.clientY];
    if (hand === 'pinch' && pointers.size > 1 && pointers.has(event.pointerId)) return pinch(event);
    const before = pointers.get(event.pointerId);
    if (before) pointers.set(event.pointerId, place);
    if (hand === 'move' && before) view.move(place[0] - before[0], place[1] - before[1]);
    if (hand === 'stroke' && before) {
      const all = event.getCoalescedEvents?.() ?? [];
      for (const { clientX, clientY } of all.length ? all : [event])
        mask.goOn(view.pointAt([clientX, clientY]));
    }
    cursor = view.pointAt(place);
    ring.hidden = hand === 'pinch' || tool === 'move';
    return showRing();
  }

  function up({ pointerId }) {
    pointers.delete(pointerId);
    if (hand !== 'pinch' || !pointers.size) end(); // the last finger of a pinch does not paint
  }

  Object.assign(around, { onpointerdown: down, onpointermove: moved, onpointerup: up });
  around.onpointercancel = around.onlostpointercapture = up;
  around.onpointerleave = () => (ring.hidden = around !== document.activeElement);
  around.onfocus = () => (ring.hidden = false);
  around.onblur = end;
  around.addEventListener(
    'wheel',
    (event) => {
      event.preventDefault();
      const pace = event.ctrlKey ? PINCH : WHEEL;
      if (event.shiftKey) view.move(-event.deltaX - event.deltaY, 0);
      else view.zoom(Math.exp(-event.deltaY * pace), [event.clientX, event.clientY]);
    },
    { passive: false },
  );
  size.oninput = showRing;

  // ---------------------------------------------------------------------------------- keys

  const ARROWS = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
  };

  function walk([dx, dy], by) {
    const within = (at, most) => Math.max(0, Math.min(most, at));
    cursor = [within(cursor[0] + dx * by, mask.width), within(cursor[1] + dy * by, mask.height)];
    if (hand === 'stroke') mask.goOn(cursor);
    ring.hidden = false;
    view.reveal(cursor);
    showRing();
  }

  function resize(factor) {
    size.value = factor > 1 ? Math.ceil(pixels() * factor) : Math.floor(pixels() * factor);
    showRing();
  }

  const DOES = {
    b: () => choose('brush'),
    e: () => choose('eraser'),
    m: () => choose('move'),
    '[': () => resize(0.8),
    ']': () => resize(1.25),
    i: does('invert'),
    '+': () => view.zoom(1.25),
    '=': () => view.zoom(1.25),
    '-': () => view.zoom(1 / 1.25),
    0: () => view.fit(),
  };
  const WITH_CTRL = { z: () => undo.click(), y: () => redo.click(), Z: () => redo.click() };

  /** Run the action of a key; returns whether it has one. */
  function press({ key, ctrlKey, metaKey, altKey, shiftKey, repeat, target }) {
    if (altKey) return false;
    if (ctrlKey || metaKey) return Object.hasOwn(WITH_CTRL, key) && (WITH_CTRL[key](), true);
    if (target === around && Object.hasOwn(ARROWS, key)) {
      walk(ARROWS[key], shiftKey ? 1 : Math.max(1, Math.round(pixels() / 4)));
      return true;
    }
    if (target === around && key === ' ') {
      if (!repeat && !hand && tool !== 'move') begin(cursor);
      return true;
    }
    const known = key.length === 1 ? key.toLowerCase() : key;
    return Object.hasOwn(DOES, known) && (DOES[known](), true);
  }

  dialog.onkeydown = (event) => {
    if (press(event)) event.preventDefault();
  };
  around.onkeyup = ({ key }) => {
    if (key === ' ' && !pointers.size) end();
  };

  // -------------------------------------------------------------------------- open and done

  /** Begin with a picture, whose mask so far is a picture, too. */
  async function begins(blob, before) {
    await withImage(blob, async ({ naturalWidth: width, naturalHeight: height }) => {
      const next = new Mask(width, height);
      if (before) await next.load(before);
      [picture, mask, cursor] = [blob, next, [width / 2, height / 2]];
    });
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    sheet.replaceChildren(image, mask.canvas);
    size.max = Math.max(100, Math.round(Math.max(mask.width, mask.height) / 2));
    size.value = Math.max(4, Math.round(Math.min(mask.width, mask.height) / 10));
  }

  /** Paint over `blob`; `done(mask, remark)` takes the mask, null if nothing is painted. */
  async function open(blob, before, done) {
    if (picture !== blob) await begins(blob, before);
    else if (!before && !mask.isEmpty()) mask.take({ does: 'clear' }); // it was removed
    finished = done;
    dialog.showModal();
    view.open(mask.width, mask.height);
    show();
    around.focus({ preventScroll: true });
  }

  async function finish() {
    end();
    const made = await mask.toBlob();
    dialog.close(); // which gives the focus back, before the caller has it
    finished(made, made && mask.remark);
  }

  dialog.oncancel = (event) => {
    event.preventDefault();
    finish();
  };
  choose('brush');

  /** Make any picture the mask of `blob`, in its size: a PNG, null if it is empty, and a remark. */
  async function maskOf(blob, other) {
    if (picture !== blob) await begins(blob, null);
    await mask.load(other);
    show();
    return [await mask.toBlob(), mask.remark];
  }

  Imagine.painter = { open, maskOf };
}
