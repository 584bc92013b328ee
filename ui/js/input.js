// The input picture of img2img: chosen, dropped or pasted, shown, removed; and its mask.
'use strict';

{
  const { byId, say, bytesText } = Imagine.dom;
  const { bytesOf, decodedImage } = Imagine.bytes;
  const { tell, settle } = Imagine.messages;

  let current = null;
  let mask = null; // what of it is repainted, as a picture; null: all of it
  let onChange = () => {};
  let onTake = () => {};

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
    settle('picture');
    show(image);
    onTake(image);
    onChange();
  }

  function clear() {
    current = mask = null;
    byId('input-file').value = '';
    show(null);
    onTake(null);
    onChange();
  }

  function setMask(blob) {
    mask = blob;
    if (blob) settle('picture');
    onChange();
  }

  /** Tell the user that the browser cannot read a picture. */
  const refuse = ({ name }) =>
    tell('bad', `${name || 'This'} is not a picture that the browser can read.`, [], 'picture');

  /** @param {{changed, taken}} of `taken(image)` is called for another picture; null: none. */
  function build({ changed, taken }) {
    [onChange, onTake] = [changed, taken];
    byId('input-remove').onclick = () => {
      clear();
      byId('input-file').focus();
    };
    byId('input-file').onchange = async ({ target }) => {
      const [file] = target.files;
      target.value = ''; // so that the same file can be chosen again
      if (file) await set(file).catch(() => refuse(file));
    };
  }

  Imagine.input = { build, set, clear, setMask, refuse, get: () => current, mask: () => mask };
}
