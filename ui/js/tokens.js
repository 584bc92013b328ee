// Estimates the tokens of a prompt: CLIP's own vocabulary is larger than this whole page.
'use strict';

{
  const { byId, say } = Imagine.dom;
  const CHUNK = 75; // tokens that Stable Diffusion's text encoders read at once
  const WORD = 10; // letters that CLIP's vocabulary usually holds as one token
  const PIECE = 4; // letters of a typical token in any other word

  function wordTokens(word) {
    if (/[^\p{Script=Latin}]/u.test(word)) return Math.ceil(word.length * 1.5);
    return word.length <= WORD ? 1 : 1 + Math.ceil((word.length - WORD) / PIECE);
  }

  /** An estimate; CLIP takes digits one by one, and runs of signs together. */
  function estimate(prompt) {
    const read = prompt.replace(/<\w+:[^>]+>/g, ''); // the server takes tags of LoRAs out
    const plain = read.replace(/:\s*\d+(\.\d+)?\s*\)/g, ')').replace(/[()\\]|\bBREAK\b/g, ' ');
    const pieces = plain.match(/\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu) ?? [];
    return pieces.reduce((sum, piece) => sum + (/^\p{L}/u.test(piece) ? wordTokens(piece) : 1), 0);
  }

  /** Show the count; in chunks if the model reads them. */
  function show(inChunks) {
    const count = estimate(byId('prompt').value);
    const chunks = Math.ceil(count / CHUNK);
    const more = chunks > 1 ? ` in ${chunks} chunks of ${CHUNK}` : ` of ${CHUNK}`;
    say(byId('tokens'), count ? `≈ ${count}${inChunks ? more : ''} tokens` : '');
  }

  Imagine.tokens = { show };
}
