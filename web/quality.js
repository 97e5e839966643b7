// Draws the slider that moves a run's budget while it runs. DOM only, and importing it does nothing.
// It knows the view (run_state.js) and not how a move reaches the run; the panel (beam_panel.js) gives
// it a place and tells it when something changed. A saved report has none of this.

const TITLE =
  "How much a chunk may spend: 0 is one candidate, 1 all that Reward Pruner and Refiner allow. " +
  "The run follows over several chunks.";

// move(run, quality) -> promise of whether the run took it.
// -> { element, update(view) }
export function createQuality(move) {
  return new Quality(move);
}

class Quality {
  constructor(move) {
    this.move = move;
    this.view = null;
    this.wanted = null; // {run, value} that is on its way, or goes next
    this.input = document.createElement("input");
    Object.assign(this.input, { type: "range", min: 0, max: 1, step: 0.01, title: TITLE });
    this.value = span("value"); // not an output: the slider itself is read out
    this.hint = span("hint");
    const label = document.createElement("label");
    label.append("Quality", this.input);
    this.element = document.createElement("div");
    this.element.className = "quality";
    this.element.append(label, this.value, this.hint);
    this.element.hidden = true;
    this.input.addEventListener("input", () => this.tell());
    this.input.addEventListener("change", () => this.send());
  }

  update(view) {
    this.view = view;
    this.element.hidden = view.quality === null;
    if (view.quality === null) return;
    const sending = this.wanted?.run === view.id;
    const pressed = this.input.matches(":active"); // a hand is on it
    if (!sending && !pressed) this.input.value = view.quality.value;
    this.tell();
  }

  tell() {
    const from = this.view.quality?.from ?? null;
    this.input.disabled = from === null;
    const hint = from === null ? "the last chunk is being made" : `from chunk ${from + 1} on`;
    const value = Number(this.input.value).toFixed(2);
    if (this.hint.textContent !== hint) this.hint.textContent = hint;
    if (this.value.textContent !== value) this.value.textContent = value;
    this.input.setAttribute("aria-valuetext", `${value}, ${hint}`);
  }

  // One after the other, so that the last one counts; those that were overtaken are left out.
  async send() {
    const before = this.wanted;
    this.wanted = { run: this.view.id, value: Number(this.input.value) };
    if (before) return;
    let sent = null;
    let taken = false;
    while (sent !== this.wanted) {
      sent = this.wanted;
      taken = await this.move(sent.run, sent.value);
    }
    this.wanted = null;
    if (!taken) this.update(this.view); // back to where the run is
  }
}

function span(name) {
  const made = document.createElement("span");
  made.className = name;
  return made;
}
