// The LoRAs of the next picture, as the wire has them; the picker shows them once there are any.
'use strict';

{
  const { byId, say } = Imagine.dom;
  const { parts } = Imagine;

  let uses = []; // {name, weight, ...}: their identity tells the rows apart
  let shown = null; // those that the picker was asked to show
  let prompt = byId('prompt');
  let refused = () => {};

  const changed = () => byId('form').dispatchEvent(new Event('input', { bubbles: true }));

  /** Replace all of them. */
  function set(others) {
    uses = others.map((use) => ({ ...use }));
  }

  function add(name) {
    uses = [...uses, { name, weight: 1 }];
    changed();
  }

  function remove(use) {
    uses = uses.filter((one) => one !== use);
    changed();
  }

  /** Bring their rows up to date. */
  function show() {
    say(byId('loras'), uses.length ? 'Add or change' : 'Add');
    if (Imagine.picker) return Imagine.rows.show();
    if (!uses.length || shown === uses) return null;
    shown = uses;
    return parts.load('picker').then(Imagine.form.refresh, refused);
  }

  /** @param {function(Error)} failed Tells the user why the picker does not open. */
  function build(failed) {
    refused = failed;
    byId('loras').onclick = () => parts.call('picker', 'open').catch(failed);
    byId('form').addEventListener('focusin', ({ target }) => {
      if (target.tagName === 'TEXTAREA') prompt = target;
    });
  }

  /** Copies, which later changes leave alone. */
  const values = () => uses.map((use) => ({ ...use }));

  /** `prompt` is the prompt, positive or negative, that was used last. */
  Imagine.loras = { build, set, add, remove, show, values, all: () => uses, prompt: () => prompt };
}
