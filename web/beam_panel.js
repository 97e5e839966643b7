// Draws a run: the tree of candidates, what each chunk cost and kept, its scores, and one
// candidate in words. DOM and SVG only, and importing it does nothing. It decides nothing about the
// run: `viewOf` and `explain` (run_state.js) are handed in, as they also are in the saved HTML
// report, where nothing can be imported; what can be done about a run is drawn by choices.js and
// quality.js.
//
// Only columns in sight are in the page, so it stays as small for 120 chunks as for 10. Text from
// prompts and files goes in as text, never as HTML.

export const PANEL_HEIGHT = 530; // pixels; stream_t1.css `min-height` says the same

// Pixels, unless said otherwise.
const GUTTER = 50; // names of the rows, left of the columns
const HEAD = 18;
const SPARE = 4;
const NARROW = 440; // less room leaves out what the cards say too
const CARD = { width: 109, mostWidth: 220, height: 43, mostHeight: 100, gap: 15, text: 66 };
const CARD_FOOT = { won: 15, memory: 18, cost: 14 };
const SMALL = { width: 15, mostWidth: 72, height: 10, mostHeight: 24 };
const EARLY = { cards: 14, overview: 11 }; // height of a row of those pruned early
const SMALL_FOOT = { won: 12, memory: 16, sinks: 11, cost: 14 };
const NUMBER_PITCH = 44; // a column this wide has room for a number in the overview
const LANE = { least: 16, roomy: 40, most: 72 }; // a roomy one shows its bounds
const OVERSCAN = 2; // columns drawn beyond each edge
const MOST_CARD_CHUNKS = 24;
const FRAME_MS = 150; // a picture of a playing filmstrip
const SVG = "http://www.w3.org/2000/svg";

const MARKS = { final: "★", alive: "●", kept: "○", pruned: "×", failed: "!", open: "?" };
const ROUTES = {
  sink: ["S", "first sink: stays"],
  drop: ["D", "drop"],
  blend: ["B", "blend into the newest sink"],
  append: ["A", "append as a new sink"],
};
const EMPTY =
  "When the sampler runs, the candidates of every chunk appear here with their scores and who " +
  "won; a saved report can be opened too.";

// options: viewOf, explain; stripUrl(runId, chunk, candidate) -> URL or null (filmstrips);
// onOpenReport(text) when a report file was chosen (without it there is no button); choices: of
// choices.js, and quality: of quality.js, where something can be done about the run.
// -> { element, draw(run), setRuns(runs, current, onChange), destroy() }
export function createPanel(options) {
  const panel = new BeamPanel(options);
  return {
    element: panel.element,
    draw: (run) => panel.draw(run),
    setRuns: (runs, current, onChange) => panel.setRuns(runs, current, onChange),
    destroy: () => panel.destroy(),
  };
}

class BeamPanel {
  constructor(options) {
    const { viewOf, explain, stripUrl = () => null, videoUrl = null, choices = null } = options;
    const { quality = null, onOpenReport = null } = options;
    Object.assign(this, { viewOf, explain, stripUrl, videoUrl, choices, quality });
    this.view = null;
    this.columns = new Map(); // chunk -> what is in the page of it
    this.drawn = {}; // what the header, the frame and the words show
    this.marked = {}; // elements that stand out: the tab stop, the active one, the pinned one
    this.size = { width: 0, height: 0, film: 0 }; // of the scrolling part, and of the filmstrip
    this.scroll = 0;
    this.follow = true; // keep the newest chunk in sight
    this.density = null; // "cards" or "overview" once chosen by hand
    this.aspect = null; // of one picture of a filmstrip, width / height
    this.measuring = null; // URL of the filmstrip that will tell it
    this.missing = new Set(); // URLs of filmstrips that could not be had
    this.busy = false; // columns change: a focus that comes and goes with them is no choice
    this.hovered = this.focused = this.pinned = null; // {chunk, candidate}
    this.tabStop = null;
    this.frame = 0; // of what plays
    this.readOn = false; // the words were scrolled
    this.timer = null;
    this.nextFrame = null;
    this.reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
    this.build(onOpenReport);
    this.listen();
    this.render();
  }

