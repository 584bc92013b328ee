// Width and height: presets of the aspect ratio at the model's size, and swap.
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const RATIOS = [
    [1, 1],
    [5, 4],
    [4, 3],
    [3, 2],
    [16, 9],
  ];
  const GRID = 32; // pixels: close to every ratio, with few odd sizes in the UNet

  let recommended = [512, 512];

  const snap = (side) => Math.max(64, Math.round(side / GRID) * GRID);

  /** The size of this ratio with about as many pixels as the model was trained on. */
  function sizeOf([across, down]) {
    const unit = Math.sqrt((recommended[0] * recommended[1]) / (across * down));
    return [snap(unit * across), snap(unit * down)];
  }

  const current = () => [Number(byId('width').value), Number(byId('height').value)];

  function set([width, height]) {
    byId('width').value = width;
    byId('height').value = height;
    byId('width').dispatchEvent(new Event('input', { bubbles: true }));
  }

  const portrait = () => current()[1] > current()[0];

  function build() {
    for (const ratio of RATIOS) {
      const shape = make('span', { className: 'shape', ariaHidden: 'true' });
      shape.style.aspectRatio = ratio.join(' / ');
      const name = ratio.join(':');
      const choose = () => set(portrait() ? sizeOf(ratio).reverse() : sizeOf(ratio));
      byId('presets').append(
        make('button', { type: 'button', dataset: { ratio: name }, onclick: choose }, shape, name),
      );
    }
    byId('swap').onclick = () => set(current().reverse());
  }

  /** Mark the preset in use, and name the model's trained size if this one is far off. */
  function show() {
    const [width, height] = current();
    const [long, short] = [Math.max(width, height), Math.min(width, height)];
    for (const button of byId('presets').children) {
      const [across, down] = sizeOf(button.dataset.ratio.split(':').map(Number));
      button.setAttribute('aria-pressed', across === long && down === short);
    }
    byId('presets').classList.toggle('upright', height > width);
    const times = (width * height) / (recommended[0] * recommended[1]);
    const odd = times > 2.5 ? 'much larger' : times < 0.3 ? 'much smaller' : null;
    const trained = recommended.join(' × ');
    say(
      byId('size-note'),
      odd ? `That is ${odd} than the ${trained} this model was trained for.` : '',
    );
  }

  /** Set the model's size; a picture of the old model's size takes it too. */
  function recommend(size) {
    if (recommended.join() === size.join()) return show();
    const untouched = current().join() === recommended.join();
    recommended = size;
    return untouched ? set(size) : show();
  }

  Imagine.size = { build, show, recommend };
}
