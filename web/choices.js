// Draws what can be done about a run: answer the question that it waits with, and act on one of its
// candidates. DOM only, and importing it does nothing. It knows the view (run_state.js) and not
// what an answer or an action does; the panel (beam_panel.js) gives it two places and a word when
// something changed. A saved report has none of this.

const TICK_MS = 250;

// options: ask(view, now) -> sentence; now() -> the server's seconds;
// answer(run, chunk, candidates) -> promise of whether the question is settled by it or before;
// actionsFor(view, at) -> [{ label, title, act }] for the candidate at {chunk, candidate}, or null
// where there are never any.
// -> { bar, actions, pointAt, update(view, at), destroy() }; `pointAt` is for the panel to set
export function createChoices(options) {
  return new Choices(options);
}

class Choices {
  constructor(options) {
    this.options = options;
    this.pointAt = () => {}; // a candidate that a button stands for; null: none
    this.view = null;
    this.asked = null; // names the question that is drawn
    this.settled = null; // of the one that needs no answer any more
    this.marked = []; // candidates to go on with the one that is pressed, best first
    this.drawn = "";
    this.timer = null;
    this.words = element("span", "ask");
    this.buttons = element("div", "keep");
    this.bar = element("div", "question", this.words, this.buttons);
    this.actions = element("div", "actions");
    this.bar.hidden = this.actions.hidden = true;
    this.buttons.addEventListener("pointerleave", () => this.pointAt(null));
    this.buttons.addEventListener("focusout", () => this.pointAt(null));
  }

  destroy() {
    clearInterval(this.timer);
  }

  update(view, at) {
    this.view = view;
    const { question } = view;
    const asked = question && `${view.id} ${question.chunk} ${question.until}`;
    if (asked !== this.asked) {
      this.asked = asked;
      this.marked = [];
      clearInterval(this.timer);
      this.timer = asked && setInterval(() => this.tick(), TICK_MS);
      this.bar.hidden = !asked;
      if (asked) this.build();
    }
    this.tick();
    this.updateActions(at);
  }

  build() {
    const { most, open } = this.view.question;
    const more = `Shift: mark it, and go on with all that are marked, up to ${most}, best first`;
    this.buttons.replaceChildren(
      ...open.map((candidate) => {
        const keep = button(`Keep ${candidate + 1}`);
        keep.dataset.candidate = candidate;
        keep.title = most > 1 ? `Go on with this one alone. ${more}` : "Go on with this one";
        const point = () => this.pointAt({ chunk: this.view.question.chunk, candidate });
        keep.addEventListener("pointerenter", point);
        keep.addEventListener("focus", point);
        keep.addEventListener("click", ({ shiftKey }) => this.press(candidate, shiftKey));
        return keep;
      }),
    );
    this.showMarks();
  }

  // A candidate alone, or the last of several: the earlier ones were pressed with Shift.
  press(candidate, shift) {
    const { most } = this.view.question;
    const rest = this.marked.filter((other) => other !== candidate);
    if (!shift) {
      const last = this.marked.includes(candidate) ? [] : [candidate];
      this.send([...this.marked.slice(0, most - last.length), ...last]);
      return;
    }
    if (rest.length === this.marked.length && rest.length < most) rest.push(candidate);
    this.marked = rest;
    this.showMarks();
  }

  showMarks() {
    for (const keep of this.buttons.children) {
      const place = this.marked.indexOf(Number(keep.dataset.candidate));
      const name = `Keep ${Number(keep.dataset.candidate) + 1}`;
      keep.textContent = place < 0 ? name : `${name} (no. ${place + 1})`;
      keep.setAttribute("aria-pressed", place >= 0);
    }
  }

  async send(candidates) {
    const { asked } = this;
    const { id, question } = this.view;
    this.settled = asked; // until the server says otherwise
    this.tick();
    const settled = await this.options.answer(id, question.chunk, candidates);
    if (!settled && this.settled === asked) this.settled = null;
    this.tick();
  }

  // The seconds that are left go by without a message.
  tick() {
    const { view, asked } = this;
    if (!asked) return;
    const now = this.options.now();
    const settled = this.settled === asked;
    const words = settled
      ? `Chunk ${view.question.chunk + 1} is decided: going on`
      : this.options.ask(view, now);
    if (this.words.textContent !== words) this.words.textContent = words;
    this.buttons.hidden = settled || now >= view.question.until;
  }

  updateActions(at) {
    const actions = this.options.actionsFor(this.view, at);
    this.actions.hidden = actions === null;
    const key = JSON.stringify([this.view.id, at, actions]);
    if (this.drawn === key) return;
    this.drawn = key;
    this.actions.replaceChildren(
      ...(actions ?? []).map(({ label, title, act }) => {
        const one = button(label);
        one.title = title;
        one.addEventListener("click", act);
        return one;
      }),
    );
  }
}

function element(tag, name, ...children) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
}

function button(text) {
  const made = element("button", "");
  made.type = "button";
  made.textContent = text;
  return made;
}
