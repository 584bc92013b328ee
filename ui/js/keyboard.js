// Keys that work anywhere on the page.
'use strict';

{
  const { byId } = Imagine.dom;
  const { gallery } = Imagine;

  const apple = /Mac|iPhone|iPad/.test(navigator.platform);
  const typing = (target) => target.matches?.('input, textarea, select, [contenteditable]');

  /** The name of a key on this kind of keyboard. */
  const named = (key) => (apple ? key.replace('Ctrl', '⌘') : key);

  /** @param {{generate, escape, remove, list}} does The actions. */
  function build(does) {
    addEventListener('keydown', (event) => {
      if (event.isComposing || document.querySelector('dialog[open]')) return;
      if (press(event, does)) event.preventDefault();
    });
    byId('show-keys').onclick = does.list;
    for (const key of document.querySelectorAll('kbd')) key.textContent = named(key.textContent);
  }

  /** Run a key's action; returns whether it has one. */
  function press({ key, ctrlKey, metaKey, altKey, target }, does) {
    if (key === 'Enter' && (ctrlKey || metaKey)) return does.generate() || true;
    if (key === 'Escape') return does.escape();
    if (ctrlKey || metaKey || altKey || typing(target)) return false;
    if (key === 'Delete') return does.remove();
    if (key === '/') return byId('prompt').focus() || true;
    if (key === '?') return does.list() || true;
    const walks = ['ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(key);
    return walks && !target.closest?.('[role=radiogroup]') && gallery.walk(key);
  }

  Imagine.keyboard = { build, named };
}
