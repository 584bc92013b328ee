// The Enhance button: a better prompt from the server's enhancers, and the way back.
'use strict';

(() => {
  const { byId, make, say } = Imagine.dom;
  const { api, catalogue } = Imagine;

  let before = null;

  const fields = () => [byId('prompt'), byId('neg')];

  function write([prompt, neg]) {
    byId('prompt').value = prompt;
    byId('neg').value = neg;
    byId('prompt').dispatchEvent(new Event('input', { bubbles: true }));
  }

  /** Offer what the server has, or say why there is nothing. */
  function offer() {
    const { enhancers, noEnhancer } = catalogue;
    byId('enhance').disabled = Boolean(noEnhancer);
    say(byId('enhance-why'), noEnhancer ? `Enhance is off. ${noEnhancer}` : '');
    byId('enhancer').hidden = enhancers.length < 2;
    byId('enhancer').replaceChildren(...enhancers.map(({ name, label, problem }) =>
      make('option', { value: name, disabled: Boolean(problem), title: problem ?? '' }, label ?? name)));
  }

  async function ask() {
    const body = { prompt: byId('prompt').value, neg: !byId('neg').disabled };
    if (catalogue.enhancers.length > 1) body.enhancer = byId('enhancer').value;
    const { prompt, neg } = await api.json('/enhance', { body });
    if (typeof prompt !== 'string' || !prompt.trim()) throw new Error('The enhancer gave no prompt.');
    return [prompt, typeof neg === 'string' && neg ? neg : byId('neg').value];
  }

  async function enhance(failed) {
    const old = fields().map((field) => field.value);
    byId('enhance').disabled = true;
    byId('enhance').classList.add('busy');
    try {
      const better = await ask();
      before = old;
      write(better);
      byId('enhance-undo').hidden = false;
    } catch (error) {
      failed(error);
    } finally {
      byId('enhance').disabled = Boolean(catalogue.noEnhancer);
      byId('enhance').classList.remove('busy');
    }
  }

  function undo() {
    write(before);
    byId('enhance-undo').hidden = true;
    byId('prompt').focus();
  }

  function build(failed) {
    byId('enhance').onclick = () => enhance(failed);
    byId('enhance-undo').onclick = undo;
  }

  Imagine.enhance = { build, offer };
})();
