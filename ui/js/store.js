// The gallery's storage: IndexedDB, reopened when lost, with its failures in words.
'use strict';

{
  const NAME = 'imagine';
  const TO_OPEN = 10000; // milliseconds for the browser to open the database
  const TO_ADD = 30000; // milliseconds for it to store a picture

  class StoreError extends Error {}

  const REASONS = {
    QuotaExceededError: "the browser's storage for this page is full",
    SecurityError: 'the browser allows this page no storage',
    NotFoundError: 'it is no longer in the storage of the browser',
    NotReadableError: 'the browser can no longer read it from its storage',
    AbortError: "the browser broke off its storage's work",
    TimeoutError: "the browser's storage does not answer",
  };

  /** A storage error with a reason in words; many of the browser's have none. */
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

  /** Records (settings and thumbnail) lie apart from the pictures to keep listing quick. */
  async function open() {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore('records', { keyPath: 'id' });
      request.result.createObjectStore('pictures', { keyPath: 'id' });
    };
    return done(request);
  }

  let database = null;
  let opening = null; // the promise, until the browser answers
  let silent = false; // the browser has not answered in time

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

  /** Run `work` on the two object stores; returns its result after the commit. */
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
      transaction.abort(); // keep all of it or nothing
      throw error;
    }
    await finished;
    return request?.result;
  }

  /** `transact` with an open database: reopens one that was lost unnoticed. */
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

  /** A copy in memory of a stored blob, which outlives the storage. */
  async function read(blob) {
    try {
      return blob && new Blob([await blob.arrayBuffer()], { type: blob.type });
    } catch (error) {
      throw inWords(error);
    }
  }

  /** Every method rejects with a `StoreError` in words if the storage fails. */
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
    /** A stored picture, {output, input, mask, hints}; `read` brings its blobs into memory. */
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
