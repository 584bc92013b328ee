// What the chosen model draws with where the user says nothing: its own size, steps, guidance, sampler.
'use strict';

{
  const { byId } = Imagine.dom;
  const { usual, read } = Imagine.parameters;
  const SIZE = ['width', 'height']; // are chosen together

  let own = usual;
  let known = []; // the names of those that the server fills in itself
  const chosen = new Set(); // what the user, or a picture's settings, have set

  const has = (name) => Object.hasOwn(usual, name);
  const withIt = (name) => (SIZE.includes(name) ? SIZE : [name]);
  const isOwn = (name) => byId(name).value === String(own[name]);

  /** Note that the user has changed a control; with the model's own value it is the model's again. */
  function note(name) {
    if (!has(name)) return;
    const does = withIt(name).every(isOwn) ? 'delete' : 'add';
    for (const one of withIt(name)) chosen[does](one);
  }

  /** Note values that are put into the form; null: the model's own. */
  function take(values) {
    for (const name of Object.keys(values).filter(has))
      for (const one of withIt(name)) chosen[values[name] === null ? 'delete' : 'add'](one);
  }

  /** Follow another model; `write(name, value)` sets what is not chosen. */
  function follow(model, write) {
    const { values } = read(model?.defaults ?? {});
    known = Object.keys(values);
    const [width, height] = model?.best ?? [usual.width, usual.height];
    own = { ...usual, width, height, ...values };
    for (const name of Object.keys(usual))
      if (!chosen.has(name) && !isOwn(name)) write(name, own[name]);
  }

  const isChosen = (name) => chosen.has(name);

  /** The names that a request need not say. */
  const unsaid = () => known.filter((name) => has(name) && !chosen.has(name) && isOwn(name));

  /** `values` with null for what is the model's. */
  const without = (values) =>
    Object.fromEntries(
      Object.entries(values).map(([name, value]) => [
        name,
        has(name) && !chosen.has(name) ? null : value,
      ]),
    );

  Imagine.own = { has, note, take, follow, isChosen, unsaid, without };
}
