// Finds, makes and changes elements of the page.
'use strict';

/** The page's namespace; each file adds one member, in the order of imagine-ui.html. */
const Imagine = {};

{
  const byId = (id) => document.getElementById(id);

  /**
   * Make an element. Strings become text nodes: nothing is ever parsed as HTML.
   * @param {string} tag
   * @param {Object} [properties] DOM properties; `dataset` is merged.
   * @param {...(Node|string)} children
   */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    const { dataset = {}, ...rest } = properties;
    Object.assign(element, rest);
    Object.assign(element.dataset, dataset);
    element.append(...children);
    return element;
  }

  /** Set the text of an element only if it differs, so that live regions stay quiet. */
  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  /** Let the browser paint and answer the user before more work is done. */
  const breathe = () => new Promise((resolve) => setTimeout(resolve));

  const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

  function bytesText(bytes) {
    if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
    return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
  }

  function secondsText(seconds) {
    if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  }

  /** Read or write a small JSON value in localStorage; if refused, it is forgotten. */
  const remember = {
    get(key, otherwise) {
      try {
        return JSON.parse(localStorage.getItem(`imagine.${key}`)) ?? otherwise;
      } catch {
        return otherwise;
      }
    },
    set(key, value) {
      try {
        if (value === null) localStorage.removeItem(`imagine.${key}`);
        else localStorage.setItem(`imagine.${key}`, JSON.stringify(value));
      } catch {
        // Storage is full or forbidden: the page works on without it.
      }
    },
  };

  Imagine.dom = { byId, make, say, breathe, plural, bytesText, secondsText, remember };
}
