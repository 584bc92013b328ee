// The stage: the tiles of a run as they fill, or one picture with its tools.
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const { decodedImage } = Imagine.bytes;

  /** A place for one picture. Its shape is fixed from the start: nothing moves as it fills. */
  class Tile {
    #waiting = null; // the newest preview that is not on screen yet
    #busy = false;
    #finished = false;

    constructor(width, height, label) {
      this.bar = make('span', { className: 'tile-bar' });
      this.word = make('span', { className: 'tile-word' });
      this.element = make('div', { className: 'tile waiting' }, this.word, this.bar);
      this.element.style.aspectRatio = `${width} / ${height}`;
      this.label = label;
    }

    /** Fade a picture in over the one before it; older ones go at once. */
    #put(image, alt) {
      const [before, ...older] = this.element.querySelectorAll('img');
      older.forEach((gone) => this.#drop(gone));
      this.element.classList.remove('waiting');
      Object.assign(image, { alt, draggable: false });
      if (!before) return this.element.prepend(image);
      before.alt = '';
      before.after(image);
      return setTimeout(() => this.#drop(before), 300);
    }

    #drop(image) {
      image.remove();
      URL.revokeObjectURL(image.src);
    }

    /** Show a preview; while one is being decoded, only the newest other one waits. */
    async preview(blobMaker) {
      this.#waiting = blobMaker;
      if (this.#busy) return;
      this.#busy = true;
      while (this.#waiting && !this.#finished) {
        const makeBlob = this.#waiting;
        this.#waiting = null;
        const image = await makeBlob()
          .then(decodedImage)
          .catch(() => null);
        if (image && this.#finished) this.#drop(image);
        else if (image) this.#put(image, `Preview: ${this.label}`);
      }
      this.#busy = false;
    }

    progress(fraction) {
      this.bar.style.transform = `scaleX(${fraction})`;
    }

    /** Show the finished picture; throws if the browser cannot read it. */
    async finish(blob) {
      const image = await decodedImage(blob);
      this.#finished = true;
      this.#put(image, this.label);
      image.draggable = true;
      this.element.classList.add('done');
      return image;
    }

    fail(word) {
      this.#finished = true;
      this.element.classList.remove('waiting');
      this.element.classList.add('failed');
      say(this.word, word);
    }

    release() {
      for (const image of this.element.querySelectorAll('img')) this.#drop(image);
      this.element.remove();
    }
  }

  const stage = {
    /** The gallery record that is shown, or null. */
    current: null,
    /** Called with each record shown. */
    onShow: () => {},
  };
  let tiles = []; // of the run
  let single = null; // of a picture from the gallery
  let grid = { width: 1, height: 1 };

  const view = (name) => {
    byId('stage').dataset.view = name;
    byId('act-grid').hidden = !(name === 'picture' && (tiles.length > 1 || running()));
    say(byId('act-grid').lastElementChild, running() ? 'Show the run' : 'All variations');
    byId('tools').hidden = !stage.current;
  };
  const comparing = () => byId('stage').dataset.view === 'compare';
  const running = () => byId('stage').classList.contains('running');

  /** The number of columns that makes `count` tiles of this shape largest. */
  function columnsFor(count, ratio, box) {
    let best = { columns: 1, width: 0 };
    for (let columns = 1; columns <= count; columns++) {
      const rows = Math.ceil(count / columns);
      const width = Math.min(box.width / columns, (box.height / rows) * ratio);
      if (width > best.width) best = { columns, width };
    }
    return best.columns;
  }

  function arrange() {
    const ratio = grid.width / grid.height;
    const columns = columnsFor(tiles.length, ratio, byId('canvas').getBoundingClientRect());
    const rows = Math.ceil(tiles.length / columns);
    const { style } = byId('tiles');
    style.setProperty('--columns', columns);
    style.setProperty('--rows', rows);
    style.setProperty('--ratio', ratio);
    return (columns * ratio) / rows;
  }

  /** On a phone the stage is as high as its contents. */
  const shape = (ratio) => byId('canvas').style.setProperty('--shape', ratio);

  /** Set the stage for a run; returns its tiles. */
  function begin({ width, height, prompt }, count) {
    tiles.forEach((tile) => tile.release());
    grid = { width, height };
    tiles = Array.from({ length: count }, () => new Tile(width, height, prompt));
    byId('tiles').replaceChildren(...tiles.map(({ element }) => element));
    byId('stage').classList.add('running');
    showRun();
    shape(1);
    shape(arrange());
    return tiles;
  }

  /** The run is over: a finished tile becomes a button that shows its picture alone. */
  function end() {
    byId('stage').classList.remove('running');
    view(byId('stage').dataset.view);
  }

  /** Make a finished tile of a run of many open its picture. */
  function link(tile, open) {
    tile.element.setAttribute('role', 'button');
    tile.element.tabIndex = 0;
    tile.element.setAttribute('aria-label', `Show this picture: ${tile.label}`);
    tile.element.onclick = open;
    tile.element.onkeydown = (event) => {
      if (!['Enter', ' '].includes(event.key)) return;
      event.preventDefault(); // Space would scroll
      open();
    };
  }

  /** Set the record that the tools act on. */
  function select(record) {
    stage.current = record;
    Imagine.tools.caption(record);
    stage.onShow(record);
  }

  /** The one picture of a run: its tile stays, and the tools act on it. */
  function present(record) {
    select(record);
    view(byId('stage').dataset.view);
  }

  /** Show a picture from the gallery. */
  async function show(record, blob) {
    const tile = new Tile(record.width, record.height, record.values.prompt);
    select(record);
    await tile.finish(blob).catch(() => tile.fail('This picture cannot be read.'));
    if (stage.current !== record) return tile.release(); // the user has moved on
    const ratio = record.width / record.height;
    byId('shown').style.setProperty('--ratio', ratio);
    shape(ratio);
    byId('shown').replaceChildren(tile.element);
    single?.release();
    single = tile;
    view('picture');
  }

  function showRun() {
    stage.current = null;
    view('run');
    stage.onShow(null);
  }

  function empty() {
    stage.current = null;
    tiles.forEach((tile) => tile.release());
    tiles = [];
    view('empty');
  }

  byId('act-grid').onclick = showRun;
  new ResizeObserver(() => tiles.length > 1 && arrange()).observe(byId('canvas'));

  Imagine.stage = Object.assign(stage, {
    begin,
    end,
    link,
    present,
    show,
    empty,
    view,
    comparing,
    running,
  });
}