  build(onOpenReport) {
    this.element = el("section", "stream-t1-panel");
    this.element.setAttribute("aria-label", "Stream-T1 search");
    this.status = el("strong", "status");
    this.status.setAttribute("role", "status");
    this.runs = el("select", "runs");
    this.runs.setAttribute("aria-label", "Run");
    this.runs.hidden = true;
    this.toggle = button("", () => this.switchDensity());
    this.video = el("a", "video");
    Object.assign(this.video, { target: "_blank", textContent: "Open video", hidden: true });
    const tools = el("div", "tools", this.runs, this.toggle);
    if (this.videoUrl) this.toggle.before(this.video); // a saved page links to nothing
    if (onOpenReport) tools.append(...openButton(onOpenReport));
    this.facts = el("div", "facts");
    this.spent = el("div", "spent");
    this.prompt = el("div", "prompt");
    this.warning = el("div", "warning");
    this.empty = el("p", "empty");
    this.empty.textContent = EMPTY;
    this.scroller = el("div", "scroller");
    this.stage = el("div", "stage");
    this.grid = el("div", "grid");
    this.grid.setAttribute("role", "grid");
    this.grid.setAttribute("aria-label", "Candidates: a row for each chunk");
    this.corner = el("div", "corner head");
    setText(this.corner, "chunk");
    this.heads = el("div", "heads");
    this.numbers = el("div", "numbers");
    this.names = el("div", "names");
    this.feet = el("div", "feet");
    this.chart = svg("svg", { class: "chart", role: "img" });
    this.feet.append(this.chart);
    this.stage.append(this.corner, this.heads, this.numbers, this.grid, this.names, this.feet);
    this.scroller.append(this.stage);
    this.film = el("div", "film");
    this.words = el("div", "lines");
    this.details = el("div", "details", this.film, el("div", "words", this.words));
    this.legend = legend();
    const top = el("div", "top", this.status, tools);
    this.element.append(
      el("header", "", top, this.facts, this.spent, this.prompt, this.warning),
      ...(this.quality ? [this.quality.element] : []),
      ...(this.choices ? [this.choices.bar] : []),
      this.empty,
      this.scroller,
      this.details,
      ...(this.choices ? [this.choices.actions] : []),
      this.legend,
    );
  }

