// The form's fields for repainting a part of the input picture and for painting beyond its edges.
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const { form, input, painter, size } = Imagine;
  const { field, number, pair, select, tick, check, button, chooser } = Imagine.fields;
  const { withImage, tinted, COLOUR } = Imagine.mask;
  const { takes } = Imagine.fields;
  const SIDES = ['left', 'top', 'right', 'bottom'];
  const LARGEST = 320; // pixels of the frame's longer side

  // ------------------------------------------------------------------------------ elements

  const place = byId('repaint');
  const remove = button('Remove the mask', () => {
    setMask(null, null);
    byId('mask').focus();
  });
  const odd = make('p', { className: 'why odd-mask' });
  const frame = make('canvas', { className: 'frame', hidden: true });
  frame.setAttribute('role', 'img');

  const FILLS = [
    ['original', 'the picture as it is'],
    ['noise', 'noise'],
    ['blank', 'nothing'],
    ['average', 'the colours around it'],
  ];
  const padding = pair('mask_padding', 'Pixels around it that the model sees', {
    ...{ min: 0, max: 16384, most: 256, step: 1, value: 32 },
  });
  padding.prepend(tick('mask_padding-on', 'Draw only the marked part, in the size above'));

  /** One of the four borders. */
  function border(side) {
    const id = `extend-${side}`;
    const entry = number(id, { min: 0, max: 16384, step: 8, value: 0 });
    const text = side[0].toUpperCase() + side.slice(1);
    return make('label', { className: 'border' }, make('span', {}, text), entry);
  }
  const borders = make(
    'fieldset',
    { id: 'extend', className: 'borders' },
    make('legend', {}, 'Paint beyond the edges, in pixels'),
    ...SIDES.map(border),
  );
  const whole = make('p', { className: 'note', id: 'extend-note' });
  const fit = button('', () => size.set(ownSize()));

  const ofMask = [check('mask_invert', 'Repaint all but what is marked'), padding];
  const ofEither = [
    select('mask_fill', 'The repainted part starts from', FILLS),
    pair('mask_blur', 'Soft edge, in pixels', { min: 0, max: 256, most: 64, step: 0.5, value: 4 }),
  ];
  place.append(
    fit,
    field(
      'mask',
      make(
        'div',
        { className: 'under' },
        make('button', { type: 'button', className: 'small', id: 'mask', onclick: paint }),
        chooser('Load a mask', take, { id: 'mask-file' }),
        remove,
      ),
      frame,
      odd,
    ),
    ofMask[0],
    ...ofEither,
    ofMask[1],
    field('extend', borders, whole),
  );
  place.className = 'later';
  takes(place, 'Use as the mask', take);

  // --------------------------------------------------------------------------------- values

  const read = () => SIDES.map((side) => byId(`extend-${side}`).valueAsNumber);

  form.adopt({
    mask: { write() {} }, // a picture
    mask_invert: {},
    mask_fill: {},
    mask_blur: {},
    mask_padding: {
      read: () => (byId('mask_padding-on').checked ? byId('mask_padding').valueAsNumber : null),
      write(value) {
        byId('mask_padding-on').checked = value !== null;
        if (value !== null) byId('mask_padding').value = value;
      },
    },
    extend: {
      read,
      write: (value) => SIDES.forEach((side, at) => (byId(`extend-${side}`).value = value[at])),
    },
  });

  // ---------------------------------------------------------------------------------- masks

  /** Set the mask, and what is to be said of it. */
  function setMask(mask, remark) {
    say(odd, remark ?? '');
    input.setMask(mask);
  }

  /** Make any picture the mask, in the size of the input. */
  async function takeMask(blob) {
    setMask(...(await painter.maskOf(input.get(), blob)));
  }

  async function take(blob) {
    await takeMask(blob).catch(() => input.refuse(blob));
  }

  /** Show that there is a mask, and let the keyboard go on from there. */
  async function done(mask, remark) {
    setMask(mask, remark);
    byId('mask').focus({ preventScroll: true });
    await reading;
    (mask ? frame : byId('mask')).scrollIntoView({ block: 'center' });
  }

  async function paint() {
    await painter.open(input.get(), input.mask(), done);
  }

  // ----------------------------------------------------------------------------- the frame

  const preview = byId('input-preview');
  let overlay = null; // the mask in our colour
  let shown = null; // the mask that it shows
  let reading = Promise.resolve();

  const natural = () => [preview.naturalWidth, preview.naturalHeight];
  const ownSize = () => size.fitting(...natural());

  /** The size of the picture inside the borders: the form's, or its own where it keeps that. */
  function innerSize() {
    const chosen = [byId('width').valueAsNumber, byId('height').valueAsNumber];
    return keepsOwn() || !chosen.every((side) => side > 0) ? natural() : chosen;
  }

  const keepsOwn = () => Boolean(input.mask()) && byId('mask_padding-on').checked;

  async function tint(image) {
    const scale = Math.min(1, LARGEST / Math.max(image.naturalWidth, image.naturalHeight));
    const side = (one) => Math.max(1, Math.round(one * scale));
    return tinted(image, side(image.naturalWidth), side(image.naturalHeight));
  }

  /** Show another mask over the picture; `reading` is done once it is seen. */
  function readMask() {
    const mask = input.mask();
    if (mask === shown) return;
    shown = mask;
    const made = mask ? withImage(mask, tint) : Promise.resolve(null);
    const draw = (tintedMask) => {
      if (mask !== shown) return; // another has come meanwhile
      overlay = tintedMask;
      drawFrame();
    };
    reading = made.then(draw, () => {});
  }

  /** The mask as it acts: all but it, if it is inverted. */
  function drawMask(context, [x, y, width, height]) {
    const layer = make('canvas', { width, height });
    const on = layer.getContext('2d');
    on.drawImage(overlay, 0, 0, width, height);
    if (byId('mask_invert').checked) {
      Object.assign(on, { globalCompositeOperation: 'source-out', fillStyle: COLOUR });
      on.fillRect(0, 0, width, height);
    }
    context.globalAlpha = 0.6;
    context.drawImage(layer, x, y);
  }

  /** Draw the picture with its mask, inside the borders that are painted as well. */
  function drawFrame() {
    const [left, top, right, bottom] = read().map((side) => side || 0);
    const [width, height] = innerSize();
    const [across, down] = [width + left + right, height + top + bottom];
    const extended = left + top + right + bottom > 0;
    frame.hidden = !(overlay || extended) || !width;
    if (frame.hidden) return;
    const scale = LARGEST / Math.max(across, down);
    frame.width = Math.max(1, Math.round(across * scale));
    frame.height = Math.max(1, Math.round(down * scale));
    const context = frame.getContext('2d');
    Object.assign(context, { fillStyle: COLOUR, globalAlpha: 0.6 });
    context.fillRect(0, 0, frame.width, frame.height);
    context.globalAlpha = 1;
    const inner = [left, top, width, height].map((side) => Math.round(side * scale));
    context.clearRect(...inner);
    context.drawImage(preview, ...inner);
    if (overlay) drawMask(context, inner);
    const parts = [overlay && 'its marked part', extended && 'what is painted beyond its edges'];
    const said = `The input picture with ${parts.filter(Boolean).join(' and ')}`;
    frame.setAttribute('aria-label', said);
  }

  /** Offer the picture's own size, or its proportions, and say what the borders make of it. */
  function showSizes() {
    const [own, [left, top, right, bottom]] = [ownSize(), read()];
    const same = own.join() === innerSize().join();
    fit.hidden = keepsOwn() || same || !preview.naturalWidth;
    const rounded = own.every((side, at) => Math.abs(side - natural()[at]) < 8);
    say(fit, `Draw in its ${rounded ? 'own size' : 'proportions'}, ${own.join(' × ')}`);
    const [width, height] = innerSize();
    const extended = left + top + right + bottom > 0;
    const all = [width + left + right, height + top + bottom].join(' × ');
    say(whole, extended ? `The picture becomes ${all}.` : '');
  }

  /** Bring the fields up to date with the input picture and its mask. */
  function show() {
    place.hidden = !input.get();
    const mask = input.mask();
    const extended = read().some((side) => side > 0);
    if (!mask) say(odd, '');
    say(byId('mask'), mask ? 'Change the mask' : 'Paint a mask');
    remove.hidden = !mask;
    for (const one of ofMask) one.hidden = !mask;
    for (const one of ofEither) one.hidden = !mask && !extended;
    const only = byId('mask_padding-on').checked;
    for (const one of padding.querySelectorAll('#mask_padding, [data-of]')) one.disabled = !only;
    showSizes();
    readMask();
    drawFrame();
  }

  preview.addEventListener('load', () => {
    showSizes();
    drawFrame();
  });

  Imagine.repaint = { show, paint, takeMask };
}
