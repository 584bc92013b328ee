// The picker: the server's LoRAs, embeddings and ControlNets, those for the chosen model first.
'use strict';

{
  const { byId, make, say, plural, bytesText } = Imagine.dom;
  const { catalogue, controls, form, loras, rows, words } = Imagine;
  const { choice } = Imagine.fields;
  const SLICE = 60; // entries put on the page at a time

  const KINDS = {
    lora: { one: 'LoRA', folder: 'loras' },
    embedding: { one: 'embedding', folder: 'embeddings' },
    controlnet: { one: 'ControlNet', folder: 'controlnet' },
  };

  const lists = { lora: [], embedding: [], controlnet: [] };
  let kind = 'lora';
  let others = false; // whether those for other models are shown, too
  const told = {}; // why there is no list of a kind yet
  let entries = []; // those that are found, in order
  let shown = 0; // how many of them are on the page

  // ------------------------------------------------------------------------------ elements

  const find = make('input', {
    type: 'search',
    placeholder: 'Find by name or word',
    ariaLabel: 'Find by name or word',
    spellcheck: false,
    maxLength: 200,
  });
  const note = make('p', { className: 'note', role: 'status' });
  const list = make('ul', { className: 'parts' });
  const more = make('button', { type: 'button', className: 'small' });

  const choose = (group, value) => (group.querySelector(`[value=${value}]`).checked = true);

  const listed = { lora: 'LoRAs', embedding: 'Embeddings', controlnet: 'ControlNets' };
  const kinds = choice('Kind', 'picker-kind', Object.entries(listed), (value) => {
    kind = value;
    draw();
  });
  const prompts = { prompt: 'Prompt', neg: 'Negative prompt' };
  const into = choice('Put them into the', 'picker-into', Object.entries(prompts), mark);

  const intoRow = make('div', { className: 'into note' }, 'Put them into the', into);
  const field = () => byId(into.querySelector(':checked').value);

  const dialog = make(
    'dialog',
    { id: 'picker' },
    make(
      'div',
      { className: 'picker-head' },
      make('h2', { id: 'h-picker' }, 'What steers the model'),
      make('button', { type: 'button', onclick: () => dialog.close() }, 'Done'),
    ),
    make('div', { className: 'picker-bar' }, find, kinds, intoRow),
    note,
    make('div', { className: 'picker-scroll' }, list, more),
  );
  dialog.setAttribute('aria-labelledby', 'h-picker');
  document.body.append(dialog);

  // ------------------------------------------------------------------------------- entries

  const useOf = (name, all = loras) => all.all().find((use) => use.name === name);

  function toggle(name, all) {
    const use = useOf(name, all);
    if (use) all.remove(use);
    else all.add({ name });
  }

  const ADD = {
    lora: ({ name }) => toggle(name, loras),
    controlnet: ({ name }) => toggle(name, controls),
    embedding: ({ name }) => words.toggle(field(), name),
  };

  const isUsed = {
    lora: (name) => Boolean(useOf(name)),
    controlnet: (name) => Boolean(useOf(name, controls)),
    embedding: (name) => words.has(field(), name),
  };

  function facts({ family, size, details }) {
    const { ranks, vectors } = details ?? {};
    const parts = [catalogue.familyText(family), size > 0 && bytesText(size)];
    if (Array.isArray(ranks)) parts.push(`rank ${ranks.join(', ')}`);
    if (vectors > 0) parts.push(plural(vectors, 'vector'));
    return parts.filter(Boolean).join(' · ');
  }

  function entryOf(info) {
    const why = catalogue.misfit(info, form.model());
    const button = make(
      'button',
      { type: 'button', className: 'part', disabled: Boolean(why), dataset: { name: info.name } },
      make('span', { className: 'part-name' }, info.name),
      make('span', { className: 'note' }, facts(info)),
    );
    button.onclick = () => {
      ADD[kind](info);
      mark();
    };
    const entry = make('li', {}, button);
    const called = why || kind !== 'lora' ? [] : rows.triggers(info);
    if (called.length) entry.append(rows.wordButtons(called, () => byId('prompt')));
    if (why) entry.append(make('p', { className: 'why' }, why));
    return entry;
  }

  /** Mark what is in use. */
  function mark() {
    for (const button of list.querySelectorAll('.part'))
      button.setAttribute('aria-pressed', isUsed[kind](button.dataset.name));
    rows.markWords(list, byId('prompt'));
  }

  // ---------------------------------------------------------------------------------- list

  const textOf = (info) => [info.name, ...rows.triggers(info)].join('\n').toLowerCase();

  /** Those that have all that is looked for, split by whether they fit the model. */
  function found() {
    const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = lists[kind].filter((info) => wanted.every((part) => textOf(info).includes(part)));
    const fits = (info) => !catalogue.misfit(info, form.model());
    return [all.filter(fits), all.filter((info) => !fits(info))];
  }

  /** What the list has, or why it is empty. */
  function summary(fitting) {
    const { one, folder } = KINDS[kind];
    if (told[kind]) return told[kind];
    if (!lists[kind].length)
      return (
        `This server has no ${one}s yet. Put .safetensors files into the folder ${folder} in its ` +
        'models folder (~/.imagine/models), or fetch one there: imagine pull OWNER/NAME.'
      );
    const { name } = form.model() ?? {};
    const count = fitting.length ? plural(fitting.length, one) : `No ${one}`;
    const looked = find.value.trim() && ' found';
    return `${count}${looked}${name ? ` for ${name}` : ''}.`;
  }

  /** Adds entries when the user scrolls to the last one. */
  const end = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && showMore());

  function showMore() {
    list.append(...entries.slice(shown, shown + SLICE).map(entryOf));
    shown += SLICE;
    end.disconnect();
    if (shown < entries.length) end.observe(list.lastElementChild);
    mark();
  }

  function draw() {
    const [fitting, rest] = found();
    say(note, summary(fitting));
    intoRow.hidden = kind !== 'embedding';
    more.hidden = !rest.length;
    more.setAttribute('aria-expanded', others);
    const misfits = `${rest.length} that ${rest.length > 1 ? 'do' : 'does'} not fit`;
    say(more, `${others ? 'Hide' : 'Show'} ${misfits}`);
    entries = others ? [...fitting, ...rest] : fitting;
    shown = 0;
    list.replaceChildren();
    showMore();
  }

  // ----------------------------------------------------------------------------- the dialog

  /** Take over a list; an entry that has not changed keeps the focus. */
  async function read(one, asked) {
    if (!lists[one].length) told[one] = 'Asking the server …';
    const before = JSON.stringify([lists[one], told[one]]);
    try {
      lists[one] = await asked;
      told[one] = null;
    } catch (error) {
      told[one] = error.message;
    }
    if (one === kind && JSON.stringify([lists[one], told[one]]) !== before) draw();
  }

  /** Walk through the entries with the arrow keys. */
  function walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target.type === 'radio') return;
    event.preventDefault();
    const stops = [find, ...list.querySelectorAll('.part:enabled')];
    const here = event.target.closest('li')?.firstElementChild ?? event.target;
    const at = stops.indexOf(here) + step;
    stops[Math.max(0, Math.min(at, stops.length - 1))].focus();
  }

  find.oninput = draw;
  // No short cuts in these: an event handler that returns false prevents the event's default.
  find.onkeydown = ({ key }) => {
    if (key === 'Enter') list.querySelector('.part:enabled')?.click();
  };
  dialog.onkeydown = walk;
  dialog.onclick = ({ target }) => {
    if (target === dialog) dialog.close();
  };
  more.onclick = () => {
    others = !others;
    draw();
  };
  byId('form').addEventListener('input', () => {
    if (dialog.open) mark();
  });

  /** Show the picker, with what the server has now; `first` is the kind to show, if not the last. */
  async function open(first = kind) {
    kind = first;
    choose(kinds, kind);
    const last = loras.prompt();
    choose(into, last.disabled ? 'prompt' : last.id);
    find.value = '';
    dialog.showModal();
    find.focus();
    const others = ['embedding', 'controlnet'].map((one) => read(one, catalogue.readKind(one)));
    const reading = [read('lora', rows.read()), ...others];
    draw();
    await Promise.all(reading);
  }

  Imagine.picker = { open };
}
