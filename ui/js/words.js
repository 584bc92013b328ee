// Words in the prompts: trigger words and names of embeddings, put in and taken out again.
'use strict';

{
  const LETTER = '[\\p{L}\\p{N}_]';
  const letter = new RegExp(LETTER, 'u');
  const escaped = (word) => word.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');

  /** Matches a word that stands alone, or in brackets with a weight. */
  const pattern = (word) =>
    new RegExp(
      `\\(${escaped(word)}(:[\\d.]+)?\\)|(?<!${LETTER})${escaped(word)}(?!${LETTER})`,
      'iu',
    );

  const has = (field, word) => pattern(word).test(field.value);

  function write(field, before, after) {
    field.value = before + after;
    field.setSelectionRange(before.length, before.length);
    field.dispatchEvent(new Event('input', { bubbles: true }));
  }

  /** Put a word in at the caret, between commas; never into the middle of a word. */
  function insert(field, word) {
    const text = field.value;
    let at = field.selectionEnd;
    while (letter.test(text[at - 1] ?? '') && letter.test(text[at] ?? '')) at++;
    const before = text.slice(0, at).replace(/[ \t]+$/, '');
    const after = text.slice(at).replace(/^[ \t]+/, '');
    const lead = !before || /[\n(]$/.test(before) ? '' : before.endsWith(',') ? ' ' : ', ';
    const tail = !after || /^[,.\n):]/.test(after) ? '' : ', ';
    write(field, before + lead + word, tail + after);
  }

  /** Take a word out, with one of the commas beside it. */
  function remove(field, word) {
    const { index, 0: found } = pattern(word).exec(field.value);
    const before = field.value.slice(0, index).replace(/[ \t]+$/, '');
    const after = field.value.slice(index + found.length);
    if (before.endsWith(',')) return write(field, before.slice(0, -1), after);
    const rest = after.replace(/^[ \t]*,?[ \t]*/, '');
    const blank = /[^\n]$/.test(before) && /^[^\n]/.test(rest) ? ' ' : '';
    return write(field, before, blank + rest);
  }

  const toggle = (field, word) => (has(field, word) ? remove : insert)(field, word);

  Imagine.words = { has, toggle };
}
