// Prompts for the first visit and the Idea button, in words that every model knows.
'use strict';

{
  const { byId, make } = Imagine.dom;
  // prettier-ignore
  const PARTS = [
    ['a red', 'a blue', 'a green', 'a yellow', 'a pink', 'a purple', 'an orange', 'a white'],
    ['cat', 'rocket', 'boat', 'house', 'robot', 'lighthouse', 'mushroom', 'balloon', 'flower'],
    ['on a meadow', 'by the sea', 'in the desert', 'on mars', 'in the snow', 'in the mountains'],
    ['at night', 'at sunset', 'on a sunny day'],
  ];
  const FIRST = 'a red cat on a meadow at sunset';

  const one = (list) => list[Math.floor(Math.random() * list.length)];
  const idea = () => PARTS.map(one).join(' ');

  function setPrompt(text) {
    byId('prompt').value = text;
    byId('prompt').dispatchEvent(new Event('input', { bubbles: true }));
  }

  /** Offer ideas; the first-picture button calls `draw`. */
  function build(draw) {
    for (const text of [idea(), idea(), idea()]) {
      const onclick = () => {
        setPrompt(text);
        byId('prompt').focus();
      };
      byId('ideas').append(make('button', { className: 'small', onclick }, text));
    }
    byId('surprise').onclick = () => setPrompt(idea());
    byId('first').onclick = () => {
      if (!byId('prompt').value.trim()) setPrompt(FIRST);
      draw();
    };
  }

  Imagine.ideas = { build };
}
