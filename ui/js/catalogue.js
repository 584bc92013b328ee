// The server's choices: models, samplers, enhancers, limits, and whether it is ready.
'use strict';

{
  const { api } = Imagine;
  const SLOW = 15000; // milliseconds between checks of a server that is ready
  const FAST = 3000; // and of one that is not, or that is unreachable

  const catalogue = {
    models: [],
    samplers: [],
    enhancers: [],
    vaes: [],
    limits: {},
    /** The server's version, and its device once it is known. */
    version: null,
    device: null,
    /** The model of requests that name none; null if there is none. */
    defaultModel: null,
    /** Why there is no enhancer, in words; null if there is one. */
    noEnhancer: 'The server has not answered yet.',
    state: 'unknown',
  };

  const isName = (value) => typeof value === 'string' && value !== '';

  /** Objects with names, from a list of names, of objects, or of names beside their details. */
  function named(list, details) {
    const all = [list, details].flatMap((some) => (Array.isArray(some) ? some : []));
    const known = new Map();
    for (const item of all) {
      const name = isName(item) ? item : item?.name;
      if (isName(name))
        known.set(name, { ...known.get(name), ...(isName(item) ? {} : item), name });
    }
    return [...known.values()];
  }

  const isSize = (value) =>
    Array.isArray(value) && value.length === 2 && value.every((side) => side > 0);

  async function readModels() {
    const { models, details, limits, default: byDefault } = await api.json('/models');
    catalogue.models = named(models, details).map((model) => ({
      ...model,
      bytes: model.size,
      best: isSize(model.recommended_size) ? model.recommended_size : null,
    }));
    catalogue.limits = { ...limits };
    catalogue.defaultModel = isName(byDefault) ? byDefault : null;
    const some = catalogue.models.some((model) => takes(model, 'vae'));
    catalogue.vaes = some ? await readKind('vae') : [];
  }

  const takes = (model, kind) => [model.takes].flat().includes(kind);

  /** The server's files of a kind that changes models: "lora", "embedding", "vae". */
  async function readKind(kind) {
    const { models, details } = await api.json(`/models?kind=${kind}`);
    return named(models, details);
  }

  const OWN_SIZES = 'sd'; // a model of this family looks at what it is given itself
  const FAMILIES = {
    sd: '',
    unknown: '',
    sd1: 'Stable Diffusion 1',
    sd2: 'Stable Diffusion 2',
    sdxl: 'SDXL',
  };
  const familyText = (family) => FAMILIES[family] ?? family;

  /** Why a file of `readKind` is not for `model`, in words; null if it is, or if that is unknown. */
  function misfit({ kind, problem, fits }, model) {
    if (problem || !model) return problem ?? null;
    if (!takes(model, kind)) return `${model.name} takes none.`;
    const families = [fits ?? []].flat();
    const family = String(model.family).replace(/-inpaint$/, '');
    if (!families.length || [...families, OWN_SIZES].includes(family)) return null;
    const those = families.map(familyText).join(' and ');
    return `For ${those}; ${model.name} is ${familyText(model.family)}.`;
  }

  async function readVersion() {
    catalogue.version = (await api.json('/version')).version;
  }

  /** What the server lists at `/name`. */
  async function read(name) {
    const { [name]: names, details } = await api.json(`/${name}`);
    return named(names, details);
  }

  async function readSamplers() {
    catalogue.samplers = await read('samplers');
  }

  async function readEnhancers() {
    catalogue.enhancers = await read('enhancers');
    const usable = catalogue.enhancers.some(({ problem }) => !problem);
    const none = catalogue.enhancers[0]?.problem ?? 'This server has no prompt enhancer.';
    catalogue.noEnhancer = usable ? null : none;
  }

  /** Ask the server for everything it offers; throws as `api.json` does. */
  async function refresh() {
    await Promise.all([readVersion(), readModels(), readSamplers(), readEnhancers()]);
  }

  async function look() {
    try {
      const { status, ready, message, device } = await api.json('/health');
      catalogue.device = device;
      if (status === 'failed' || status === 'stalled') return { state: 'failing', message };
      if (status === 'stopping') return { state: 'stopping' };
      return { state: ready === false ? 'loading' : 'ready' };
    } catch (error) {
      if (error instanceof api.ServerError && error.status === 401) return { state: 'locked' };
      return {
        state: error instanceof api.ServerError ? 'failing' : 'away',
        message: error.message,
      };
    }
  }

  /**
   * Poll the server; `onChange(state, previous, message)` is called for each new state.
   * @returns {function(): Promise} polls at once.
   */
  function watch(onChange) {
    let timer;
    async function again() {
      clearTimeout(timer);
      const previous = catalogue.state;
      const { state, message } = await look();
      catalogue.state = state;
      if (state !== previous) await onChange(state, previous, message);
      clearTimeout(timer);
      if (!document.hidden) timer = setTimeout(again, state === 'ready' ? SLOW : FAST);
    }
    document.addEventListener('visibilitychange', () => document.hidden || again());
    return () => {
      catalogue.state = 'unknown';
      return again();
    };
  }

  Imagine.catalogue = Object.assign(catalogue, { refresh, watch, read, readKind, misfit, familyText });
}
