// Files to and from the disk: settings saved and loaded, pictures downloaded.
'use strict';

{
  const { byId, make } = Imagine.dom;
  const { form, gallery, input, messages, parts, settings } = Imagine;
  const { tell } = messages;

  function download(blob, name) {
    const href = URL.createObjectURL(blob);
    make('a', { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60000);
  }

  /** A file name from the time, as `imagine run` makes them: 20231027_153045. */
  function stamp(time = new Date()) {
    const here = new Date(time - time.getTimezoneOffset() * 60000).toISOString();
    return here.slice(0, 19).replace(/[-:]/g, '').replace('T', '_');
  }

  /** Save the form, with the last picture if these settings made it. */
  async function saveSettings() {
    const record = Imagine.stage?.current ?? gallery.newest();
    const kept = record && (await gallery.picture(record).catch(() => null));
    const values = form.values();
    if (record && values.seed === null) values.seed = record.values.seed;
    download(
      await settings.toJson(values, { ...form.pictures(), output: kept?.output }),
      `${stamp()}.json`,
    );
    tell('good', 'Settings saved.');
  }

  /** Download a gallery picture as a PNG that carries its settings. */
  async function downloadPicture(record) {
    const { output, ...pictures } = await gallery.picture(record);
    const date = new Date(record.id);
    download(
      await settings.toPng(output, record.values, { ...pictures, date }),
      `${stamp(date)}.png`,
    );
  }

  /** Put the settings of a gallery picture back into the form. */
  async function restore(record) {
    await apply({ ...(await gallery.picture(record)), values: complete(record.values) });
    tell('good', 'Settings restored.');
  }

  async function apply({ values, input: start, mask, hints = [] }) {
    if (start) await input.set(start);
    else input.clear();
    form.fill({ ...values });
    if (values.controls) Imagine.controls.setPictures(hints);
    if (start && mask) await parts.call('repaint', 'takeMask', mask);
    byId('form').dispatchEvent(new Event('input', { bubbles: true }));
  }

  /** Take over a loaded settings file, and its picture into the gallery. */
  async function takeOver(name, { values, refused, output, ...pictures }) {
    messages.settle('file');
    await apply({ values, ...pictures });
    const record =
      output && (await gallery.add(output, { values: complete(values), ...pictures }));
    if (record) parts.call('shown', 'open', record);
    const but = refused.length
      ? ` Not taken over, because of its value: ${refused.join(', ')}.`
      : '';
    tell(refused.length ? 'warn' : 'good', `Loaded ${name}.${but}`);
  }

  const complete = (values) => ({ ...Imagine.parameters.defaults(), ...values });

  const isPicture = (file) =>
    file.type.startsWith('image/') || /\.(png|jpe?g|webp|gif|bmp)$/i.test(file.name);

  async function useAsInput(file) {
    try {
      await input.set(file);
      byId('input-well').scrollIntoView({ block: 'nearest' });
    } catch {
      input.refuse(file);
    }
  }

  /**
   * Take a file from outside: its settings if it has any, else, if it is a picture, as the input.
   * An invalid file changes nothing.
   */
  async function take(file) {
    let loaded;
    try {
      loaded = await settings.load(file);
    } catch (error) {
      const why = error instanceof settings.BadFile ? error.message : 'it cannot be read';
      return tell('bad', `${file.name} was not loaded: ${why}.`, [], 'file');
    }
    if (loaded) return takeOver(file.name, loaded);
    if (!isPicture(file)) {
      const text = `${file.name} was not loaded: it holds no settings.`;
      return tell('bad', text, [], 'file');
    }
    await useAsInput(file);
    return tell('info', `${file.name} holds no settings known here: it is the input picture now.`);
  }

  Imagine.files = { take, useAsInput, restore, downloadPicture, saveSettings };
}
