// Lists of files that the next picture uses, each with how; a part of the page has their rows.
'use strict';

{
  const { byId, say } = Imagine.dom;
  const { parts } = Imagine;

  const changed = () => byId('form').dispatchEvent(new Event('input', { bubbles: true }));

  /**
   * A list of uses, {name, weight, ...}: their identity tells the rows apart. Its field has a button
   * with the list's name, which opens the part of the page that has the rows.
   * @param {{field: string, part: string, rows: string, first: string}} of `Imagine[rows].show`
   *   shows them; `first` is the kind that the picker is to show.
   */
  function list({ field, part, rows, first }) {
    let uses = [];
    let shown = null; // those that the part was asked to show
    let refused = () => {};

    const all = () => uses;

    /** Replace all of them. */
    function set(others) {
      uses = others.map((use) => ({ ...use }));
    }

    function add(use) {
      uses = [...uses, { weight: 1, ...use }];
      changed();
    }

    function remove(use) {
      uses = uses.filter((one) => one !== use);
      changed();
    }

    /** Bring their rows up to date. */
    function show() {
      say(byId(field), uses.length ? 'Add or change' : 'Add');
      if (Imagine[rows]) return Imagine[rows].show();
      if (!uses.length || shown === uses) return null;
      shown = uses;
      return parts.load(part).then(Imagine.form.refresh, refused);
    }

    /** @param {function(Error)} failed Tells the user why the part does not open. */
    function build(failed) {
      refused = failed;
      byId(field).onclick = () => parts.call('picker', 'open', first).catch(failed);
    }

    return { all, set, add, remove, show, build, changed };
  }

  Imagine.uses = { list };
}
