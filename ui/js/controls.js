// The ControlNets of the next picture, as the wire has them, and the picture of each.
'use strict';

{
  const list = Imagine.uses.list({ field: 'controls', part: 'hints', rows: 'hints', first: 'controlnet' });

  /** Copies without the pictures: what is remembered and written as JSON. */
  const values = () => list.all().map(({ picture, ...use }) => use);

  const pictures = () => list.all().map(({ picture = null }) => picture);

  /** Give the pictures back, in the order of the uses. */
  function setPictures(some) {
    list.all().forEach((use, at) => (use.picture = some[at] ?? null));
  }

  Imagine.controls = { ...list, values, pictures, setPictures };
}
