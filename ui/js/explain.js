// Explains each kind of failure to the user, with a remedy.
'use strict';

{
  const { byId, plural } = Imagine.dom;
  const { api } = Imagine;
  const { tell } = Imagine.messages;
  const { StoreError } = Imagine.store;

  function openServer(field) {
    byId('server').open = true;
    byId(field).focus();
  }
  const address = {
    label: 'Server address',
    run: () => openServer(byId('address').disabled ? 'key' : 'address'),
  };
  const key = { label: 'Enter the key', run: () => openServer('key') };

  function serverText({ message, id, retryAfter }) {
    const number = id ? ` (the server's log has more under ${id})` : '';
    const wait = retryAfter ? ` It says to try again in ${plural(retryAfter, 'second')}.` : '';
    return `Error from the server: ${message}${number}.${wait}`.replace(/([.?!])\.( |$)/, '$1$2');
  }

  function explainServer(error, actions) {
    const strange = Imagine.wrong.show(error.fields);
    if (error.status === 401)
      return tell('bad', 'This server wants its API key.', [key], 'server');
    if (error.fields.length) {
      const text = ['The server cannot draw this: see the marked fields.', ...strange].join(' ');
      return tell('bad', text, [], strange.length ? '' : 'fields');
    }
    return tell('bad', serverText(error), error.status >= 500 ? actions : []);
  }

  /**
   * Tell the user about an error.
   * @param {Error} error
   * @param {function()} [retry] Repeats the failed action.
   */
  function explain(error, retry) {
    const actions = retry ? [{ label: 'Try again', run: retry }] : [];
    if (error.name === 'AbortError') return tell('info', 'Cancelled.');
    if (error instanceof api.Unreachable) {
      return tell('bad', error.message, [...actions, address], 'server');
    }
    if (error instanceof api.NotImagine) return tell('bad', error.message, [address], 'server');
    if (error instanceof api.ServerError) return explainServer(error, actions);
    if (error instanceof api.ConnectionLost) {
      const text = `${error.message} The server may have stopped, or the network is down.`;
      return tell('bad', text, actions, 'server');
    }
    if (error instanceof StoreError) return tell('bad', `This cannot be done: ${error.message}.`);
    return tell('bad', error.message);
  }

  Imagine.explain = { explain, openServer: address.run };
}
