// Loads the parts of the page that a first visit does without: scripts and styles, in order.
'use strict';

{
  const { make } = Imagine.dom;

  // In more than one of them.
  const STREAM = 'js/stream.js';
  const SHOWN = ['css/shown.css', 'js/tools.js', 'js/stage.js', 'js/shown.js'];
  const ROWS = 'css/rows.css';
  const FIELDS = ['css/later.css', 'js/fields.js'];
  const PARTS = {
    shown: SHOWN,
    compare: [...SHOWN, 'css/compare.css', 'js/compare.js'],
    keys: ['js/keys.js'],
    zones: ['css/zones.css', 'js/zones.js'],
    files: [
      ...['js/exif.js', 'js/png.js', 'js/tags.js', 'js/infotext.js'],
      ...['js/settings.js', 'js/files.js'],
    ],
    run: [...SHOWN, STREAM, 'js/jobs.js', 'js/progress.js', 'js/run.js'],
    repaint: [
      ...[...FIELDS, 'js/mask.js', 'js/view.js', 'css/painter.css', 'js/painter.js'],
      'js/repaint.js',
    ],
    more: [...FIELDS, 'js/vae.js', 'js/more.js'],
    hires: [...FIELDS, 'js/hires.js'],
    hints: [...FIELDS, ROWS, 'js/hints.js'],
    enlarge: [...FIELDS, STREAM, 'js/enlarge.js'],
    picker: [...FIELDS, ROWS, 'css/picker.css', 'js/words.js', 'js/rows.js', 'js/picker.js'],
  };

  // A page opened as a file cannot import modules, and the policy for trusted types lets no other
  // script than this one name a script.
  const policy = globalThis.trustedTypes?.createPolicy('imagine-parts', {
    createScriptURL: (path) => path,
  });

  const fetched = new Map(); // promises, by path
  const parts = new Map(); // and by name

  const elementOf = (path) =>
    path.endsWith('.css')
      ? make('link', { rel: 'stylesheet', href: path })
      : make('script', { src: policy?.createScriptURL(path) ?? path });

  const fetchFile = (path) =>
    new Promise((resolve, reject) => {
      const element = elementOf(path);
      element.onload = resolve;
      element.onerror = () => {
        element.remove();
        fetched.delete(path);
        const { servedFrom, address, Unreachable } = Imagine.api;
        reject(servedFrom ? new Unreachable(address) : new Error(`There is no ${path}.`));
      };
      document.head.append(element);
    });

  async function fetchAll(name) {
    for (const path of PARTS[name]) {
      if (!fetched.has(path)) fetched.set(path, fetchFile(path));
      await fetched.get(path);
    }
    return Imagine[name];
  }

  /** Load a part unless it is there; returns what it adds to `Imagine`. It may fail, and again. */
  function load(name) {
    if (!parts.has(name)) {
      const loading = fetchAll(name);
      parts.set(name, loading);
      loading.catch(() => parts.delete(name));
    }
    return parts.get(name);
  }

  /** Call a function of a part that may have to be loaded first. */
  const call = async (name, does, ...all) => (await load(name))[does](...all);

  /** Load, while the server is there, what the user needs to save and compare pictures. */
  const prepare = () => {
    for (const name of ['files', 'compare']) load(name).catch(() => {}); // later, then
  };

  Imagine.parts = { load, call, prepare };
}
