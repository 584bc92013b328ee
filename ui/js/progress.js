// How far a run is: steps, time left and place in the queue, of one picture or of many.
'use strict';

(() => {
  const { byId, say, secondsText } = Imagine.dom;

  const PHASES = {
    sending: 'Sending',
    queued: 'Waiting',
    loading: 'Loading the model',
    encoding: 'Reading the prompt',
    denoising: 'Drawing',
    decoding: 'Finishing',
  };

  /** Follows the events of `count` pictures; what it says is made of what the server sent. */
  class Progress {
    #pictures;
    #firstStep = null;
    #stepsAtFirst = 0;

    constructor(count, steps) {
      this.#pictures = Array.from({ length: count }, () => ({ phase: 'sending', step: 0, steps }));
    }

    /** Take an event of picture `index`; the wire's names of phases, or "final", "failed". */
    take(index, { status, step, steps, position }, now = performance.now()) {
      const picture = this.#pictures[index];
      if (step !== undefined) Object.assign(picture, { step, steps, phase: 'denoising' });
      else Object.assign(picture, { phase: status, position });
      if (status === 'final') picture.step = picture.steps;
      if (step !== undefined && this.#firstStep === null) {
        this.#firstStep = now;
        this.#stepsAtFirst = this.#sum('step');
      }
    }

    #sum(key) {
      return this.#pictures.reduce((sum, picture) => sum + picture[key], 0);
    }

    #count(...phases) {
      return this.#pictures.filter(({ phase }) => phases.includes(phase)).length;
    }

    /** Whether the server has taken anything on. */
    get begun() {
      return this.#pictures.some(({ phase }) => phase !== 'sending');
    }

    /** The share that is done, 0..1. */
    get fraction() {
      return Math.min(1, this.#sum('step') / Math.max(1, this.#sum('steps')));
    }

    fractionOf(index) {
      const { step, steps } = this.#pictures[index];
      return Math.min(1, step / Math.max(1, steps));
    }

    /** Seconds left by the pace since the first step, or null before there is a pace. */
    secondsLeft(now = performance.now()) {
      const done = this.#sum('step') - this.#stepsAtFirst;
      if (done <= 0) return null;
      const pace = (now - this.#firstStep) / done;
      return (pace * (this.#sum('steps') - this.#sum('step'))) / 1000;
    }

    /** The picture that says most about the run: one being drawn, else the next in line. */
    get #speaker() {
      const open = this.#pictures.filter(({ phase }) => phase !== 'final' && phase !== 'failed');
      const order = ['denoising', 'decoding', 'encoding', 'loading', 'queued', 'sending'];
      return open.sort((a, b) => order.indexOf(a.phase) - order.indexOf(b.phase))[0] ?? null;
    }

    #phaseText({ phase, step, steps, position }) {
      if (phase === 'denoising' && step) return `Step ${step} of ${steps}`;
      if (phase === 'queued' && position > 0) return `Waiting, ${position} ahead in the queue`;
      return PHASES[phase] ?? phase;
    }

    /** One line for people. */
    text(now = performance.now()) {
      const speaker = this.#speaker;
      if (!speaker) return '';
      const parts = [this.#phaseText(speaker)];
      if (this.#pictures.length > 1) {
        parts.unshift(`${this.#count('final')} of ${this.#pictures.length} finished`);
      }
      const left = this.secondsLeft(now);
      if (left !== null) parts.push(`about ${secondsText(left)} left`);
      return parts.join(' · ');
    }
  }

  let announced = null;

  /** Show `progress`; to a screen reader only new phases and quarters are told. */
  function show(progress) {
    const bar = byId('progress');
    const percent = Math.round(progress.fraction * 100);
    const text = progress.text();
    bar.hidden = false;
    bar.setAttribute('aria-valuenow', percent);
    bar.setAttribute('aria-valuetext', text);
    bar.firstElementChild.style.transform = `scaleX(${progress.fraction})`;
    say(byId('saying'), text);
    document.title = `${percent}% · Imagine`;
    const news = percent ? `${Math.floor(percent / 25) * 25}%` : text;
    if (news !== announced) say(byId('announce'), percent ? `${news} done. ${text}` : text);
    announced = news;
  }

  function hide(lastWord = '') {
    byId('progress').hidden = true;
    say(byId('saying'), '');
    say(byId('announce'), lastWord);
    document.title = 'Imagine';
    announced = null;
  }

  Imagine.progress = { Progress, show, hide };
})();
