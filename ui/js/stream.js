// POST /generate and /upscale and their streams of lines: phases, steps, previews, and the picture.
'use strict';

{
  const { api } = Imagine;
  const LONGEST_LINE = 256 * 2 ** 20; // characters: a faulty server must not fill the memory

  /** The lines of a response body, each as soon as it is whole. */
  async function* lines(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let parts = [];
    let length = 0;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const pieces = value.split('\n');
      const last = pieces.pop();
      for (const piece of pieces) {
        yield parts.join('') + piece;
        parts = [];
        length = 0;
      }
      parts.push(last);
      length += last.length;
      if (length > LONGEST_LINE) throw new api.NotImagine(api.address);
    }
    if (length) yield parts.join('');
  }

  function parse(line) {
    try {
      return JSON.parse(line);
    } catch {
      throw new api.NotImagine(api.address);
    }
  }

  async function* events(response) {
    try {
      for await (const line of lines(response.body)) {
        if (line.trim()) yield parse(line);
      }
    } catch (error) {
      if (error.name === 'AbortError' || error instanceof api.NotImagine) throw error;
      throw new api.ConnectionLost('The connection was lost.');
    }
  }

  /**
   * Make a picture. `onEvent` is called for every line but the last, which is returned.
   * Aborting `signal` closes the connection, which frees the server at its next step.
   */
  async function make(path, body, { signal, onEvent }) {
    const response = await api.send(path, { body: { ...body, progress: true }, signal });
    for await (const event of events(response)) {
      if (event.error) throw new api.ServerError(response.status, event.error);
      if (event.status === 'final' || (event.img && !event.status)) return event;
      onEvent(event);
    }
    throw new api.ConnectionLost('The connection ended before the picture was finished.');
  }

  const generate = (body, options) => make('/generate', body, options);
  const upscale = (body, options) => make('/upscale', body, options);

  Imagine.stream = { generate, upscale };
}
