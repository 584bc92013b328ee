// The progress of a run of one or more pictures: steps, time left and place in the queue.
'use strict';

{
  const { byId, say, secondsText } = Imagine.dom;

  const PHASES = {
    sending: 'Sending',
    queued: 'Waiting',
    loading: 'Loading the model',
    encoding: 'Reading the prompt',
    denoising: 'Drawing',
    decoding: 'Finishing',
    enlarging: 'Enlarging',
  };

  /** Computes the progress of `count` pictures from the server's events. */
  class Progress {
    #pictures;
    #firstStep = null;
    #stepsAtFirst = 0;

    constructor(count, steps) {
      this.#pictures = Array.from({ length: count }, () => ({ phase: 'sending', step: 0, steps }));
    }

    /** Take an event of picture `index`; a line of the wire, or of `GET /jobs/ID`. */
    take(index, { status, step, steps, position, wait, fraction }, now = performance.now()) {
      const picture = this.#pictures[index];
      const phase = status === 'progress' || status === 'intermediate' ? 'denoising' : status;
      Object.assign(picture, { phase, position, fraction, turn: now + wait * 1000 });
      if (step !== undefined) Object.assign(picture, { step, steps });
      if (status === 'final') picture.step = picture.steps;
      if (step !== undefined && this.#firstStep === null) {
        this.#firstStep = now;
        this.#stepsAtFirst = this.#sum('step');
      }
    }

    #sum(key) {
      return this.#pictures.reduce((sum, picture) => sum + picture[key], 0);
    }

    /** Whether the server has accepted a request. */
    get begun() {
      return this.#pictures.some(({ phase }) => phase !== 'sending');
    }

    /** The finished share, 0..1. */
    get fraction() {
      return Math.min(1, this.#sum('step') / Math.max(1, this.#sum('steps')));
    }

    fractionOf(index) {
      const { step, steps } = this.#pictures[index];
      return Math.min(1, step / Math.max(1, steps));
    }

    /** Seconds left at the pace since the first step, or null before it. */
    secondsLeft(now = performance.now()) {
      const done = this.#sum('step') - this.#stepsAtFirst;
      if (done <= 0) return null;
      const pace = (now - this.#firstStep) / done;
      return (pace * (this.#sum('steps') - this.#sum('step'))) / 1000;
    }

    /** The picture whose progress is shown: one being drawn, else the next in line. */
    get #speaker() {
      const open = this.#pictures.filter(({ phase }) => phase !== 'final');
      const order = ['denoising', 'enlarging', 'decoding', 'encoding', 'loading', 'queued', 'sending'];
      return open.sort((a, b) => order.indexOf(a.phase) - order.indexOf(b.phase))[0] ?? null;
    }

    #phaseText({ phase, step, steps, position, fraction, turn }, now) {
      if (phase === 'denoising' && step) return `Step ${step} of ${steps}`;
      if (phase === 'loading' && fraction > 0) {
        return `${PHASES.loading}, ${Math.floor(fraction * 100)}%`;
      }
      if (phase !== 'queued') return PHASES[phase] ?? phase;
      const ahead = position > 0 ? `, ${position} ahead in the queue` : '';
      const wait = turn > now ? `, about ${secondsText((turn - now) / 1000)} to go` : '';
      return PHASES.queued + ahead + wait;
    }

    /** One line for people. */
    text(now = performance.now()) {
      const speaker = this.#speaker;
      if (!speaker) return '';
      const parts = [this.#phaseText(speaker, now)];
      if (this.#pictures.length > 1) {
        const finished = this.#pictures.filter(({ phase }) => phase === 'final').length;
        parts.unshift(`${finished} of ${this.#pictures.length} finished`);
      }
      const left = this.secondsLeft(now);
      if (left !== null) parts.push(`about ${secondsText(left)} left`);
      return parts.join(' · ');
    }
  }

  let announced = null;

  /** Show `progress`; a screen reader hears only new phases and quarters. */
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

  function hide() {
    byId('progress').hidden = true;
    say(byId('saying'), '');
    say(byId('announce'), '');
    document.title = 'Imagine';
    announced = null;
  }

  Imagine.progress = { Progress, show, hide };
}
