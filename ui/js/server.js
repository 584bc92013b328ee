// Shows the server's state in the header, and takes its address and key.
'use strict';

{
  const { byId, say } = Imagine.dom;
  const { api, catalogue, form, enhance } = Imagine;
  const { tell, settle } = Imagine.messages;
  const { explain, openServer } = Imagine.explain;

  const STATES = {
    unknown: 'Looking for the server',
    loading: 'Server is getting ready',
    ready: 'Ready',
    locked: 'Server wants a key',
    failing: 'Server has a fault',
    stopping: 'Server is stopping',
    away: 'No server',
  };
  const answers = (state) => state === 'ready' || state === 'loading';

  async function readCatalogue() {
    try {
      await catalogue.refresh();
      form.offerAll();
      enhance.offer();
      describe();
    } catch (error) {
      if (error.status === 401) show('locked');
      explain(error);
    }
  }

  /** Show which server this is, as far as known. */
  function describe() {
    const { version, device } = catalogue;
    const where = device ? ` on ${device}` : '';
    say(byId('server-note'), version ? `Imagine ${version}${where}, at ${api.address}` : '');
  }

  function show(state, message) {
    byId('server-status').dataset.state = state;
    byId('server-status').title = typeof message === 'string' ? message : api.address;
    const { device } = catalogue;
    const ready = state === 'ready' && device && `Ready on ${device}`;
    say(byId('server-status-text'), ready || STATES[state]);
    describe();
  }

  function connect(look) {
    try {
      api.use(byId('address').value, byId('key').value);
    } catch {
      const text = 'That is no address: it should look like http://localhost:5000.';
      return tell('bad', text, [], 'server');
    }
    settle('server');
    byId('address').value = api.address;
    return look();
  }

  function showAddress() {
    byId('address').value = api.address;
    byId('address').disabled = Boolean(api.servedFrom);
    byId('key').value = api.key;
    say(
      byId('address-why'),
      api.servedFrom
        ? 'This page came from that server and talks to no other. Open ui/imagine-ui.html as a file to choose.'
        : '',
    );
  }

  /** Watch the server; `found` is called each time its catalogue is read after it appears. */
  function build(found) {
    showAddress();
    const look = catalogue.watch(async (state, previous, message) => {
      show(state, message);
      if (!answers(state)) return enhance.offer(); // or the reason why not
      if (answers(previous)) return;
      if (previous !== 'unknown') settle('server');
      await readCatalogue();
      found();
    });
    Imagine.server.look = look;
    byId('connect').onclick = () => connect(look);
    byId('server-status').onclick = openServer;
    for (const id of ['address', 'key']) {
      byId(id).onkeydown = (event) => {
        if (event.key !== 'Enter' || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        connect(look);
      };
    }
    return look();
  }

  /** `look` polls the server, shows its state and calls `found`. */
  Imagine.server = { build, look: null };
}
