// The LoRAs of the next picture, as the wire has them; the picker shows them once there are any.
'use strict';

{
  const { byId } = Imagine.dom;

  const list = Imagine.uses.list({ field: 'loras', part: 'picker', rows: 'rows', first: 'lora' });
  let prompt = byId('prompt');

  byId('form').addEventListener('focusin', ({ target }) => {
    if (target.tagName === 'TEXTAREA') prompt = target;
  });

  /** Copies, which later changes leave alone. */
  const values = () => list.all().map((use) => ({ ...use }));

  /** `prompt` is the prompt, positive or negative, that was used last. */
  Imagine.loras = { ...list, values, prompt: () => prompt };
}
