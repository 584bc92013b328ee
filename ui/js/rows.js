// The rows of the LoRAs in the form: a weight, the words that call each, and why it does not fit.
'use strict';

{
  const { byId, make, say } = Imagine.dom;
  const { catalogue, form, loras, words } = Imagine;

  const rows = new Map(); // by the use that each shows
  let known = []; // the server's LoRAs
  let asked = null; // the server's models when they were asked for; null: not yet known

  /** Ask the server for its LoRAs; returns them. */
  async function read() {
    const models = catalogue.models;
    const listed = await catalogue.readKind('lora');
    [known, asked] = [listed, models];
    show();
    return known;
  }

  let reading = null; // the models that they are being asked for
  function readAgain() {
    if (!catalogue.models.length || [asked, reading].includes(catalogue.models)) return;
    reading = catalogue.models;
    read().catch(() => {}); // the server's state is on the page
  }

  const percent = (part) => `${Math.round(part * 100)}%`;

  /** What a use has beyond its weight, in words. */
  function more({ text_weight: text, start = 0, end = 1, blocks }) {
    const parts = [];
    if (text !== undefined) parts.push(`text encoders ${text}`);
    if (start > 0 || end < 1) parts.push(`from ${percent(start)} to ${percent(end)} of the steps`);
    if (blocks !== undefined) parts.push(`blocks ${blocks}`);
    return parts.join(', ');
  }

  /** Buttons that put words into a prompt and take them out again. */
  function wordButtons(all, field) {
    const buttons = all.map((word) => {
      const onclick = () => words.toggle(field(), word);
      const properties = { type: 'button', className: 'word', dataset: { word }, onclick };
      return make('button', properties, word);
    });
    const text = 'Words that call it, for the prompt';
    return make('div', { className: 'words', role: 'group', ariaLabel: text }, ...buttons);
  }

  function markWords(around, field) {
    for (const button of around.querySelectorAll('.word'))
      button.setAttribute('aria-pressed', words.has(field, button.dataset.word));
  }

  const triggers = ({ details } = {}) =>
    [details?.triggers].flat().filter((word) => typeof word === 'string');

  function remove(use) {
    const all = loras.all();
    const next = all[all.indexOf(use) + 1] ?? all.at(-2);
    loras.remove(use);
    (rows.get(next)?.querySelector('.bare') ?? byId('loras')).focus();
  }

  function rowOf(use) {
    const name = `Weight of ${use.name}`;
    const range = { min: -2, max: 2, step: 0.05, value: use.weight, ariaLabel: `${name}, slider` };
    const slider = make('input', { type: 'range', ...range });
    const bounds = { min: -100, max: 100, step: 0.05, required: true, ariaLabel: name };
    const number = make('input', { type: 'number', ...bounds, value: use.weight });
    const set = (weight) => (use.weight = weight);
    slider.oninput = () => (number.value = set(slider.valueAsNumber));
    number.oninput = () => (slider.value = set(number.valueAsNumber));
    slider.ondblclick = () => {
      number.value = slider.value = set(1);
      slider.dispatchEvent(new Event('input', { bubbles: true }));
    };
    slider.title = 'Double-click for 1';
    const label = make('span', { className: 'lora-name', title: use.name }, use.name);
    const close = { type: 'button', className: 'bare', ariaLabel: `Remove ${use.name}` };
    const button = make('button', { ...close, onclick: () => remove(use) }, '×');
    const note = make('p', { className: 'note' }, more(use));
    const why = make('p', { className: 'why' });
    const row = make('div', { className: 'lora' }, label, number, button, slider, note, why);
    row.setAttribute('role', 'group');
    row.setAttribute('aria-label', use.name);
    return row;
  }

  /** The LoRA that the server takes for this name, which other programs may have given. */
  function meant(name) {
    const plain = (text) => text.toLowerCase().split(/[/\\]/).at(-1).replace(/\.safetensors$/, '');
    const same = known.find((info) => info.name === name);
    return same ?? known.find((info) => plain(info.name) === plain(name));
  }

  /** Why the LoRA of this name does not serve, in words. */
  function problem(info) {
    if (info) return catalogue.misfit(info, form.model());
    return asked ? 'Not among the LoRAs of this server.' : null;
  }

  function update(row, use) {
    const info = meant(use.name);
    const wanted = triggers(info);
    const shown = row.querySelector('.words');
    if (wanted.join() !== (shown?.dataset.all ?? '')) {
      const buttons = wordButtons(wanted, () => byId('prompt'));
      buttons.dataset.all = wanted.join();
      shown?.remove();
      if (wanted.length) row.append(buttons);
    }
    const why = problem(info) ?? '';
    row.classList.toggle('odd', Boolean(why));
    say(row.querySelector('.why'), why);
    markWords(row, byId('prompt'));
  }

  /** Bring the rows up to date with the uses, the model and the prompt. */
  function show() {
    const uses = loras.all();
    for (const use of rows.keys()) if (!uses.includes(use)) rows.delete(use);
    for (const use of uses) if (!rows.has(use)) rows.set(use, rowOf(use));
    const wanted = uses.map((use) => rows.get(use));
    const place = byId('lora-rows');
    const same = wanted.every((row, at) => row === place.children[at]);
    if (!same || wanted.length !== place.children.length) place.replaceChildren(...wanted);
    for (const use of uses) update(rows.get(use), use);
    if (uses.length) readAgain();
  }

  Imagine.rows = { show, read, wordButtons, markWords, triggers };
}
