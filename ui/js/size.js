// Width and height: presets of the aspect ratio at the model's size, swap, and that of the input picture.
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

  const LARGE = 2.5; // times the pixels that the model was trained for

  let recommended = [512, 512];
  let ofPicture = null; // the size that the input picture has brought along

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
    const odd = times > LARGE ? 'much larger' : times < 0.3 ? 'much smaller' : null;
    const trained = recommended.join(' × ');
    say(
      byId('size-note'),
      odd ? `That is ${odd} than the ${trained} this model was trained for.` : '',
    );
  }

  /** Name the model's size as the one that the presets go by. */
  function recommend(size) {
    recommended = size;
    show();
  }

  /**
   * The size to draw a picture in: its own, rounded to what the server draws; where that is far more
   * than the model was trained for, one of its proportions.
   */
  function fitting(width, height) {
    const { pixels, multiple = 8, smallest = 64 } = Imagine.catalogue.limits;
    const trained = recommended[0] * recommended[1];
    const most = Math.min(pixels || Infinity, trained * LARGE);
    const all = width * height;
    const scale = all > most ? Math.sqrt(Math.min(trained, most) / all) : 1;
    const side = (way) => (one) =>
      Math.max(smallest, Math[way]((one * scale) / multiple) * multiple);
    const nearest = [width, height].map(side('round'));
    return nearest[0] * nearest[1] > pixels ? [width, height].map(side('floor')) : nearest;
  }

  /** Whether the size is that of the input picture, which the user has left as it is. */
  const isOfPicture = () => ofPicture !== null && ofPicture.join() === current().join();

  /** Take the size of another input picture, an image or null, unless the user has chosen one. */
  function follow(image) {
    const free = !Imagine.own.isChosen('width') || isOfPicture();
    ofPicture = image && free ? fitting(image.naturalWidth, image.naturalHeight) : null;
    if (ofPicture) set(ofPicture);
    else if (free) Imagine.form.fill({ width: null, height: null });
  }

  Imagine.size = { build, show, set, recommend, fitting, follow, isOfPicture };
}
