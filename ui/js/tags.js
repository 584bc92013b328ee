// Tags of LoRAs in a prompt, <lora:name:0.8>, as a list; imagine_core/lora_tags.py reads the same.
'use strict';

{
  const TAG = /<([\p{L}\p{N}_]+):([^>]+)>/gu;
  const KINDS = ['lora', 'lyco'];
  const LARGEST = 100; // of a weight
  const LAST = 10000; // step

  class NoTag extends Error {}

  function number(text, least = -LARGEST, most = LARGEST) {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
    if (!(value >= least && value <= most)) throw new NoTag(text);
    return value;
  }

  /** Weights of blocks: a list of numbers, or its name in capital letters. */
  const isList = (text) =>
    text.split(',').length > 2 ||
    (/^\p{L}/u.test(text) && text === text.toUpperCase() && text !== text.toLowerCase());

  /** The part of the steps that a fraction, or a number of a step, means. */
  function partOf(text, steps, otherwise) {
    if (text === undefined) return otherwise;
    const value = number(text.trim(), 0, LAST);
    return value < 1 ? value : Math.min(value / Math.max(steps, 1), 1);
  }

  /** The numbers of a tag in order, and what it names. */
  function split(items) {
    const named = new Map();
    const plain = [];
    for (const item of items) {
      const parts = item.split('=').map((part) => part.trim());
      if (parts.length === 2) named.set(...parts);
      else plain.push(item.trim());
    }
    return { named, plain };
  }

  function useOf(content, steps) {
    const [name, ...items] = content.split(':');
    const { named, plain } = split(items);
    let blocks = named.get('lbw') ?? named.get('w');
    if (blocks === undefined && plain.length > 1 && isList(plain[1])) [blocks] = plain.splice(1, 1);
    if (!name.trim()) throw new NoTag(content);
    const [first = 1, second] = plain.slice(0, 2).map((text) => number(text));
    const text_weight = named.has('te') ? number(named.get('te')) : first;
    const weight = named.has('unet') ? number(named.get('unet')) : (second ?? text_weight);
    let [from, to] = [named.get('start'), named.get('stop')];
    const [, begin, last] = /^(.*?)-(.*)$/s.exec(named.get('step') ?? '') ?? [];
    if (begin !== undefined) [from, to] = [begin, last];
    const [start, end] = [partOf(from, steps, 0), partOf(to, steps, 1)];
    return {
      name: name.trim(),
      weight,
      ...(text_weight === weight ? {} : { text_weight }),
      ...(start === 0 ? {} : { start }),
      ...(end === 1 ? {} : { end }),
      ...(blocks === undefined ? {} : { blocks }),
    };
  }

  /**
   * Take the tags out of a prompt for a picture of so many steps.
   * @returns {{prompt?: string, loras?: Array<Object>}} nothing where none is a LoRA's, or where one
   *   makes no sense.
   */
  function read(prompt, steps) {
    const loras = [];
    const end = prompt.lastIndexOf('>') + 1; // beyond it, looking for the end of a tag is quadratic
    try {
      const rest = prompt.slice(0, end).replace(TAG, (tag, kind, content) => {
        if (KINDS.includes(kind)) loras.push(useOf(content, steps));
        return '';
      });
      return loras.length ? { prompt: rest + prompt.slice(end), loras } : {};
    } catch (error) {
      if (error instanceof NoTag) return {};
      throw error;
    }
  }

  Imagine.tags = { read };
}
