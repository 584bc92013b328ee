// The Enhance button: a better prompt from the server's enhancers, and its undo.
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const { api, catalogue } = Imagine;

  const before = []; // replaced prompts, the latest last
  const originals = new Map(); // enhanced prompt to the user's prompt

  /** The user's own prompt, if the current one is exactly an enhancer's output. */
  const original = () => originals.get(byId('prompt').value) ?? null;

  function noteOriginal(text, prompt = byId('prompt').value) {
    if (text !== null && text !== prompt) originals.set(prompt, text);
  }

  /** Undo works for each Enhance, and for a prompt whose original is known. */
  const show = () => (byId('enhance-undo').hidden = !before.length && original() === null);

  const fields = () => [byId('prompt'), byId('neg')];

  function write([prompt, neg]) {
    byId('prompt').value = prompt;
    byId('neg').value = neg;
    byId('prompt').dispatchEvent(new Event('input', { bubbles: true }));
  }

  const usable = () => catalogue.enhancers.filter(({ problem }) => !problem);

  /** List the server's enhancers, or say why there are none. */
  function offer() {
    const { noEnhancer } = catalogue;
    byId('enhance').disabled = Boolean(noEnhancer);
    say(byId('enhance-why'), noEnhancer ? `Enhance is off. ${noEnhancer}` : '');
    const options = usable().map(({ name, label }) =>
      make('option', { value: name }, `Enhance with: ${label ?? name}`),
    );
    byId('enhancer').hidden = options.length < 2;
    byId('enhancer').replaceChildren(...options);
  }

  async function ask() {
    const body = { prompt: byId('prompt').value, neg: !byId('neg').disabled };
    if (usable().length > 1) body.enhancer = byId('enhancer').value;
    const { prompt, neg } = await api.json('/enhance', { body });
    if (typeof prompt !== 'string' || !prompt.trim()) throw new Error('There came no prompt.');
    return [prompt, typeof neg === 'string' && neg ? neg : byId('neg').value];
  }

  async function enhance(failed) {
    const old = fields().map((field) => field.value);
    byId('enhance').disabled = true;
    byId('enhance').classList.add('busy');
    try {
      const better = await ask();
      noteOriginal(originals.get(old[0]) ?? old[0], better[0]);
      before.push(old);
      write(better);
    } catch (error) {
      failed(error);
    } finally {
      byId('enhance').disabled = Boolean(catalogue.noEnhancer);
      byId('enhance').classList.remove('busy');
    }
  }

  function undo() {
    write(before.pop() ?? [original(), byId('neg').value]);
    byId('prompt').focus();
  }

  function build(failed) {
    byId('enhance').onclick = () => enhance(failed);
    byId('enhance-undo').onclick = undo;
  }

  Imagine.enhance = { build, offer, show, original, noteOriginal };
}
