// The gallery's storage: IndexedDB, opened again where it was lost, and in words why it fails.
'use strict';

{
  const NAME = 'imagine';
  const TO_OPEN = 10000; // milliseconds that the browser has to open the database
  const TO_ADD = 30000; // milliseconds that it has to take a picture

  class StoreError extends Error {}

  const REASONS = {
    QuotaExceededError: "the browser's storage for this page is full",
    SecurityError: 'the browser allows this page no storage',
    NotFoundError: 'it is no longer in the storage of the browser',
    NotReadableError: 'the browser can no longer read it from its storage',
    AbortError: "the browser broke off its storage's work",
    TimeoutError: "the browser's storage does not answer",
  };

  /** Any error of the browser's storage as one that says why; many of the browser's are empty. */
  function inWords(error) {
    if (error instanceof StoreError) return error;
    const said = error?.message ? `: ${error.message}` : '';
    return new StoreError(REASONS[error?.name] ?? `the browser's storage failed${said}`);
  }

  const silence = () => new DOMException('', 'TimeoutError');
  const inTime = (promise, most) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(silence()), most);
      promise.then(resolve, reject).finally(() => clearTimeout(timer));
    });

  const done = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });

  /** Records (settings and thumbnail) lie apart from the pictures, so that listing stays quick. */
  async function open() {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore('records', { keyPath: 'id' });
      request.result.createObjectStore('pictures', { keyPath: 'id' });
    };
    return done(request);
  }

  let database = null;
  let opening = null; // while the browser has not answered
  let silent = false; // it has not, and it has had its time

  function adopt(opened) {
    const lost = () => database === opened && (database = null);
    opened.onclose = lost; // the user has cleared the data of this page
    opened.onversionchange = () => {
      opened.close(); // another window deletes it, and would wait for this one
      lost();
    };
    database = opened;
  }

  async function connect() {
    if (database) return;
    opening ??= open()
      .then(adopt)
      .finally(() => ([opening, silent] = [null, false]));
    if (silent) throw silence();
    try {
      await inTime(opening, TO_OPEN);
    } catch (error) {
      silent = error?.name === 'TimeoutError';
      throw error;
    }
  }

  /** What `work` asks of the two object stores, once the transaction is through. */
  async function transact(mode, work) {
    const transaction = database.transaction(['records', 'pictures'], mode);
    const finished = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error ?? new DOMException('', 'AbortError'));
    });
    const [records, pictures] = ['records', 'pictures'].map((name) => transaction.objectStore(name));
    let request;
    try {
      request = work(records, pictures);
    } catch (error) {
      finished.catch(() => {});
      transaction.abort(); // half of it must not stay
      throw error;
    }
    await finished;
    return request?.result;
  }

  /** `transact` with an open database: a connection that was lost unnoticed is made once more. */
  async function use(mode, work) {
    try {
      await connect();
      try {
        return await transact(mode, work);
      } catch (error) {
        if (error?.name !== 'InvalidStateError') throw error;
        database = null;
        await connect();
        return await transact(mode, work);
      }
    } catch (error) {
      throw inWords(error);
    }
  }

  /** A blob of the storage, in memory: what becomes of the storage no longer matters to it. */
  async function read(blob) {
    try {
      return blob && new Blob([await blob.arrayBuffer()], { type: blob.type });
    } catch (error) {
      throw inWords(error);
    }
  }

  /** Every method rejects with a `StoreError` in words where the storage fails. */
  Imagine.store = {
    StoreError,
    all: () => use('readonly', (records) => records.getAll()),
    async add(record, picture) {
      const added = use('readwrite', (records, pictures) => {
        records.put(record);
        pictures.put({ ...picture, id: record.id });
      });
      await inTime(added, TO_ADD).catch((error) => {
        throw inWords(error);
      });
    },
    /** A picture as it lies there, {output, input}; `read` brings its blobs into memory. */
    async picture(id) {
      const found = await use('readonly', (records, pictures) => pictures.get(id));
      if (!found) throw inWords({ name: 'NotFoundError' });
      return found;
    },
    read,
    remove: (ids) =>
      use('readwrite', (records, pictures) => {
        for (const id of ids) {
          records.delete(id);
          pictures.delete(id);
        }
      }),
  };
}
