// Messages to the user: results, errors and their remedies.
'use strict';

{
  const { byId, make } = Imagine.dom;
  const LIFE = { info: 6000, good: 4000 }; // milliseconds; warnings and errors wait to be read

  const box = () => byId('messages');

  function closeButton(message) {
    return make('button', {
      className: 'bare',
      textContent: '×',
      ariaLabel: 'Close this message',
      onclick: () => message.remove(),
    });
  }

  /**
   * Show a message.
   * @param {'info'|'good'|'warn'|'bad'} kind
   * @param {string} text
   * @param {Array<{label: string, run: function()}>} [actions] Buttons; the message closes on use.
   * @param {string} [cause] What it is about: `settle` takes it away.
   * @returns {Element} the message, so that the caller can remove it.
   */
  function tell(kind, text, actions = [], cause = '') {
    const role = kind === 'bad' ? 'alert' : 'status';
    const message = make('div', { className: 'message', role, dataset: { kind, cause } });
    const buttons = actions.map(({ label, run }) =>
      make('button', {
        className: 'small',
        textContent: label,
        onclick: () => {
          message.remove();
          run();
        },
      }),
    );
    message.append(make('p', {}, text), ...buttons, closeButton(message));
    box().append(message);
    while (box().children.length > 4) box().firstElementChild.remove();
    if (LIFE[kind]) expire(message, LIFE[kind] + (actions.length ? 4000 : 0));
    return message;
  }

  /** Remove a message after a while, but never under the user's pointer or focus. */
  function expire(message, after) {
    setTimeout(() => {
      if (message.matches(':hover, :focus-within')) expire(message, 1000);
      else message.remove();
    }, after);
  }

  /** Remove the last attempt's errors. */
  function clearErrors() {
    for (const old of box().querySelectorAll('[data-kind=bad], [data-kind=warn]')) old.remove();
  }

  /** Remove the messages about a cause that is gone. */
  function settle(cause) {
    for (const old of box().querySelectorAll(`[data-cause=${cause}]`)) old.remove();
  }

  Imagine.messages = { tell, clearErrors, settle };
}
