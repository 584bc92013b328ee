// Draws, locks, reuses and counts seeds, as decimal strings that keep all 64 bits.
'use strict';

{
  const { byId, say } = Imagine.dom;
  const SEEDS = 2n ** 64n;

  let last = null;

  const draw = () => crypto.getRandomValues(new BigUint64Array(1))[0].toString();
  const plus = (seed, count) => ((BigInt(seed) + BigInt(count)) % SEEDS).toString();

  const locked = () => document.querySelector('[name=seed-mode][value=lock]').checked;

  function setMode(mode) {
    document.querySelector(`[name=seed-mode][value=${mode}]`).checked = true;
    show();
  }

  /** Keep this seed for the next pictures; null goes back to drawing one. */
  function set(seed) {
    byId('seed').value = seed ?? '';
    setMode(seed === null ? 'random' : 'lock');
  }

  /** The seed of the next picture: the locked one, or a new one. Undefined if invalid. */
  function next() {
    const text = byId('seed').value.trim();
    return locked() && text ? Imagine.parameters.readSeed(text) : draw();
  }

  /** Remember the seed of the picture just made. */
  function made(seed) {
    last = seed;
    byId('seed-reuse').disabled = false;
    say(byId('seed-note'), `Last seed: ${seed}`);
  }

  function show() {
    byId('seed').placeholder = locked() ? 'a number' : 'random';
  }

  function onModeChange() {
    if (!locked()) byId('seed').value = '';
    else if (!byId('seed').value) byId('seed').value = last ?? draw();
    show();
    byId('seed').dispatchEvent(new Event('input', { bubbles: true }));
  }

  function build() {
    for (const radio of document.querySelectorAll('[name=seed-mode]'))
      radio.onchange = onModeChange;
    byId('seed').addEventListener('input', () =>
      setMode(byId('seed').value.trim() ? 'lock' : 'random'),
    );
    byId('seed-reuse').onclick = () => {
      set(last);
      byId('seed').dispatchEvent(new Event('input', { bubbles: true }));
    };
  }

  Imagine.seed = { build, draw, plus, set, next, made };
}
