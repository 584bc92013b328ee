// Prompts for the first visit and the Idea button, in words that every model knows.
'use strict';

(() => {
  const { byId, make } = Imagine.dom;
  const THINGS = [
    'cat',
    'rocket',
    'boat',
    'house',
    'robot',
    'lighthouse',
    'mushroom',
    'balloon',
    'flower',
  ];
  const COLOURS = [
    'a red',
    'a blue',
    'a green',
    'a yellow',
    'a pink',
    'a purple',
    'an orange',
    'a white',
  ];
  const PLACES = [
    'on a meadow',
    'by the sea',
    'in the desert',
    'on mars',
    'in the snow',
    'in the mountains',
  ];
  const TIMES = ['at night', 'at sunset', 'on a sunny day'];
  const FIRST = 'a red cat on a meadow at sunset';

  const one = (list) => list[Math.floor(Math.random() * list.length)];
  const idea = () => [COLOURS, THINGS, PLACES, TIMES].map(one).join(' ');

  function setPrompt(text) {
    byId('prompt').value = text;
    byId('prompt').dispatchEvent(new Event('input', { bubbles: true }));
  }

  /** Offer ideas; `draw` is called by the one that draws at once. */
  function build(draw) {
    for (const text of [idea(), idea(), idea()]) {
      const onclick = () => {
        setPrompt(text);
        byId('prompt').focus();
      };
      byId('ideas').append(make('button', { type: 'button', className: 'small', onclick }, text));
    }
    byId('surprise').onclick = () => setPrompt(idea());
    byId('first').onclick = () => {
      if (!byId('prompt').value.trim()) setPrompt(FIRST);
      draw();
    };
  }

  Imagine.ideas = { build };
})();
