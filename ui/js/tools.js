// The caption of the shown picture, and the buttons for what can be done with it.
'use strict';

{
  const { byId, make, secondsText } = Imagine.dom;
  const SVG = 'http://www.w3.org/2000/svg';
  // prettier-ignore
  const TOOLS = [
    ['act-grid', 'All variations', 'M3 3h6v6H3zm8 0h6v6h-6zM3 11h6v6H3zm8 0h6v6h-6z'],
    ['act-restore', 'Restore settings', 'M4 8a6.5 6.5 0 1 1-.5 4M4 3v5h5'],
    ['act-seed', 'Reuse seed', 'M10 17V9m0 2C6 11 4 9 4 5c4 0 6 2 6 6zm0-2c0-3 2-5 6-5 0 3-2 5-6 5z'],
    ['act-input', 'Use as input', 'M3 5v10h14V5zm2 8 3-4 3 3 2-2 3 3M13 8h.01'],
    ['act-repaint', 'Repaint', 'M17 3 9 12m-1 0c-3 0-2 4-5 4 2 2 7 1 7-2z'],
    ['act-enlarge', 'Enlarge', 'M3 11v6h6v-6zM8 3h9v9M17 3l-7 7'],
    ['act-compare', 'Compare', 'M10 2v16M3 5h14v10H3zm3 7V8l-1.5 2zm8 0V8l1.5 2z'],
    ['act-full', 'Full screen', 'M3 8V3h5m4 0h5v5m0 4v5h-5m-4 0H3v-5'],
    ['act-download', 'Download', 'M10 3v9m-4-4 4 4 4-4M4 16h12'],
    ['act-delete', 'Delete', 'M4 6h12M8 6V4h4v2M6 6l1 11h6l1-11M9 9v5m2-5v5'],
  ];

  function icon(d) {
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('viewBox', '0 0 20 20');
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', d);
    svg.append(path);
    return svg;
  }

  const buttonOf = ([id, text, d]) =>
    make('button', { id, className: 'tool' }, icon(d), make('span', {}, text));

  const actions = make('div', { className: 'actions', ariaLabel: 'Shown picture' });
  actions.setAttribute('role', 'toolbar');
  actions.append(...TOOLS.map(buttonOf));
  const place = make('div', { className: 'caption', id: 'caption' });
  const tools = make('div', { className: 'tools', id: 'tools', hidden: true }, place, actions);
  document.querySelector('.foot').append(tools);
  byId('act-grid').hidden = true;
  byId('act-compare').setAttribute('aria-pressed', 'false');

  /** Tell what the shown picture is. */
  function caption({ values, width, height, seconds }) {
    const steps = values.steps && `${values.steps} steps`;
    const facts = [`${width} × ${height}`, steps, values.sampler, values.model];
    for (const { name, weight } of values.loras ?? []) facts.push(`${name} ${weight}`);
    if (seconds > 0) facts.push(secondsText(seconds));
    place.replaceChildren(
      make('p', { className: 'caption-prompt', title: values.prompt }, values.prompt),
      make(
        'p',
        { className: 'note' },
        'Seed ',
        make('code', { id: 'shown-seed' }, values.seed ?? ''),
        facts.filter(Boolean).map((fact) => ` · ${fact}`).join(''),
      ),
    );
  }

  Imagine.tools = { caption };
}
