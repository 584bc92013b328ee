// Records each job in progress, so that a reopened page finds its picture.
'use strict';

{
  const { remember } = Imagine.dom;
  const { api } = Imagine;
  const MOST = 16; // notes that are kept
  const POLL = 1000; // milliseconds between polls of a job
  const PATIENCE = 30000; // milliseconds until a cancelled request has to know its id

  const held = new Map(); // this window's jobs: id to the function that releases its lock
  let leaving = false; // closing the page breaks its connections: its jobs stay recorded

  const path = (id) => `/jobs/${encodeURIComponent(id)}`;
  const noted = () => remember.get('jobs', []);

  // ------------------------------------------------------------------------------- notes

  /** This window's name, which survives a reload. */
  function windowName() {
    try {
      return (sessionStorage['imagine.window'] ??= String(Math.random()));
    } catch {
      return null; // no storage, no notes
    }
  }

  /**
   * Lock this job for this window; false if another window holds it. A reload releases this
   * window's earlier locks at any moment. Without locks (a browser has them only for this machine's
   * pages and for https) windows do not know of each other.
   */
  function hold({ id, owner }) {
    return new Promise((resolve) => {
      const own = (lock) => {
        resolve(Boolean(lock));
        return lock && new Promise((unlock) => held.set(id, unlock));
      };
      if (!navigator.locks) return own(true);
      const options = { ifAvailable: owner !== windowName() };
      return navigator.locks.request(`imagine ${id}`, options, own).catch(own);
    });
  }

  function release(id) {
    held.get(id)?.();
    held.delete(id);
  }

  function note(job) {
    remember.set('jobs', [...noted().slice(1 - MOST), job]);
    hold(job);
  }

  /** Drop the record of a job that is kept or no longer wanted. */
  function forget(id) {
    if (leaving || !id) return;
    remember.set(
      'jobs',
      noted().filter((job) => job.id !== id),
    );
    release(id);
  }

  /** Lock and return this server's recorded jobs, {id, values}, that no window holds. */
  async function leftBehind() {
    const ours = noted().filter(({ id, address }) => address === api.address && !held.has(id));
    const free = await Promise.all(ours.map(hold));
    const still = noted().map(({ id }) => id);
    return ours.filter(({ id }, at) => free[at] && still.includes(id));
  }

  // ------------------------------------------------------------------------------ the job

  const cancel = (id) => api.json(`${path(id)}/cancel`, { body: {} }).catch(() => {});

  const aborted = (signal) =>
    new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
    });

  async function look(id, { signal, onEvent }) {
    for (;;) {
      const job = await api.json(path(id), { signal });
      if (job.error) throw new api.ServerError(200, job.error);
      if (job.img) return { ...job, id };
      onEvent(job);
      await Promise.race([new Promise((next) => setTimeout(next, POLL)), aborted(signal)]);
    }
  }

  /** The reply of a job left to the server; if it is unreachable, the record stays. */
  async function outcome(id, options) {
    try {
      return await look(id, options);
    } catch (error) {
      if (error.name === 'AbortError') cancel(id);
      if (error.name === 'AbortError' || error instanceof api.ServerError) forget(id);
      else release(id);
      throw error;
    }
  }

  /**
   * Make a picture; if the connection is lost, poll its job. The caller forgets the
   * reply's `id` once the picture is kept.
   *
   * Aborting `signal` rejects at once. The connection stays open until the server has told the
   * job's id: closing it would not end the job.
   */
  async function make(body, values, { signal, onEvent }) {
    const connection = new AbortController();
    let id; // undefined before the first line, null if the server sends none
    const drop = () => {
      if (id && !connection.signal.aborted) cancel(id);
      connection.abort();
    };
    const take = (event) => {
      if (id === undefined) {
        id = event.id ?? null;
        if (signal.aborted) return drop();
        if (id) note({ id, values, address: api.address, owner: windowName() });
      }
      return signal.aborted || onEvent(event);
    };
    const reply = Imagine.stream.generate(body, { signal: connection.signal, onEvent: take });
    try {
      return { ...(await Promise.race([reply, aborted(signal)])), id };
    } catch (error) {
      if (id && error instanceof api.ConnectionLost) {
        return await outcome(id, { signal, onEvent }).catch((second) => {
          throw second.name === 'AbortError' || second.status < 400 ? second : error;
        });
      }
      if (error.name === 'AbortError') setTimeout(drop, id === undefined ? PATIENCE : 0);
      forget(id);
      throw error;
    }
  }

  addEventListener('pagehide', () => (leaving = true));
  addEventListener('pageshow', () => (leaving = false));

  Imagine.jobs = { make, outcome, forget, release, leftBehind };
}
