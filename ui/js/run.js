// A run: one picture or several variations, from the request to the gallery.
'use strict';

(() => {
  const { remember } = Imagine.dom;
  const { api, stage, gallery, seed, stream } = Imagine;
  const { fromBase64 } = Imagine.bytes;
  const { Progress } = Imagine.progress;
  const AT_ONCE = 4; // requests: a browser opens six connections, and Cancel needs one
  const AGAIN = 1500; // milliseconds between two looks at a job

  let controller = null;
  let leaving = false; // a page that is being left loses its connections: its jobs stay noted

  const pngOf = async (text) => new Blob([await fromBase64(text)], { type: 'image/png' });

  /** The body of POST /generate for these values; what is at rest is left out. */
  function bodyOf(values, img) {
    const body = { ...values };
    for (const name of ['model', 'hires']) if (body[name] === null) delete body[name];
    if (!values.deterministic) delete body.deterministic;
    if (!values.stream) delete body.preview;
    if (img) body.img = img;
    else delete body.strength;
    // A server that keeps jobs finishes this one for a page that was left; others pass over it.
    body.on_disconnect = 'finish';
    return body;
  }

  // ------------------------------------------------------------------------- jobs left behind

  const left = {
    all: () => remember.get('jobs', []),
    add(job) {
      remember.set('jobs', [...left.all().slice(-15), job]);
    },
    remove(id) {
      remember.set(
        'jobs',
        left.all().filter((job) => job.id !== id),
      );
    },
  };

  const pause = (milliseconds, signal) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, milliseconds);
      signal?.addEventListener('abort', () => {
        clearTimeout(timer);
        reject(signal.reason);
      });
    });

  /** Wait for a job that the server goes on with; returns its final reply. */
  async function awaitJob(id, { signal, onEvent }) {
    for (;;) {
      const job = await api.json(`/jobs/${encodeURIComponent(id)}`, { signal });
      if (job.error) throw new api.ServerError(200, job.error);
      if (job.img) return job;
      onEvent(job);
      await pause(AGAIN, signal);
    }
  }

  /** Make a picture; where the connection is lost, look for it among the server's jobs. */
  async function generate(body, values, { signal, onEvent }) {
    let id = null;
    const note = (event) => {
      if (id === null && typeof event.id === 'string') {
        id = event.id;
        left.add({ id, values, address: api.address });
      }
      onEvent(event);
    };
    try {
      return await stream.generate(body, { signal, onEvent: note });
    } catch (error) {
      if (error.name === 'AbortError' && id !== null) {
        api.json(`/jobs/${encodeURIComponent(id)}/cancel`, { body: {} }).catch(() => {});
      }
      if (!(error instanceof api.ConnectionLost) || id === null) throw error;
      return await awaitJob(id, { signal, onEvent }).catch((second) => {
        throw second.name === 'AbortError' ? second : error;
      });
    } finally {
      if (id !== null && !leaving) left.remove(id);
    }
  }

  // ------------------------------------------------------------------------------ the run

  /** Draw variation `index` into its tile and the gallery. Returns its record and warnings. */
  async function draw(index, { values, img, input, progress, tile, signal }) {
    const started = performance.now();
    const reply = await generate(bodyOf(values, img), values, {
      signal,
      onEvent(event) {
        progress.take(index, event);
        tile.progress(progress.fractionOf(index));
        Imagine.progress.show(progress);
        if (event.img) tile.preview(() => pngOf(event.img));
      },
    });
    const output = await pngOf(reply.img);
    await tile.finish(output);
    progress.take(index, { status: 'final' });
    Imagine.progress.show(progress);
    const kept = { ...values, seed: reply.seed ?? values.seed, model: reply.model ?? values.model };
    const seconds = (performance.now() - started) / 1000;
    const record = await gallery.add(output, { values: kept, input, seconds });
    return { record, warnings: Array.isArray(reply.warnings) ? reply.warnings : [] };
  }

  /** Work through `count` variations, a few at a time; the first failure stops the rest. */
  async function drawAll(count, one) {
    const results = [];
    let next = 0;
    const worker = async () => {
      while (next < count) {
        const index = next++;
        results[index] = await one(index);
      }
    };
    const workers = Array.from({ length: Math.min(AT_ONCE, count) }, worker);
    const outcomes = await Promise.allSettled(
      workers.map((work) =>
        work.catch((error) => {
          next = count;
          throw error;
        }),
      ),
    );
    const failed = outcomes.find(({ status }) => status === 'rejected');
    return { results: results.filter(Boolean), error: failed?.reason ?? null };
  }

  /**
   * Make `count` pictures with the seeds seed, seed + 1, …
   * @returns {Promise<{results: Array<{record, warnings}>, error: ?Error, begun: boolean}>} `begun`
   *   tells whether the server took anything on.
   */
  async function start(values, { count, input }) {
    controller = new AbortController();
    const { signal } = controller;
    const tiles = stage.begin(values, count);
    const progress = new Progress(count, values.steps);
    Imagine.progress.show(progress);
    const ticking = setInterval(() => Imagine.progress.show(progress), 1000);
    try {
      const img = input && (await Imagine.bytes.toBase64(await Imagine.bytes.bytesOf(input)));
      const outcome = await drawAll(count, async (index) => {
        const own = { ...values, seed: seed.plus(values.seed, index) };
        const tile = tiles[index];
        const result = await draw(index, { values: own, img, input, progress, tile, signal });
        if (count > 1) stage.link(tile, () => Imagine.run.onOpen(result.record));
        return result;
      });
      return { ...outcome, begun: progress.begun };
    } catch (error) {
      return { results: [], error, begun: false }; // the input picture is gone from the disk
    } finally {
      clearInterval(ticking);
      const word = signal.aborted ? 'Cancelled' : 'Not finished';
      for (const tile of tiles) if (!tile.element.classList.contains('done')) tile.fail(word);
      controller = null;
      stage.end();
      Imagine.progress.hide();
    }
  }

  /** Stop the run. Returns whether there was one. */
  function cancel() {
    controller?.abort();
    return controller !== null;
  }

  /** Take up the jobs that an earlier visit left behind. `onFound(record)`, `onGone(values)`. */
  async function recover({ onFound, onGone }) {
    for (const { id, values, address } of left.all()) {
      if (address !== api.address) continue;
      try {
        const reply = await awaitJob(id, { onEvent: () => {} });
        const kept = { ...values, seed: reply.seed ?? values.seed };
        onFound(await gallery.add(await pngOf(reply.img), { values: kept }));
        left.remove(id);
      } catch (error) {
        if (!(error instanceof api.ServerError)) return; // not reachable now: keep it for later
        left.remove(id);
        onGone(values);
      }
    }
  }

  addEventListener('pagehide', () => (leaving = true));
  addEventListener('pageshow', () => (leaving = false));

  Imagine.run = { start, cancel, recover, running: () => controller !== null, onOpen: () => {} };
})();
