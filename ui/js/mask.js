// A mask: what is to be repainted of a picture, as strokes and steps that can be undone.
'use strict';

{
  const { make } = Imagine.dom;
  const { decodedImage } = Imagine.bytes;
  const COLOUR = '#e5007d'; // is seen on most pictures
  const MOST = 200; // steps that can be undone
  const BAND = 256; // rows that are looked at in one go

  const ODD = 0.02; // a difference of proportions that is more than rounding

  const canvasOf = (width, height) => make('canvas', { width, height });

  /** Do something with a picture as an image; throws if the browser cannot read it. */
  async function withImage(blob, does) {
    const image = await decodedImage(blob);
    try {
      return await does(image);
    } finally {
      URL.revokeObjectURL(image.src);
    }
  }

  const hasClear = ({ data }) => {
    for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
    return false;
  };

  /** Make pixels opaque where they are white, or, if `clear`, where they are transparent. */
  function toAlpha({ data }, clear) {
    const colour = [1, 3, 5].map((at) => parseInt(COLOUR.slice(at, at + 2), 16));
    for (let at = 0; at < data.length; at += 4) {
      const [red, green, blue] = [data[at], data[at + 1], data[at + 2]];
      const light = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
      const alpha = clear ? 255 - data[at + 3] : light;
      data.set([...colour, alpha], at);
    }
  }

  /** A picture of a mask in this size: in our colour where it marks, else transparent. */
  function tinted(image, width, height) {
    const canvas = canvasOf(width, height);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    const bands = Array.from({ length: Math.ceil(height / BAND) }, (_, at) => at * BAND);
    const band = (top) => context.getImageData(0, top, width, Math.min(BAND, height - top));
    const clear = bands.some((top) => hasClear(band(top)));
    for (const top of bands) {
      const pixels = band(top);
      toAlpha(pixels, clear);
      context.putImageData(pixels, 0, top);
    }
    return canvas;
  }

  /** What a mask of other proportions becomes, in words; null if it has the same. */
  function stretching({ naturalWidth, naturalHeight }, width, height) {
    const ratio = (naturalWidth / naturalHeight) * (height / width);
    if (Math.abs(Math.log(ratio)) < ODD) return null;
    const sizes = `${naturalWidth} × ${naturalHeight}, the picture ${width} × ${height}`;
    return `The mask is ${sizes}: it is stretched.`;
  }

  /**
   * A step is a stroke, {points, size, erase}, or {does: 'fill' | 'clear' | 'invert'}, or {image} with
   * a remark.
   */
  class Mask {
    #base; // the steps that can no longer be undone
    #steps = [];
    #undone = [];

    constructor(width, height) {
      this.canvas = canvasOf(width, height);
      this.#base = canvasOf(width, height);
    }

    get width() {
      return this.canvas.width;
    }

    get height() {
      return this.canvas.height;
    }

    get canUndo() {
      return this.#steps.length > 0;
    }

    get canRedo() {
      return this.#undone.length > 0;
    }

    /** Take a step: {does} or {image}. */
    take(step) {
      this.#draw(this.canvas, step);
      this.#add(step);
    }

    #add(step) {
      this.#steps.push(step);
      this.#undone = [];
      if (this.#steps.length > MOST) this.#draw(this.#base, this.#steps.shift());
    }

    /** Begin a stroke of this diameter, in pixels of the picture. */
    begin(point, { size, erase }) {
      const stroke = { points: [point], size, erase };
      this.#add(stroke);
      this.#line(this.canvas, stroke, 0);
    }

    /** Draw the stroke on to `point`. */
    goOn(point) {
      const stroke = this.#steps.at(-1);
      stroke.points.push(point);
      this.#line(this.canvas, stroke, stroke.points.length - 1);
    }

    undo() {
      if (this.canUndo) this.#undone.push(this.#steps.pop());
      this.#redraw();
    }

    redo() {
      if (!this.canRedo) return;
      this.#steps.push(this.#undone.pop());
      this.#draw(this.canvas, this.#steps.at(-1));
    }

    /** Take back the stroke that has just begun, as if it had never been. */
    forget() {
      this.#steps.pop();
      this.#redraw();
    }

    #redraw() {
      const context = this.canvas.getContext('2d');
      context.globalCompositeOperation = 'copy';
      context.drawImage(this.#base, 0, 0);
      for (const step of this.#steps) this.#draw(this.canvas, step);
    }

    #line(canvas, { points, size, erase }, at) {
      const context = canvas.getContext('2d');
      context.globalCompositeOperation = erase ? 'destination-out' : 'source-over';
      Object.assign(context, { strokeStyle: COLOUR, fillStyle: COLOUR, lineCap: 'round' });
      context.lineWidth = size;
      context.beginPath();
      if (!at) {
        context.arc(...points[0], size / 2, 0, 2 * Math.PI); // a line of no length draws nothing
        return context.fill();
      }
      context.moveTo(...points[at - 1]);
      context.lineTo(...points[at]);
      return context.stroke();
    }

    #draw(canvas, step) {
      if (step.points) return step.points.forEach((_, at) => this.#line(canvas, step, at));
      const context = canvas.getContext('2d');
      const how = { fill: 'source-over', clear: 'destination-out', invert: 'source-out' };
      context.globalCompositeOperation = step.image ? 'copy' : how[step.does];
      context.fillStyle = COLOUR;
      if (step.image) return context.drawImage(step.image, 0, 0);
      return context.fillRect(0, 0, canvas.width, canvas.height);
    }

    /** Take over a picture as the mask, scaled to this size; throws if it cannot be read. */
    async load(blob) {
      const { width, height } = this;
      const stepOf = (read) => ({
        image: tinted(read, width, height),
        remark: stretching(read, width, height),
      });
      this.take(await withImage(blob, stepOf));
    }

    /** What is to be said of the picture that it was loaded from, if it is still there; or null. */
    get remark() {
      const last = this.#steps.findLast(({ image, does }) => image || does === 'clear');
      return last?.remark ?? null;
    }

    /** Whether nothing is painted. */
    isEmpty() {
      const context = this.canvas.getContext('2d');
      for (let top = 0; top < this.height; top += BAND) {
        const rows = Math.min(BAND, this.height - top);
        const { data } = context.getImageData(0, top, this.width, rows);
        for (let at = 3; at < data.length; at += 4) if (data[at]) return false;
      }
      return true;
    }

    /** How much of the picture is painted, 0..1, from a small copy. */
    share() {
      const small = canvasOf(64, 64);
      const context = small.getContext('2d', { willReadFrequently: true });
      context.imageSmoothingQuality = 'high';
      context.drawImage(this.canvas, 0, 0, 64, 64);
      const { data } = context.getImageData(0, 0, 64, 64);
      let sum = 0;
      for (let at = 3; at < data.length; at += 4) sum += data[at];
      return sum / (64 * 64 * 255);
    }

    /** The mask as an opaque PNG, white on black; null if nothing is painted. */
    async toBlob() {
      if (this.isEmpty()) return null;
      const white = canvasOf(this.width, this.height);
      const light = white.getContext('2d');
      light.drawImage(this.canvas, 0, 0);
      Object.assign(light, { globalCompositeOperation: 'source-in', fillStyle: '#fff' });
      light.fillRect(0, 0, this.width, this.height);
      const canvas = canvasOf(this.width, this.height);
      const context = canvas.getContext('2d', { alpha: false }); // which begins black
      context.drawImage(white, 0, 0);
      return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
    }
  }

  Imagine.mask = { Mask, withImage, tinted, COLOUR };
}
