// Two pictures over each other with a slider between them.
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const { decodedImage } = Imagine.bytes;

  const name = 'Compare: how much of the left picture shows';
  const slider = { type: 'range', min: 0, max: 100, step: 0.5, value: 50, ariaLabel: name };
  const seam = make('span', { className: 'seam', ariaHidden: 'true' });
  const image = (id) => make('img', { id, alt: '', draggable: false });
  const tag = (side) => make('span', { className: `tag ${side}`, id: `compare-tag-${side}` });
  byId('canvas').append(
    make(
      'div',
      { className: 'compare', id: 'compare', hidden: true },
      ...[image('compare-a'), image('compare-b'), seam, tag('a'), tag('b')],
      make('input', { ...slider, id: 'compare-at', oninput: slide }),
    ),
  );

  let returnTo = 'picture';

  function slide() {
    byId('compare').style.setProperty('--at', `${byId('compare-at').value}%`);
  }

  async function put(side, { record, blob }, text) {
    const image = byId(`compare-${side}`);
    const decoded = await decodedImage(blob);
    URL.revokeObjectURL(image.src);
    image.src = decoded.src;
    image.alt = `${side === 'a' ? 'Left' : 'Right'}: ${record.values.prompt}, ${text}`;
    say(byId(`compare-tag-${side}`), text);
    return record;
  }

  const seedText = ({ values }) => `seed ${values.seed}`;
  const sizeText = ({ width, height }) => `${width} × ${height}`;

  /** Compare two pictures, each {record, blob}. */
  async function open(a, b) {
    const same = seedText(a.record) === seedText(b.record); // such as one and its enlargement
    const text = same && sizeText(a.record) !== sizeText(b.record) ? sizeText : seedText;
    const both = Object.entries({ a, b });
    const [record] = await Promise.all(both.map(([side, one]) => put(side, one, text(one.record))));
    if (!Imagine.stage.comparing()) returnTo = byId('stage').dataset.view;
    byId('compare').style.setProperty('--ratio', record.width / record.height);
    byId('compare').hidden = false;
    byId('compare-at').value = 50;
    slide();
    byId('act-compare').setAttribute('aria-pressed', 'true');
    Imagine.stage.view('compare');
    byId('compare-at').focus({ preventScroll: true });
  }

  function close() {
    if (!Imagine.stage.comparing()) return;
    byId('compare').hidden = true;
    byId('act-compare').setAttribute('aria-pressed', 'false');
    Imagine.stage.view(returnTo);
    byId('act-compare').focus({ preventScroll: true });
  }

  Imagine.compare = { open, close };
}
