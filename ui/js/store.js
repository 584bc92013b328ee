// The gallery's memory: IndexedDB, or this window's memory where the browser has none to give.
'use strict';

{
  const NAME = 'imagine';

  const done = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });

  /** Records (settings and thumbnail) lie apart from the pictures, so that listing stays quick. */
  function open() {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore('records', { keyPath: 'id' });
      request.result.createObjectStore('pictures', { keyPath: 'id' });
    };
    return done(request);
  }

  class Disk {
    constructor(database) {
      this.database = database;
    }

    #stores(mode) {
      const transaction = this.database.transaction(['records', 'pictures'], mode);
      const finished = new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = transaction.onerror = () => reject(transaction.error);
      });
      return {
        records: transaction.objectStore('records'),
        pictures: transaction.objectStore('pictures'),
        finished,
      };
    }

    async add(record, picture) {
      const { records, pictures, finished } = this.#stores('readwrite');
      records.put(record);
      pictures.put({ id: record.id, ...picture });
      await finished;
    }

    all() {
      return done(this.#stores('readonly').records.getAll());
    }

    picture(id) {
      return done(this.#stores('readonly').pictures.get(id));
    }

    async remove(ids) {
      const { records, pictures, finished } = this.#stores('readwrite');
      for (const id of ids) {
        records.delete(id);
        pictures.delete(id);
      }
      await finished;
    }
  }

  class Memory {
    #kept = new Map();

    async add(record, picture) {
      this.#kept.set(record.id, { record, picture: { id: record.id, ...picture } });
    }

    async all() {
      return [...this.#kept.values()].map(({ record }) => record);
    }

    async picture(id) {
      return this.#kept.get(id)?.picture;
    }

    async remove(ids) {
      for (const id of ids) this.#kept.delete(id);
    }
  }

  /** The store, and whether what it keeps outlives this window. */
  async function openStore() {
    try {
      return { store: new Disk(await open()), lasting: true };
    } catch {
      return { store: new Memory(), lasting: false };
    }
  }

  Imagine.store = { openStore };
}
