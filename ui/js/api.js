// Calls the Imagine server, and gives each kind of failure its own error.
'use strict';

{
  const { remember } = Imagine.dom;
  const DEFAULT = 'http://localhost:5000';

  /** The server answered with an error, in `type`, `fields` and `retryAfter`. */
  class ServerError extends Error {
    constructor(status, { type = 'error', message, fields, id, retry_after: wait } = {}) {
      super(message || `the server answered with status ${status}`);
      Object.assign(this, { status, type, id, retryAfter: wait });
      this.fields = Array.isArray(fields) ? fields : [];
    }
  }

  /** No answer. A browser does not tell a closed port from a forbidden origin. */
  class Unreachable extends Error {
    constructor(address) {
      super(
        `No answer from ${address}. Is the server running (imagine serve), and the address right? ` +
          'A server that does not allow this page looks the same from here.',
      );
    }
  }

  /** The reply began and then broke off. */
  class ConnectionLost extends Error {}

  /** The answer is not an Imagine server's. */
  class NotImagine extends Error {
    constructor(address) {
      super(`What answers at ${address} is not an Imagine server.`);
    }
  }

  // A page served by Imagine lives at a folder ("/"), and may call no other server (its policy says
  // so); one opened as a file, or from another web server, has a file's name at its end.
  const servedFrom =
    location.protocol.startsWith('http') && location.pathname.endsWith('/')
      ? location.origin + location.pathname.slice(0, -1)
      : null;
  // Every file:// page shares one localStorage: a key must not outlive the window there.
  const keyStore = () => (location.protocol === 'file:' ? sessionStorage : localStorage);

  const normal = (address) => {
    const url = /^https?:\/\//i.test(address) ? address : `http://${address}`;
    return url.trim().replace(/\/+$/, '').replace('//0.0.0.0', '//127.0.0.1');
  };

  const api = {
    servedFrom,
    address: servedFrom ?? DEFAULT,
    key: '',

    /** Use the server of the last visit. */
    recall() {
      api.address = servedFrom ?? remember.get('address', DEFAULT);
      try {
        api.key = keyStore().getItem('imagine.key') ?? '';
      } catch {
        // No storage, no key.
      }
    },

    /** Use another server from now on. Throws a TypeError if the address cannot be one. */
    use(address, key) {
      if (!servedFrom) {
        const url = new URL(normal(address));
        if (url.hostname.includes('%')) throw new TypeError('a name of a host has no spaces');
        api.address = url.href.replace(/\/+$/, '');
        remember.set('address', api.address);
      }
      api.key = key;
      try {
        keyStore().setItem('imagine.key', key);
      } catch {
        // A reload then asks for the key again.
      }
    },

    /** Send a request; the Response has a good status. Throws ServerError, Unreachable or AbortError. */
    async send(path, { body, signal } = {}) {
      const headers = api.key ? { authorization: `Bearer ${api.key}` } : {};
      if (body) headers['content-type'] = 'application/json';
      const options = { headers, signal, method: body ? 'POST' : 'GET', cache: 'no-store' };
      if (body) options.body = JSON.stringify(body);
      let response;
      try {
        response = await fetch(api.address + path, options);
      } catch (error) {
        throw error.name === 'AbortError' ? error : new Unreachable(api.address);
      }
      if (!response.ok) throw await errorOf(response);
      return response;
    },

    /** Send a request and take its JSON object. */
    async json(path, options) {
      const response = await api.send(path, options);
      try {
        return await response.json();
      } catch (error) {
        if (error instanceof SyntaxError) throw new NotImagine(api.address);
        throw error.name === 'AbortError' ? error : new ConnectionLost('The connection was lost.');
      }
    },
  };

  async function errorOf(response) {
    const body = await response.json().catch(() => null);
    const wait = Number(response.headers.get('retry-after')) || undefined;
    return new ServerError(response.status, { retry_after: wait, ...body?.error });
  }

  Imagine.api = Object.assign(api, { ServerError, Unreachable, ConnectionLost, NotImagine });
}
