// Parameters whose controls come with a part of the page: their values until then, and when it comes.
'use strict';

{
  const { parts } = Imagine;

  let needed = {}; // by part, whether it is needed now
  let refused = () => {};
  const asked = new Set();
  const values = {};

  /** Bring the controls of the parts up to date, and load those that have become needed. */
  function show() {
    for (const [part, isNeeded] of Object.entries(needed)) {
      if (Imagine[part]) Imagine[part].show();
      else if (isNeeded() && !asked.has(part)) {
        asked.add(part);
        parts
          .load(part)
          .then(Imagine.form.refresh, refused)
          .finally(() => asked.delete(part));
      }
    }
  }

  /** @param {function(Error)} failed Tells the user why a part does not come. */
  function build(all, failed) {
    needed = all;
    refused = failed;
  }

  Imagine.later = { build, show, values };
}
