// The list of the keys that work anywhere on the page.
'use strict';

{
  const { make } = Imagine.dom;
  const KEYS = [
    [['Ctrl', '⏎'], 'Generate'],
    [['Esc'], 'Cancel, or leave the comparison'],
    [['←', '→'], 'Walk through the gallery'],
    [['Home', 'End'], 'Newest, oldest picture'],
    [['Delete'], 'Delete the picture (it can be undone)'],
    [['/'], 'Go to the prompt'],
    [['?'], 'This list'],
  ];

  const entry = ([keys, does]) => [
    make('dt', {}, ...keys.flatMap((key) => [make('kbd', {}, Imagine.keyboard.named(key)), ' '])),
    make('dd', {}, does),
  ];
  const dialog = make(
    'dialog',
    { id: 'keys' },
    make('h2', { id: 'h-keys' }, 'Keyboard'),
    make('dl', {}, ...KEYS.flatMap(entry)),
    make('button', { className: 'primary', onclick: () => dialog.close() }, 'Close'),
  );
  dialog.setAttribute('aria-labelledby', 'h-keys');
  document.body.append(dialog);

  Imagine.keys = { open: () => dialog.showModal() };
}
