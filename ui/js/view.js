// A view of a picture that zooms and moves under the pointer, and tells where on the picture it is.
'use strict';

{
  const MOST = 40; // screen pixels for one of the picture

  /** Shows `sheet`, an element of `width` x `height` pixels, inside `around`. */
  class View {
    #size;
    #scale = 1;
    #left = 0;
    #top = 0;
    #fitted = true; // whether it follows the size of the window

    constructor(around, sheet, changed) {
      Object.assign(this, { around, sheet, changed });
      new ResizeObserver(() => this.#fitted && this.#size && this.fit()).observe(around);
    }

    /** The scale, in screen pixels for one of the picture. */
    get scale() {
      return this.#scale;
    }

    open(width, height) {
      this.#size = [width, height];
      this.sheet.style.width = `${width}px`;
      this.sheet.style.height = `${height}px`;
      this.fit();
    }

    /** Show all of the picture. */
    fit() {
      const { clientWidth: across, clientHeight: down } = this.around;
      const [width, height] = this.#size;
      this.#scale = Math.min(MOST, (Math.min(across / width, down / height) || 1) * 0.96);
      this.#left = (across - width * this.#scale) / 2;
      this.#top = (down - height * this.#scale) / 2;
      this.#fitted = true;
      this.#place();
    }

    move(across, down) {
      this.#fitted = false;
      this.#left += across;
      this.#top += down;
      this.#place();
    }

    /** Zoom by a factor around a place in the window; without one, around the middle. */
    zoom(factor, place = this.#middle()) {
      const [x, y] = this.pointAt(place);
      const least = Math.min(0.02, this.#scale);
      this.#scale = Math.max(least, Math.min(MOST, this.#scale * factor));
      const [left, top] = this.placeOf([x, y]);
      const box = this.around.getBoundingClientRect();
      this.move(place[0] - box.left - left, place[1] - box.top - top);
    }

    #middle() {
      const { left, top, width, height } = this.around.getBoundingClientRect();
      return [left + width / 2, top + height / 2];
    }

    /** Keep a corner of the picture in view, and put it there. */
    #place() {
      const { clientWidth: across, clientHeight: down } = this.around;
      const within = (at, size, all) => Math.max(40 - size, Math.min(all - 40, at));
      this.#left = within(this.#left, this.#size[0] * this.#scale, across);
      this.#top = within(this.#top, this.#size[1] * this.#scale, down);
      const { style } = this.sheet;
      style.transform = `translate(${this.#left}px, ${this.#top}px) scale(${this.#scale})`;
      this.changed();
    }

    /** The point of the picture at a place in the window. */
    pointAt([x, y]) {
      const { left, top } = this.around.getBoundingClientRect();
      return [(x - left - this.#left) / this.#scale, (y - top - this.#top) / this.#scale];
    }

    /** Where a point of the picture is inside `around`. */
    placeOf([x, y]) {
      return [this.#left + x * this.#scale, this.#top + y * this.#scale];
    }

    /** Move until a point of the picture is in view. */
    reveal(point) {
      const [x, y] = this.placeOf(point);
      const { clientWidth: across, clientHeight: down } = this.around;
      const by = (at, all) => Math.min(0, all - 24 - at) + Math.max(0, 24 - at);
      const [dx, dy] = [by(x, across), by(y, down)];
      if (dx || dy) this.move(dx, dy);
    }
  }

  Imagine.view = { View };
}
