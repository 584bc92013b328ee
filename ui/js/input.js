// The input picture of img2img: chosen, dropped or pasted, shown, removed; and its mask.
'use strict';

{
  const { byId, say, bytesText } = Imagine.dom;
  const { bytesOf, decodedImage } = Imagine.bytes;

  let current = null;
  let mask = null; // what of it is repainted, as a picture; null: all of it
  let onChange = () => {};

  function show(image) {
    const preview = byId('input-preview');
    URL.revokeObjectURL(preview.src);
    preview.hidden = byId('input-remove').hidden = !image;
    byId('input-well').classList.toggle('filled', Boolean(image));
    if (image) preview.src = image.src;
    else preview.removeAttribute('src');
    const size =
      image && `${image.naturalWidth} × ${image.naturalHeight}, ${bytesText(current.size)}`;
    say(byId('input-text'), size ?? 'Start from a picture: drop it here, paste it, or');
    byId('input-choose').firstChild.data = image ? 'Replace' : 'Choose a file';
  }

  /** Take a picture as the input; throws if the browser cannot read it. */
  async function set(blob) {
    const copy = new Blob([await bytesOf(blob)], { type: blob.type }); // the file may disappear
    const image = await decodedImage(copy);
    [current, mask] = [copy, null];
    show(image);
    onChange();
  }

  function clear() {
    current = mask = null;
    byId('input-file').value = '';
    show(null);
    onChange();
  }

  function setMask(blob) {
    mask = blob;
    onChange();
  }

  function build({ changed, refused }) {
    onChange = changed;
    byId('input-remove').onclick = () => {
      clear();
      byId('input-file').focus();
    };
    byId('input-file').onchange = async ({ target }) => {
      const [file] = target.files;
      target.value = ''; // so that the same file can be chosen again
      if (file) await set(file).catch(() => refused(file.name));
    };
  }

  Imagine.input = { build, set, clear, setMask, get: () => current, mask: () => mask };
}