  listen() {
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.scroller);
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    const words = this.words.parentElement;
    words.addEventListener("scroll", () => (this.readOn = true), { passive: true });
    for (const part of [this.scroller, words]) {
      part.addEventListener("wheel", (event) => keepWheel(event, part), { passive: false });
    }
    this.element.addEventListener("pointerdown", keepPress);
    const { grid } = this;
    grid.addEventListener("pointerover", (event) => this.hover(cellAt(event.target)));
    // Not when the grid is left: the way to the words leads over other parts of the panel.
    this.element.addEventListener("pointerleave", () => this.hover(null));
    grid.addEventListener("focusin", (event) => this.focus(cellAt(event.target)));
    grid.addEventListener("focusout", () => this.focus(null));
    grid.addEventListener("click", (event) => this.pin(cellAt(event.target)));
    grid.addEventListener("keydown", (event) => this.key(event));
    if (this.choices) this.choices.pointAt = (cell) => this.hover(cell);
  }

  destroy() {
    this.observer.disconnect();
    this.choices?.destroy();
    clearInterval(this.timer);
    cancelAnimationFrame(this.nextFrame);
    this.element.remove();
  }

  draw(run) {
    const before = this.view;
    this.view = this.viewOf(run);
    // A second report has the first one's id.
    const another = before?.id !== this.view.id || this.view.made < before.made;
    if (another) this.reset();
    this.render();
    const chunk = this.view.question?.chunk;
    const asked = chunk !== undefined && (another || chunk !== before.question?.chunk);
    if (asked && this.layout) this.bringIntoSight(chunk);
  }

  // Another run: nothing chosen in the last one holds.
  reset() {
    this.busy = true;
    for (const chunk of this.columns.keys()) this.dropColumn(chunk);
    this.busy = false;
    this.follow = this.view.state === "running";
    this.scroll = this.scroller.scrollLeft = 0;
    this.aspect = this.measuring = null;
    this.hovered = this.focused = this.pinned = this.tabStop = null;
  }

  setRuns(runs, current, onChange) {
    this.runs.onchange = () => onChange(this.runs.value);
    const key = JSON.stringify([runs, current]);
    if (this.drawn.runs === key) return; // an open list stays open
    this.drawn.runs = key;
    this.runs.replaceChildren(...runs.map(({ run, label }) => new Option(label, run)));
    this.runs.hidden = runs.length < 2;
    this.runs.value = current;
  }

  switchDensity() {
    this.density = this.layout.density === "cards" ? "overview" : "cards";
    this.render();
    if (this.pinned) this.bringIntoSight(this.pinned.chunk);
  }

  room() {
    const { clientWidth: width, clientHeight: height } = this.scroller;
    return { width, height, film: this.details.clientHeight - 12 }; // less its padding
  }

  resized() {
    const size = this.room();
    if (Object.keys(size).every((name) => size[name] === this.size[name])) return;
    this.size = size;
    this.element.classList.toggle("narrow", size.width < NARROW);
    this.render();
  }

  scrolled() {
    const { scrollLeft } = this.scroller;
    if (Math.abs(scrollLeft - this.scroll) < 1) return;
    this.scroll = scrollLeft;
    this.follow = scrollLeft >= this.newest() - this.layout.pitch;
    this.renderColumns();
  }

  // -- what is on the screen

  render() {
    const { view } = this;
    const some = view !== null && view.planned > 0;
    this.element.dataset.state = view?.state ?? "waiting";
    this.empty.hidden = some;
    for (const part of [this.facts, this.scroller, this.details, this.legend, this.toggle]) {
      part.hidden = !some;
    }
    setText(this.status, view?.status ?? "Waiting for a run");
    const file = view?.video && this.videoUrl?.(view.video);
    this.video.hidden = !file;
    if (file) this.video.href = file;
    setText(this.spent, view?.spent ?? "");
    setText(this.prompt, view?.prompt ?? "");
    this.prompt.title = view?.prompt ?? "";
    const warnings = (view?.warnings ?? []).map((words) => `${MARKS.failed} ${words}`).join(" ");
    setText(this.warning, warnings);
    this.warning.title = warnings;
    this.renderFacts();
    if (view) this.quality?.update(view);
    this.renderChoices();
    if (!some || !this.size.width) return; // without a size: resized() comes back
    this.layout = layoutFor(view, this.size, this.density);
    this.element.dataset.density = this.layout.density;
    setText(this.toggle, this.layout.density === "cards" ? "Overview" : "Cards");
    if (this.follow) this.scroll = this.newest();
    this.renderFrame();
    this.renderColumns();
    this.renderChart();
    this.renderDetails();
    if (this.follow) this.scrollSoon();
  }

  renderChoices() {
    if (this.view) this.choices?.update(this.view, this.current() ?? this.leading());
  }

  // With the next frame, which lays the page out anyway: at once it would be laid out twice.
  scrollSoon() {
    this.nextFrame ??= requestAnimationFrame(() => {
      this.nextFrame = null;
      if (this.follow) this.scroller.scrollLeft = this.scroll;
    });
  }

  // What the columns stand in: sizes, and the names of the rows.
  renderFrame() {
    const { layout, view } = this;
    const { pitch, gap, tree, row, lane } = layout;
    const bounds = view.lanes.map(({ name, lowText, highText }) => [name, lowText, highText]);
    const names = JSON.stringify([layout.foot, lane, bounds]);
    if (this.drawn.names !== names) {
      this.drawn.names = names;
      const rows = Object.entries(layout.foot).map(([name, height]) => label(name, height));
      this.names.replaceChildren(...rows, ...view.lanes.map((one) => laneName(one, lane)));
    }
    const key = JSON.stringify([layout, view.rows, view.early, view.planned, view.lanes.length]);
    if (this.drawn.frame === key) return;
    this.drawn.frame = key;
    const foot = sum(Object.values(layout.foot)) + lane * view.lanes.length;
    this.stage.style.gridTemplateRows = `${HEAD}px ${tree + SPARE}px ${foot}px`;
    this.stage.style.gridTemplateColumns = `${GUTTER}px ${view.planned * pitch}px`;
    this.stage.style.setProperty("--pitch", `${pitch}px`);
    this.stage.style.setProperty("--gap", `${gap}px`);
    this.stage.style.setProperty("--card", `${layout.card}px`);
    this.grid.setAttribute("aria-rowcount", view.planned);
    this.grid.setAttribute("aria-colcount", view.rows);
    const numbers = Array.from({ length: view.rows }, (_, index) => label(index + 1, row));
    if (view.early) numbers.push(label("early", layout.early * view.early));
    this.numbers.replaceChildren(...numbers);
  }

  renderFacts() {
    const { facts = [], weakest = null } = this.view ?? {};
    const key = JSON.stringify([facts, weakest]);
    if (this.drawn.facts === key) return;
    this.drawn.facts = key;
    this.facts.replaceChildren(...facts.map(factElement));
    if (!weakest) return;
    const go = button(`weakest: chunk ${weakest.chunk + 1}`, () => this.show(weakest.chunk));
    go.title = `Lowest ${weakest.score} score of the path: ${weakest.text}. Go there.`;
    go.className = "weakest";
    this.facts.children[0].after(go);
  }

  // Where the scroll stands with the newest chunk, and the next one, in sight.
  newest() {
    const { chunks, planned, state, question } = this.view;
    const next = state === "running" && !question ? 1 : 0;
    const shown = Math.min(planned, chunks.length + next);
    return Math.max(0, GUTTER + shown * this.layout.pitch - this.size.width);
  }

  show(chunk) {
    const candidate = this.view.path[chunk] ?? 0;
    this.pinned = this.tabStop = { chunk, candidate };
    this.bringIntoSight(chunk);
    this.renderColumns();
    this.renderDetails();
    this.renderChoices();
  }

  bringIntoSight(chunk) {
    const { pitch } = this.layout;
    const left = chunk * pitch;
    const right = GUTTER + left + pitch - this.size.width;
    const to = this.scroll > left ? left : this.scroll < right ? right : this.scroll;
    if (to === this.scroll) return;
    this.scroller.scrollLeft = to;
    this.scrolled();
  }

  renderColumns() {
    const { layout, view, size, columns } = this;
    const first = Math.floor(this.scroll / layout.pitch) - OVERSCAN;
    const last = Math.ceil((this.scroll + size.width - GUTTER) / layout.pitch) + OVERSCAN;
    const wanted = new Set();
    for (let chunk = Math.max(0, first); chunk <= Math.min(last, view.planned - 1); chunk++) {
      wanted.add(chunk);
    }
    for (const at of [this.entry(), this.focused]) if (this.exists(at)) wanted.add(at.chunk);
    this.busy = true;
    for (const chunk of columns.keys()) if (!wanted.has(chunk)) this.dropColumn(chunk);
    for (const chunk of wanted) this.renderColumn(chunk);
    this.busy = false;
    this.renderMarks();
    this.renderPlaying();
  }

  dropColumn(chunk) {
    const { head, root, foot } = this.columns.get(chunk);
    for (const part of [head, root, foot]) part.remove();
    this.columns.delete(chunk);
  }

  renderColumn(chunk) {
    const { layout, view, columns } = this;
    const data = view.chunks[chunk] ?? null;
    const cells = data?.cells ?? [];
    const { density, pitch, row } = layout;
    const shape = `${density} ${pitch} ${row} ${view.rows} ${cells.length} ${this.aspect}`;
    const kind = `${shape} ${this.ghost(chunk)}`;
    let column = columns.get(chunk);
    let focused = null;
    if (column?.kind !== kind || column.source !== data?.source) {
      focused = column?.root.contains(document.activeElement) ? this.focused : null;
      if (column) this.dropColumn(chunk);
      column = this.buildColumn(chunk, data, kind);
      columns.set(chunk, column);
      this.heads.append(column.head);
      this.grid.append(column.root);
      this.feet.append(column.foot);
    }
    const { seconds, kvBytes } = view.most;
    const states = [seconds, kvBytes, ...cells.map(({ state }) => state)].join();
    if (data && column.states !== states) {
      column.states = states;
      cells.forEach((cell, index) => this.paintCell(column.cells[index], cell, data));
      paintLinks(column.links, data, layout);
      paintFoot(column.foot, data, layout, view.most);
    }
    if (focused) column.cells[focused.candidate]?.root.focus({ preventScroll: true });
  }

  // Only what changed: a selection moves over thousands of cells.
  renderMarks() {
    const cellOf = (at) => (at && this.columns.get(at.chunk)?.cells[at.candidate]?.root) ?? null;
    const current = this.current();
    const column = (current && this.columns.get(current.chunk)?.root) ?? null;
    this.mark("column", column, (root, on) => root.classList.toggle("current", on));
    this.mark("active", cellOf(current), (root, on) => root.classList.toggle("active", on));
    this.mark("entry", cellOf(this.entry()), (root, on) => (root.tabIndex = on ? 0 : -1));
    this.mark("pinned", cellOf(this.pinned), (root, on) => root.setAttribute("aria-selected", on));
  }

  mark(name, element, set) {
    const before = this.marked[name];
    if (before === element) return;
    if (before) set(before, false);
    if (element) set(element, true);
    this.marked[name] = element;
  }

  // The chunk being made has empty places where its candidates will stand.
  ghost(chunk) {
    const { state, chunks, question } = this.view;
    return state === "running" && !question && chunk === chunks.length;
  }

  buildColumn(chunk, data, kind) {
    const { layout, view } = this;
    const root = el("div", "column");
    root.setAttribute("role", "row");
    root.setAttribute("aria-rowindex", chunk + 1);
    const prompt = data?.prompt ?? null;
    root.setAttribute("aria-label", `Chunk ${chunk + 1}${prompt === null ? "" : ", new prompt"}`);
    const every = [1, 2, 5, 10].find((step) => step * layout.pitch >= 28); // pixels for a number
    const numbered = (chunk + 1) % every === 0 || chunk === 0;
    const head = span(data ? "head" : "head unmade", numbered ? chunk + 1 : "");
    if (prompt !== null) {
      head.classList.add("prompted");
      head.title = `From chunk ${chunk + 1} on: ${prompt}`;
      setText(head, layout.density === "cards" ? `${chunk + 1} ¶ new prompt` : "¶");
    }
    const foot = el("div", "foot");
    for (const part of [head, root, foot]) part.style.left = `${chunk * layout.pitch}px`;
    const links = svg("svg", { class: "links", width: layout.gap, height: layout.tree });
    const cells = (data?.cells ?? []).map((cell) => this.buildCell(cell));
    const early = (data?.early ?? []).map((cell, index) => earlyCell(cell, index, layout));
    root.append(links, ...cells.map((cell) => cell.root), ...early);
    if (this.ghost(chunk)) {
      for (let row = 0; row < view.rows; row++) root.append(placed("ghost", row, layout));
    }
    return { head, root, foot, kind, source: data?.source, states: null, cells, links };
  }

  buildCell(cell) {
    const { layout } = this;
    const root = placed("cell", cell.candidate, layout);
    root.setAttribute("role", "gridcell");
    root.setAttribute("aria-colindex", cell.candidate + 1);
    root.dataset.chunk = cell.chunk;
    root.dataset.candidate = cell.candidate;
    root.setAttribute("aria-selected", "false");
    root.tabIndex = -1;
    if (layout.density !== "cards" || !cell.strip) return { root, film: null, state: null };
    const film = el("div", "film");
    film.style.width = `${layout.thumb}px`;
    this.setFilm(film, cell, { width: layout.thumb, height: layout.card });
    return { root, film, state: null };
  }

  paintCell(parts, cell, chunk) {
    if (parts.state === cell.state) return;
    parts.state = cell.state;
    const { layout } = this;
    const { root, film } = parts;
    const active = root === this.marked.active ? " active" : "";
    const kind = `${cell.rank === 0 ? " winner" : ""}${film ? " filmed" : ""}${active}`;
    root.className = `cell ${cell.state}${kind}`;
    root.setAttribute("aria-label", spoken(cell, chunk));
    const fused = cell.fused === null ? "–" : shown(cell.fused, chunk.decimals.fused);
    const mark = MARKS[cell.state];
    if (layout.density === "overview") {
      setText(root, smallText(cell, mark, fused, layout));
      return;
    }
    const scores = el("div", "scores", span("fused", cell.failure ? "failed" : fused));
    for (const name of ["short", "long"]) {
      if (cell[name] === null || cell.failure) continue;
      scores.append(span("single", `${name} ${shown(cell[name], chunk.decimals[name])}`));
    }
    root.replaceChildren(...(film ? [film] : []), span("mark", mark), scores);
    if (cell.placeText) root.append(span("place", cell.placeText));
  }

  renderChart() {
    const { view, layout, chart } = this;
    const width = view.planned * layout.pitch;
    const height = layout.lane * view.lanes.length;
    setAttributes(chart, { width, height, viewBox: `0 0 ${width} ${height}` });
    chart.setAttribute("aria-label", chartWords(view));
    const shapes = view.lanes.flatMap((lane, index) =>
      drawLane(lane, index * layout.lane, layout, view.weakest),
    );
    chart.replaceChildren(...shapes);
  }

  renderDetails() {
    const { view } = this;
    const current = this.current() ?? this.leading();
    if (!current || !view.chunks[current.chunk]) {
      this.film.hidden = true;
      this.words.replaceChildren();
      return;
    }
    const cell = view.chunks[current.chunk].cells[current.candidate];
    const sentences = this.explain(view, current.chunk, current.candidate);
    if (same(current, this.pinned)) sentences[0] += " (Kept in view: Esc or a click frees it.)";
    const key = `${view.id} ${sentences.join(" ")}`;
    if (this.drawn.words !== key) {
      this.drawn.words = key;
      this.words.replaceChildren(
        ...sentences.map((sentence, index) => {
          const line = el("p", index ? "" : "first");
          setText(line, index ? sentence : `${MARKS[cell.state]} ${sentence}`);
          return line;
        }),
      );
      if (this.readOn) this.words.parentElement.scrollTop = 0;
      this.readOn = false;
    }
    this.film.hidden = !(cell.strip > 0 && this.aspect);
    if (cell.strip > 0) {
      const height = this.size.film;
      const width = Math.min(height * (this.aspect ?? 1), this.size.width * 0.3);
      Object.assign(this.film.style, { width: `${width}px`, height: `${height}px` });
      this.setFilm(this.film, cell, { width, height });
    }
    this.renderPlaying();
  }

  // -- filmstrips: one image, its pictures side by side, shown one at a time

  setFilm(film, cell, box) {
    const url = this.stripUrl(this.view.id, cell.chunk, cell.candidate);
    if (!url) return;
    if (!this.aspect) {
      this.measure(url, cell.strip);
      return;
    }
    const high = Math.max(box.height, box.width / this.aspect); // cover the box
    const wide = high * this.aspect;
    film.strip = { count: cell.strip, wide, left: (box.width - wide) / 2 };
    film.style.backgroundImage = `url(${JSON.stringify(url)})`;
    film.style.backgroundSize = `${wide * cell.strip}px ${high}px`;
    film.style.backgroundPositionY = `${(box.height - high) / 2}px`;
    showFrame(film, 0);
  }

  // The first filmstrip tells the shape of all pictures of the run.
  measure(url, count) {
    if (this.measuring || this.missing.has(url)) return;
    this.measuring = url;
    const image = new Image();
    const done = () => {
      if (this.measuring !== url) return; // another run by now
      this.measuring = null;
      if (image.naturalWidth) this.aspect = image.naturalWidth / count / image.naturalHeight;
      else this.missing.add(url);
      if (this.aspect) this.render();
    };
    image.onload = image.onerror = done;
    image.src = url;
  }

  // Plays what is hovered, focused or pinned; without motion wanted, only what is pinned.
  renderPlaying() {
    const current = this.reducedMotion.matches ? this.pinned : this.current();
    const cell = current && this.columns.get(current.chunk)?.cells[current.candidate];
    const films = current ? [cell?.film, this.film].filter((film) => film?.strip) : [];
    for (const film of this.playing ?? []) if (!films.includes(film)) showFrame(film, 0);
    this.playing = films;
    const idle = !films.length;
    if (idle === (this.timer === null)) return;
    clearInterval(this.timer);
    this.timer = idle ? null : setInterval(() => this.step(), FRAME_MS);
    this.frame = 0;
  }

  step() {
    this.frame += 1;
    for (const film of this.playing) showFrame(film, this.frame % film.strip.count);
  }

  // -- choosing a candidate

  // What the details tell about; null: nothing chosen.
  current() {
    return [this.pinned, this.hovered, this.focused].find((at) => this.exists(at)) ?? null;
  }

  // The leading candidate of the newest chunk; the score's, while that waits for a choice.
  leading() {
    const { question, path } = this.view;
    const chunk = this.view.chunks.length - 1;
    const candidate = (question ? question.favourite : path[chunk]) ?? null;
    return candidate === null ? null : { chunk, candidate };
  }

  // The cell that Tab comes to: the one focused last.
  entry() {
    return this.exists(this.tabStop) ? this.tabStop : this.leading();
  }

  exists(at) {
    return at !== null && this.view.chunks[at.chunk]?.cells[at.candidate] !== undefined;
  }

  choose(change) {
    change();
    if (this.busy) return;
    this.renderColumns();
    this.renderDetails();
    this.renderChoices();
  }

  hover(cell) {
    if (!same(cell, this.hovered)) this.choose(() => (this.hovered = cell));
  }

  focus(cell) {
    if (same(cell, this.focused)) return;
    this.choose(() => {
      this.focused = cell;
      if (cell) this.tabStop = cell;
    });
  }

  pin(cell) {
    this.choose(() => (this.pinned = same(cell, this.pinned) ? null : cell));
  }

  key(event) {
    const cell = cellAt(event.target);
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const { view } = this;
    const last = view.chunks.length - 1;
    const moves = {
      ArrowLeft: [cell.chunk - 1, cell.candidate],
      ArrowRight: [cell.chunk + 1, cell.candidate],
      ArrowUp: [cell.chunk, cell.candidate - 1],
      ArrowDown: [cell.chunk, cell.candidate + 1],
      Home: [0, cell.candidate],
      End: [last, cell.candidate],
    };
    if (moves[event.key]) this.moveTo(...moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.pin(cell);
    else if (event.key === "Escape" && this.pinned) this.pin(this.pinned);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  moveTo(chunk, candidate) {
    const cells = this.view.chunks[chunk]?.cells;
    if (!cells || candidate < 0) return;
    this.tabStop = { chunk, candidate: Math.min(candidate, cells.length - 1) };
    this.bringIntoSight(chunk);
    this.renderColumns();
    const { root } = this.columns.get(chunk).cells[this.tabStop.candidate];
    root.focus({ preventScroll: true });
    root.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

// Sizes in pixels for a view in a room: cards with pictures where they fit, or where one chooses
// by them, else small cells.
function layoutFor(view, room, chosen) {
  const cards = cardLayout(view, room);
  const short = view.planned <= MOST_CARD_CHUNKS && cards.tree <= cards.forTree;
  const fits = short || view.question;
  const overview = chosen === "overview" || (!fits && chosen !== "cards");
  return overview ? overviewLayout(view, room) : cards;
}

function cardLayout(view, room) {
  const { won, ...less } = CARD_FOOT;
  const foot = room.width < NARROW || view.rows === 1 ? less : CARD_FOOT;
  const wide = Math.max(1, room.width - GUTTER);
  const whole = Math.max(1, Math.floor(wide / CARD.width)); // columns, none of them cut off
  const pitch = clamp(wide / Math.min(view.planned, whole), CARD.width, CARD.mostWidth);
  const rows = rowLayout(view, room, foot, CARD.height, CARD.mostHeight, EARLY.cards);
  const card = rows.row - 5;
  const thumb = clamp(Math.round(pitch - CARD.gap - CARD.text), 28, Math.round(card * 1.8));
  return { density: "cards", ...rows, foot, pitch, gap: CARD.gap, card, thumb };
}

function overviewLayout(view, room) {
  const { won, ...less } = SMALL_FOOT;
  const foot = view.rows === 1 ? less : SMALL_FOOT;
  const pitch = clamp((room.width - GUTTER) / view.planned, SMALL.width, SMALL.mostWidth);
  const gap = Math.round(Math.min(12, pitch * 0.34));
  const rows = rowLayout(view, room, foot, SMALL.height, SMALL.mostHeight, EARLY.overview);
  const card = Math.min(rows.row - 2, Math.round(1.2 * (pitch - gap)));
  return { density: "overview", ...rows, foot, pitch, gap, card };
}

// Heights: of a row of the tree first, then what is left for the lanes of the chart.
function rowLayout({ rows, early: below, lanes }, room, foot, least, most, early) {
  const free = room.height - HEAD - sum(Object.values(foot)) - SPARE;
  const forTree = free - lanes.length * LANE.least;
  const row = clamp(Math.floor((forTree - below * early) / rows), least, most);
  const [begin, tree] = [row * rows, row * rows + below * early]; // of those pruned early; the end
  const lane = Math.floor((free - tree) / Math.max(1, lanes.length));
  return { row, early, begin, tree, forTree, lane: clamp(lane, LANE.least, LANE.most) };
}

function placed(name, row, { row: high, card, pitch, gap }) {
  const box = el("div", name);
  const top = row * high + (high - card) / 2;
  Object.assign(box.style, {
    top: `${top}px`,
    height: `${card}px`,
    width: `${pitch - gap}px`,
    left: `${gap}px`,
  });
  return box;
}

// One that was given up before it was done: small and faded, below those that were made.
function earlyCell({ text, scoreText, words }, index, { early, begin, pitch, gap, density }) {
  const number = pitch >= NUMBER_PITCH ? ` ${scoreText}` : "";
  const box = span("early", `${MARKS.pruned}${density === "cards" ? ` ${text}` : number}`);
  box.setAttribute("role", "gridcell");
  box.setAttribute("aria-label", words);
  box.title = words;
  Object.assign(box.style, {
    top: `${begin + index * early + 1}px`,
    height: `${early - 2}px`,
    width: `${pitch - gap}px`,
    left: `${gap}px`,
  });
  return box;
}

// A survivor off the path is a disc or a ring by its shape: it has room for its place.
function smallText({ state, rank }, mark, fused, { pitch }) {
  if (pitch >= NUMBER_PITCH) return `${mark} ${fused}`;
  if (state !== "alive" && state !== "kept") return mark;
  return pitch >= 24 ? rank + 1 : "";
}

// Lines from the parents, the final path last, so that it lies on top.
function paintLinks(links, chunk, { row, begin, early, gap }) {
  const lines = { pruned: "", kept: "", alive: "", final: "" };
  const middle = (index) => (index + 0.5) * row;
  const add = (parent, to, kind) => {
    if (parent === null) return;
    const [from, bend] = [middle(parent), gap / 2];
    lines[kind] += `M0 ${from}C${bend} ${from} ${bend} ${to} ${gap} ${to}`;
  };
  for (const { parent, candidate, state } of chunk.cells) {
    add(parent, middle(candidate), { failed: "pruned", open: "kept" }[state] ?? state);
  }
  chunk.early.forEach(({ parent }, index) => add(parent, begin + (index + 0.5) * early, "pruned"));
  const drawn = Object.entries(lines).filter(([, line]) => line);
  links.replaceChildren(...drawn.map(([kind, d]) => svg("path", { class: kind, d })));
}

function paintFoot(foot, chunk, layout, most) {
  const { winner, leadText, route, sinksInUse, waiting } = chunk;
  if (waiting) return;
  const [letter, meaning] = ROUTES[route] ?? ["–", "leaves the window for good"];
  const sinks = plural(sinksInUse ?? 0, "sink");
  const rows = {
    won: [winner === null ? "–" : winner + 1],
    memory: [span(`route ${route ?? "none"}`, letter)],
    sinks: [sinksInUse ?? ""],
    cost: [
      bar("seconds", chunk.totalSeconds / most.seconds),
      bar("bytes", chunk.kvBytes / most.kvBytes),
    ],
  };
  if (layout.density === "cards") {
    rows.won = [span("who", `no. ${winner + 1}`), span("", leadText)];
    rows.memory.push(span("", sinksInUse === null ? "" : sinks));
    rows.cost = [span("", chunk.secondsText), span("", chunk.kvText)];
  }
  const titles = {
    won: `Chunk ${chunk.chunk + 1}: candidate ${winner + 1} won ${leadText}`,
    memory: `Chunk ${chunk.chunk + 1}: ${meaning}`,
    sinks: `${sinks} in use`,
    cost: `${chunk.secondsText} (${chunk.phasesText}); K/V ${chunk.kvText}`,
  };
  foot.replaceChildren(
    ...Object.entries(layout.foot).map(([name, height]) => {
      const row = el("div", name, ...rows[name]);
      row.style.height = `${height}px`;
      row.title = titles[name];
      return row;
    }),
  );
}

function bar(name, share) {
  const element = el("i", name);
  element.style.height = `${Math.round(100 * share)}%`;
  return element;
}

const DASHES = { best: "", mean: "2 3", short: "6 3", long: "7 3 2 3" };

function drawLane({ name, lines, low, high }, top, { pitch, gap, lane }, weakest) {
  const pad = 4;
  const range = high - low || 1;
  const x = (chunk) => chunk * pitch + gap + (pitch - gap) / 2;
  const y = (value) => top + lane - pad - ((value - low) / range) * (lane - 2 * pad);
  const shapes = [svg("line", { class: "floor", x1: 0, x2: "100%", y1: top, y2: top })];
  for (const { label: kind, values } of lines) {
    const dash = kind === "path" ? DASHES[name] : DASHES[kind];
    shapes.push(
      svg("path", { class: `line ${kind}`, d: linePath(values, x, y), "stroke-dasharray": dash }),
    );
  }
  if (weakest?.score === name) {
    const value = lines[0].values[weakest.chunk];
    shapes.push(svg("circle", { class: "low", cx: x(weakest.chunk), cy: y(value), r: 3.5 }));
  }
  return shapes;
}

// A gap in the values is a gap in the line; a value alone is a short dash.
function linePath(values, x, y) {
  let line = "";
  values.forEach((value, chunk) => {
    if (value === null) return;
    const point = `${x(chunk).toFixed(1)} ${y(value).toFixed(1)}`;
    const [before, after] = [values[chunk - 1] ?? null, values[chunk + 1] ?? null];
    if (before !== null) line += `L${point}`;
    else line += after === null ? `M${point}m-4 0h8` : `M${point}`;
  });
  return line;
}

function chartWords({ lanes }) {
  const ranges = lanes.map((lane) => `${lane.name} from ${lane.lowText} to ${lane.highText}`);
  return `Scores over the chunks: ${ranges.join("; ")}`;
}

function laneName({ name, lowText, highText }, height) {
  const box = label(name, height);
  box.title = `${name}: ${lowText} to ${highText}`;
  box.append(sample(DASHES[name] ?? DASHES.best, 26));
  if (height >= LANE.roomy) {
    box.prepend(span("bound", highText));
    box.append(span("bound", lowText));
  }
  return box;
}

// A piece of a line of the chart.
function sample(dash, width) {
  const drawing = svg("svg", { width, height: 4, class: "sample" });
  drawing.append(svg("line", { x1: 0, x2: width, y1: 2, y2: 2, "stroke-dasharray": dash }));
  return drawing;
}

// What a screen reader says of a cell.
function spoken(cell, chunk) {
  const fates = {
    final: "on the best path",
    alive: "path alive",
    kept: "branch ended",
    pruned: "pruned",
    open: "waits for your choice",
  };
  const kept = cell.rank === 0 ? "won" : cell.placeText && `kept as ${cell.placeText}`;
  const place = chunk.waiting ? cell.placeText && `${cell.placeText} by score` : kept;
  const scores = ["fused", "short", "long"]
    .filter((name) => cell[name] !== null)
    .map((name) => `${name} ${shown(cell[name], chunk.decimals[name])}`);
  const fate = cell.failure ? `failed: ${cell.failure}` : fates[cell.state];
  const words = [place, fate, ...scores].filter(Boolean).join(", ");
  return `Chunk ${cell.chunk + 1}, candidate ${cell.candidate + 1}: ${words}`;
}

const LEGEND = {
  final: ["best path", "On the final path; before the end, on the path that leads"],
  alive: ["alive", "Kept, and so is a continuation of it in the newest chunk"],
  kept: ["ended", "Kept in its chunk, but its branch ended later"],
  pruned: ["pruned", "Not among the best of its chunk"],
  failed: ["failed", "Could not win"],
};

function legend() {
  const box = el("footer", "legend");
  const entry = (symbol, word, title) => {
    const item = el("span", "", symbol, word);
    item.title = title;
    box.append(item);
  };
  entry(span("place", "1st"), "won", "Had the highest fused score of its chunk, or was chosen by hand");
  for (const [state, texts] of Object.entries(LEGEND)) {
    entry(span(`mark ${state}`, MARKS[state]), ...texts);
  }
  for (const route of ["drop", "blend", "append"]) {
    const [letter, meaning] = ROUTES[route];
    entry(span(`route ${route}`, letter), route, `When the chunk leaves the window: ${meaning}`);
  }
  entry(sample(DASHES.mean, 14), "mean", "Mean fused score of all candidates of a chunk");
  return box;
}

function factElement({ label: name, text }) {
  return el("span", "fact", span("name", name), span("value", text));
}

// A visible button, and the file input it stands for.
function openButton(onOpenReport) {
  const input = el("input");
  Object.assign(input, { type: "file", accept: ".jsonl,.json,.txt", hidden: true });
  input.addEventListener("change", async () => {
    const [file] = input.files;
    input.value = ""; // the same file may be chosen again
    if (file) onOpenReport(await file.text());
  });
  return [button("Open report", () => input.click()), input];
}

// What scrolls here does not zoom the canvas behind; all else passes.
function keepWheel(event, part) {
  if (event.ctrlKey || event.metaKey) return;
  const high = part.scrollHeight - part.clientHeight;
  const across = part.scrollWidth > part.clientWidth + 1;
  const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
  if (sideways ? !across : high <= 1 && !across) return;
  event.stopPropagation();
  const atEnd = event.deltaY < 0 ? part.scrollTop <= 1 : part.scrollTop >= high - 1;
  if (sideways || !atEnd || !across) return; // the browser scrolls it
  event.preventDefault();
  part.scrollLeft += event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1);
}

// A press on what can be used here does not drag the node; the middle button still pans.
function keepPress(event) {
  const used = event.target.closest(".scroller, .details, button, select, input");
  if (event.button === 0 && used) event.stopPropagation();
}

function cellAt(target) {
  const cell = target.closest?.(".cell");
  if (!cell) return null;
  return { chunk: Number(cell.dataset.chunk), candidate: Number(cell.dataset.candidate) };
}

const same = (a, b) => a?.chunk === b?.chunk && a?.candidate === b?.candidate;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const shown = (value, decimals) => value.toFixed(decimals).replace("-", "\u2212");
const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

function showFrame(film, index) {
  const { wide, left } = film.strip;
  film.style.backgroundPositionX = `${left - index * wide}px`;
}

function el(tag, name = "", ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

function span(name, text) {
  const element = el("span", name);
  element.textContent = text;
  return element;
}

function label(text, height) {
  const element = el("div", "label", span("", text));
  element.style.height = `${height}px`;
  return element;
}

function button(text, onClick) {
  const element = el("button");
  element.type = "button";
  element.textContent = text;
  element.addEventListener("click", onClick);
  return element;
}

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  setAttributes(element, attributes);
  return element;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}
