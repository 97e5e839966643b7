// What is known of one run: messages in, a picture of the search out, and sentences about it.
// Pure: nothing is changed in place, nothing is drawn or fetched, and importing it does nothing.
// It knows the report's schema (stream_t1_core/report.py) and not where messages come from.
// Chunks and candidates count from 0 here and from 1 in every text.

const REPORT_VERSION = 1;
const MOST_CHUNKS = 20_000; // a report that promises more is not one
const SCORES = ["fused", "short", "long"];
const TIMED = ["seconds per chunk", "milliseconds per frame", "total seconds"]; // budgets
const MIN_WEAKEST = 3; // chunks needed before one is called the weakest

export function emptyRun() {
  return {
    id: null,
    node: null,
    workflow: null,
    reel: null, // {name, take} that it writes
    video: null, // {filename, subfolder, type} that it writes
    quality: null, // of its budget, as it is now; null where it does not spend by quality
    seq: -1, // of the latest message applied
    gap: false, // a message is missing: fetch the whole run
    started: null, // records of the report
    chunks: [], // {record, strips} by chunk; null where its message is missing
    asked: null, // {record, strips, asked} while the artist may choose; asked: server's seconds
    done: null,
    stopped: null,
  };
}

// The run after one more message. Chunks that did not change are shared with the old run.
export function applyMessage(run, message) {
  const before = run.id === message.run ? run : { ...emptyRun(), id: message.run };
  if (message.seq <= before.seq) return run;
  const { node = null, workflow = null, reel = null, video = null, quality = null, seq } = message;
  const gap = before.gap || seq !== before.seq + 1;
  const told = { node, workflow, reel, video, quality, seq, gap };
  return withRecord({ ...before, ...told }, message.record, message);
}

function withRecord(run, record, { strips = [], asked = null } = {}) {
  switch (record.event) {
    case "run_started":
      return { ...run, started: record };
    case "choice_asked": // in a report nobody waits any more
      return asked === null ? run : { ...run, asked: { record, strips, asked } };
    case "chunk_done": {
      const chunks = run.chunks.slice();
      while (chunks.length < record.chunk) chunks.push(null);
      chunks[record.chunk] = { record, strips };
      return { ...run, chunks, asked: null };
    }
    case "run_done":
      return { ...run, done: record, asked: null };
    case "run_stopped":
      return { ...run, stopped: record, asked: null };
    default:
      return run; // a later version's event
  }
}

// A run from a report file's text, JSON lines. Throws an Error that names the line.
export function runFromReport(text) {
  const lines = text.split("\n");
  let run = { ...emptyRun(), id: "report" };
  for (const [index, line] of lines.entries()) {
    if (!line.trim()) continue;
    let record;
    try {
      record = JSON.parse(line);
    } catch (error) {
      throw new Error(`line ${index + 1} of the report is not JSON (${error.message})`);
    }
    const wrong = wrongWith(record, run);
    if (wrong) throw new Error(`line ${index + 1} of the report: ${wrong}`);
    run = { ...withRecord(run, record), seq: run.seq + 1 };
  }
  if (!run.started) throw new Error("line 1 of the report is missing: the file is empty");
  return run;
}

// What keeps a line from being part of a report of ours; null if nothing does.
function wrongWith(record, run) {
  if (!isObject(record) || typeof record.event !== "string") {
    return 'an object with "event" is expected; open a report that the sampler wrote';
  }
  if (!run.started) return wrongStart(record);
  if (record.event === "chunk_done") return wrongChunk(record, run.started.chunks);
  if (record.event !== "run_done") return null;
  const { best_beam, final_scores } = record;
  if (!Number.isInteger(best_beam)) return "run_done needs the number best_beam";
  if (!isList(final_scores, isScore)) return "run_done needs the list final_scores";
  return isTotal(record.budget ?? null) ? null : "budget is null, or calls, seconds and error";
}

function wrongStart({ event, version, chunks }) {
  if (event !== "run_started") return `run_started is expected first, not ${event}`;
  if (version !== REPORT_VERSION) {
    return `version ${version}; this panel reads version ${REPORT_VERSION}`;
  }
  const planned = Number.isInteger(chunks) && chunks > 0 && chunks <= MOST_CHUNKS;
  return planned ? null : `chunks is ${chunks}; 1 to ${MOST_CHUNKS} is allowed`;
}

function wrongChunk(record, planned) {
  const { chunk, candidates, sinks, seconds, kv_bytes, left_out } = record;
  if (!Number.isInteger(chunk) || chunk < 0 || chunk >= planned) {
    return `chunk is ${chunk}; 0 to ${planned - 1} is allowed`;
  }
  if (!isList(candidates, isCandidate) || !candidates.length) {
    return "chunk_done needs candidates with parent, seed, short, long, fused and rank";
  }
  if (!candidates.some(({ rank }) => rank === 0)) return "no candidate has rank 0";
  if (!isList(sinks, Number.isFinite)) return "chunk_done needs the list sinks";
  if (!isObject(seconds) || !Object.values(seconds).every(isScore)) {
    return "chunk_done needs seconds by phase";
  }
  if (!Number.isFinite(kv_bytes)) return "chunk_done needs the number kv_bytes";
  const { prompt = null, chosen = null, budget = null, pruned_early = [] } = record;
  if (![prompt, chosen].every(isText)) return "prompt and chosen are text or null";
  if (!isBudget(budget)) return "budget is null, or what was allotted and what was spent";
  if (!isList(pruned_early, isEarly)) return "pruned_early needs parent, seed and score of each";
  return left_out === undefined || isObject(left_out) ? null : "left_out is not an object";
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isList = (value, isItem) => Array.isArray(value) && value.every(isItem);
const isText = (value) => value === null || typeof value === "string";
const isScore = (value) => value === null || Number.isFinite(value);

function isCandidate(value) {
  return (
    isObject(value) &&
    Number.isInteger(value.parent) &&
    Number.isFinite(value.seed) &&
    SCORES.every((name) => isScore(value[name])) &&
    isObject(value.parts) &&
    Object.values(value.parts).every(isScore) &&
    (value.rank === null || Number.isInteger(value.rank)) &&
    isRefinement(value.refined ?? null)
  );
}

function isEarly(value) {
  const { parent, seed, score } = isObject(value) ? value : {};
  return Number.isInteger(parent) && Number.isFinite(seed) && isScore(score);
}

function isRefinement(value) {
  if (value === null) return true;
  const whole = isObject(value) && [value.passes, value.accepted].every(Number.isInteger);
  return whole && SCORES.every((name) => isScore(value[name]));
}

function isBudget(value) {
  if (value === null) return true;
  if (!isObject(value) || !isObject(value.allotted)) return false;
  const { candidates, passes, share, predicted } = value.allotted;
  const numbers = [candidates, passes, share, value.seconds, value.calls, value.passes];
  return numbers.every(Number.isFinite) && isScore(predicted) && isText(value.warning ?? null);
}

function isTotal(value) {
  if (value === null) return true;
  return isObject(value) && [value.calls, value.seconds].every(Number.isFinite) && isScore(value.error);
}

// Everything that drawing needs. Cells stand by chunk and candidate; `parent` of a cell is the
// candidate it continues in the chunk before. `path` is the final path, and before the end the one
// that leads.
export function viewOf(run) {
  const chunks = run.chunks.map((entry, chunk) => entry && chunkOf(entry, chunk));
  chunks.forEach((chunk, index) => linkToParents(chunk, chunks[index - 1]));
  for (const chunk of chunks) if (chunk) tellEarly(chunk, run.started?.settings);
  const ended = run.done ? "done" : run.stopped ? "stopped" : null;
  const path = markPaths(chunks, run.done?.best_beam ?? 0);
  markRoutes(chunks, path, run.started?.settings);
  const question = run.asked && questionOf(run.asked);
  const series = seriesOf(chunks, path);
  const made = chunks.length;
  if (question) addWaiting(chunks, run.asked, question);
  const planned = Math.max(run.started?.chunks ?? 0, chunks.length);
  const view = {
    id: run.id,
    gap: run.gap,
    reel: run.reel,
    video: run.video,
    prompt: run.started?.prompt ?? "",
    most: {
      seconds: roundUp(Math.max(0, ...chunks.map((chunk) => chunk?.totalSeconds ?? 0))),
      kvBytes: roundUp(Math.max(0, ...chunks.map((chunk) => chunk?.kvBytes ?? 0))),
    },
    settings: run.started?.settings ?? {},
    state: ended ?? (run.started || chunks.length ? "running" : "waiting"),
    reason: run.stopped ? reasonOf(run.stopped) : null,
    planned,
    made, // chunks; one more is among them while it waits for a choice
    question,
    chunks,
    rows: Math.max(0, ...chunks.map((chunk) => chunk?.cells.length ?? 0)) || expected(run),
    early: Math.max(0, ...chunks.map((chunk) => chunk?.early.length ?? 0)), // rows below these
    path,
    finalScores: run.done?.final_scores ?? [],
    bestBeam: run.done?.best_beam ?? 0,
    series,
  };
  view.quality = qualityOf(run, view);
  view.lanes = question ? [] : lanesOf(view.series); // the room is the pictures'
  view.weakest = weakestOf(view.series);
  view.status = statusOf(view);
  view.facts = factsOf(view);
  view.spent = totalOf(run);
  const done = chunks.slice(0, made);
  view.warnings = [...leftOutOf(done), ...done.flatMap((chunk) => chunk?.budget?.warning ?? [])];
  return view;
}

// What the artist is asked: which candidates of a chunk go on.
function questionOf({ record: { chunk, candidates, seconds }, asked }) {
  const kept = candidates.filter(({ rank }) => rank !== null);
  return {
    chunk,
    most: kept.length,
    favourite: candidates.findIndex(({ rank }) => rank === 0), // the score's
    open: candidates.flatMap(({ failure }, candidate) => (failure ? [] : [candidate])),
    until: asked + seconds, // by the server's clock
  };
}

// The chunk in question stands among the others, but nothing has become of its candidates yet.
function addWaiting(chunks, { record, strips }, { chunk: index }) {
  while (chunks.length < index) chunks.push(null);
  const chunk = chunkOf({ record: { ...UNDECIDED, ...record }, strips }, index);
  for (const cell of chunk.cells) if (cell.state !== "failed") cell.state = "open";
  chunks[index] = { ...chunk, source: record, waiting: true };
  linkToParents(chunks[index], chunks[index - 1]);
}

const UNDECIDED = { sinks: [], seconds: {}, kv_bytes: 0, left_out: {} };

// What is asked, in words, with the time that is left; `now` is the server's.
export function ask({ question: { chunk, favourite, until, most } }, now) {
  const left = Math.ceil(until - now);
  const otherwise = `the score decides (${named(favourite)})`;
  if (left <= 0) return `Chunk ${chunk + 1}: the time is over, ${otherwise}`;
  const up = most > 1 ? ` up to ${most} candidates` : "";
  return `Choose${up} for chunk ${chunk + 1}: ${secondsLeft(left)} left, then ${otherwise}`;
}

function secondsLeft(seconds) {
  if (seconds < 120) return `${seconds}\u00a0s`;
  return seconds < 7200 ? `${Math.ceil(seconds / 60)}\u00a0min` : secondsText(seconds);
}

// Rewards that had no number in some chunks, in words: those were chosen without them.
function leftOutOf(chunks) {
  const counts = new Map();
  for (const chunk of chunks) {
    for (const [name, reason] of chunk?.leftOut ?? []) {
      const before = counts.get(name) ?? { number: 0, reason };
      counts.set(name, { ...before, number: before.number + 1 });
    }
  }
  return [...counts].map(
    ([name, { number, reason }]) =>
      `reward ${name} left out of ${number} of ${count(chunks.length, "chunk")}: ${reason}`,
  );
}

// Candidates of the first chunk before it is made: all, or what stream_t1_core/budget.py makes of a
// quality. What another budget will do is not known here.
function expected({ started }) {
  const { search, refine, budget } = started?.settings ?? {};
  const { beam_width = 1, branch_factor = 1 } = search ?? {};
  const most = beam_width * branch_factor;
  if (budget?.target !== "quality") return most;
  const last = most + (refine?.passes ?? 0) - 1; // rung of the ladder
  return Math.min(most, 1 + Math.round(budget.amount * last));
}

// The slider of a run that goes on and takes another quality: where it is, and the chunk that a move
// reaches first: not the one that is being made. Null where there is none of either.
function qualityOf({ quality }, { state, made, planned }) {
  if (quality === null || state !== "running") return null;
  return { value: quality, from: made + 1 < planned ? made + 1 : null };
}

function chunkOf({ record, strips }, chunk) {
  const alone = record.candidates.length === 1;
  const cells = record.candidates.map((candidate, index) => ({
    chunk,
    candidate: index,
    parent: null,
    parentRank: candidate.parent,
    seed: candidate.seed,
    short: candidate.short,
    long: candidate.long,
    fused: candidate.fused,
    parts: candidate.parts,
    standard: candidate.standard ?? null, // short and long as they were fused, if not as they are
    refined: candidate.refined ?? null, // passes, and the scores with which it went on
    route: candidate.route,
    rank: candidate.rank,
    placeText: candidate.rank === null || alone ? "" : nth(candidate.rank + 1),
    failure: candidate.failure,
    strip: strips[index] ?? 0, // pictures of its filmstrip
    state: candidate.failure ? "failed" : "pruned", // survivors: markPaths
    lasted: chunk, // the last chunk that a kept continuation of it reached
  }));
  const decimals = {};
  for (const name of SCORES) decimals[name] = decimalsFor(cells.map((cell) => cell[name]));
  const winner = cells.find(({ rank }) => rank === 0) ?? null;
  const next = bestOf(cells.filter((cell) => cell !== winner));
  const byHand = record.chosen === "artist";
  const lead = winner && next ? `by ${gapText(winner.fused - next.fused, decimals.fused)}` : "";
  const total = Object.values(record.seconds).reduce((sum, seconds) => sum + (seconds ?? 0), 0);
  return {
    source: record, // the same object as long as nothing changed in it
    chunk,
    cells,
    decimals,
    winner: winner?.candidate ?? null,
    next: next?.candidate ?? null, // best of the others
    kept: cells.filter(({ rank }) => rank !== null).length,
    leadText: byHand ? "by hand" : lead,
    early: (record.pruned_early ?? []).map(({ parent: parentRank, seed, score }) => ({
      parent: null,
      parentRank,
      seed,
      score, // short reward of what it would have become
    })),
    byHand,
    tooLate: record.chosen === "timeout", // the artist was asked and did not answer
    prompt: record.prompt ?? null, // from here on, if it is a new one
    budget: record.budget ?? null, // {allotted, seconds, calls, passes, warning}
    waiting: false, // for the artist's choice
    sinks: record.sinks,
    seconds: record.seconds,
    totalSeconds: total,
    secondsText: secondsText(total),
    phasesText: Object.entries(record.seconds)
      .map(([phase, seconds]) => `${phase} ${secondsText(seconds ?? 0)}`)
      .join(", "),
    kvText: bytesText(record.kv_bytes),
    kvBytes: record.kv_bytes,
    leftOut: Object.entries(record.left_out ?? {}),
    route: null, // of the path's cell: markRoutes
    sinksInUse: null,
  };
}

function bestOf(cells) {
  const scored = cells.filter(({ fused, failure }) => fused !== null && !failure);
  return scored.reduce((best, cell) => (best && best.fused >= cell.fused ? best : cell), null);
}

function linkToParents(chunk, before) {
  if (!chunk || !before) return;
  const byRank = new Map(before.cells.map((cell) => [cell.rank, cell.candidate]));
  for (const cell of [...chunk.cells, ...chunk.early]) {
    cell.parent = byRank.get(cell.parentRank) ?? null;
  }
}

// Candidates that were given up before they were done, in words.
function tellEarly({ chunk, early }, settings) {
  const digits = decimalsFor(early.map(({ score }) => score));
  const standard = settings?.search?.standardise;
  const step = settings?.search?.early?.step;
  for (const cell of early) {
    const text = standard ? signedText(cell.score) : numberText(cell.score, digits);
    cell.scoreText = cell.score === null ? "–" : text;
    cell.text = step ? `step ${step}: ${cell.scoreText}` : cell.scoreText;
    cell.words =
      `Chunk ${chunk + 1}: pruned ${givenUp(settings)}, before it was done, by its estimated ` +
      `short score: ${text}${standard ? " standard deviations from the chunk's mean" : ""}. ` +
      `Seed ${cell.seed}.`;
  }
}

const givenUp = (settings) =>
  settings?.search?.early ? `after step ${settings.search.early.step}` : "early";

// Sets the state of survivors; gives the path's candidate by chunk, null where it is not known.
function markPaths(chunks, tipRank) {
  const path = new Array(chunks.length).fill(null);
  for (let index = chunks.length - 1; index >= 0; index--) {
    for (const cell of chunks[index]?.cells ?? []) {
      if (cell.rank === null) continue;
      cell.state = cell.lasted === chunks.length - 1 ? "alive" : "kept";
      const parent = chunks[index - 1]?.cells[cell.parent];
      if (parent) parent.lasted = Math.max(parent.lasted, cell.lasted);
    }
  }
  let cell = chunks.at(-1)?.cells.find(({ rank }) => rank === tipRank);
  for (let index = chunks.length - 1; cell; index--) {
    cell.state = "final";
    path[index] = cell.candidate;
    cell = chunks[index - 1]?.cells[cell.parent];
  }
  return path;
}

function markRoutes(chunks, path, settings) {
  for (const [index, chunk] of chunks.entries()) {
    const cell = chunk?.cells[path[index]];
    if (!cell) continue;
    chunk.route = isFirstSink(index, settings) ? "sink" : cell.route;
    chunk.sinksInUse = chunk.sinks[cell.rank] ?? null;
  }
}

// The first chunks stay in the context for good, whatever they score.
function isFirstSink(chunk, settings) {
  const frames = settings?.frames_per_chunk;
  return frames > 0 && (chunk + 1) * frames <= settings.memory?.sink_frames;
}

function seriesOf(chunks, path) {
  const onPath = (name) =>
    chunks.map((chunk, index) => wentOn(chunk?.cells[path[index]])?.[name] ?? null);
  return {
    best: chunks.map((chunk) => chunk?.cells[chunk.winner]?.fused ?? null),
    mean: chunks.map((chunk) => chunk && mean(chunk.cells.map(({ fused }) => fused))),
    short: onPath("short"),
    long: onPath("long"),
  };
}

// Where the scores of the chunk that went on are: a candidate's own are from before refining.
const wentOn = (cell) => cell?.refined ?? cell;

// The chart: scores of one kind share a scale, those of different kinds do not compare.
function lanesOf({ best, mean, short, long }) {
  const lane = (name, lines) => {
    const known = lines.flatMap(({ values }) => values).filter((value) => value !== null);
    if (!known.length) return null;
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const digits = decimalsFor([low, high]);
    const [lowText, highText] = [low, high].map((value) => numberText(value, digits));
    return { name, lines, low, high, lowText, highText };
  };
  return [
    lane("fused", [
      { label: "mean", values: mean },
      { label: "best", values: best },
    ]),
    lane("short", [{ label: "path", values: short }]),
    lane("long", [{ label: "path", values: long }]),
  ].filter(Boolean);
}

// The chunk of the path with the lowest own score. Fused scores do not compare over chunks: the
// weight of the short reward rises.
function weakestOf({ short, long }) {
  const score = short.some((value) => value !== null) ? "short" : "long";
  const values = score === "short" ? short : long;
  const known = values.filter((value) => value !== null);
  if (known.length < MIN_WEAKEST) return null;
  const lowest = Math.min(...known);
  const others = [...known].sort((a, b) => a - b);
  if (others[0] === others[1]) return null; // none stands out
  const text = numberText(lowest, decimalsFor([others[0], others[1]]));
  return { chunk: values.indexOf(lowest), score, text };
}

function statusOf({ state, chunks, made: last, planned, reason, question }) {
  const made = chunks.slice(0, last).filter(Boolean).length;
  if (state === "waiting") return "Waiting for a run";
  if (state === "done") return `Done: ${count(made, "chunk")}`;
  if (state === "stopped") return `Stopped after ${made} of ${count(planned, "chunk")}: ${reason}`;
  if (question) return `Chunk ${question.chunk + 1} of ${planned} waits for your choice`;
  return `Running: ${made} of ${count(planned, "chunk")} done`;
}

// Short facts for the header, the most wanted first.
function factsOf({ state, chunks, made: last, planned, finalScores, bestBeam }) {
  const made = chunks.slice(0, last).filter(Boolean);
  const latest = made.at(-1);
  if (!latest) return [];
  const perChunk = mean(made.map(({ totalSeconds }) => totalSeconds));
  const final = finalScores[bestBeam] ?? null;
  const best = latest.cells[latest.winner]?.fused ?? null;
  const facts = [];
  if (final !== null) {
    facts.push({ label: "whole video", text: numberText(final, decimalsFor(finalScores)) });
  }
  if (best !== null) {
    const text = numberText(best, latest.decimals.fused);
    facts.push({ label: state === "done" ? "last chunk" : "best fused", text });
  }
  facts.push({ label: "per chunk", text: secondsText(perChunk) });
  if (state === "running") {
    facts.push({ label: "left", text: `about ${secondsText(perChunk * (planned - made.length))}` });
  }
  facts.push({ label: "K/V", text: bytesText(latest.kvBytes) });
  return facts;
}

function reasonOf({ reason }) {
  const text = String(reason ?? "")
    .trim()
    .replace(/:$/, "");
  return text || "no reason given";
}

// Sentences about one candidate, the most important first.
export function explain(view, chunk, candidate) {
  const here = view.chunks[chunk];
  const cell = here.cells[candidate];
  return [
    outcome(view, here, cell),
    ...(cell.failure ? [] : standing(here, cell)),
    ...(here.waiting ? [] : fate(view, here, cell)),
    ...(cell.failure ? [] : composition(view, here, cell)),
    ...refinement(view, here, cell),
    ...(here.waiting ? [] : memory(view, cell)),
    ...here.leftOut.map(
      ([name, reason]) => `Reward ${name} had no number in this chunk (${reason}): left out.`,
    ),
    ...earlyOnes(view, here),
    ...spent(view, here),
    ...(here.prompt === null ? [] : [`From this chunk on the prompt is "${here.prompt}".`]),
    origin(view, cell),
    ...singles(cell),
  ];
}

const named = (candidate) => `candidate ${candidate + 1}`;

function outcome(view, here, cell) {
  const start = `Chunk ${here.chunk + 1}: ${named(cell.candidate)}`;
  if (cell.failure) return `${start} failed and could not win: ${cell.failure}.`;
  if (here.waiting) return `${start} waits for your choice; ${proposal(here, cell)}.`;
  if (here.cells.length === 1) return `${start} was the only one.`;
  const how = howChosen(here);
  const winner = here.winner === null ? "" : `; ${named(here.winner)} won`;
  if (cell.rank === 0) return `${start} won${how}.`;
  if (cell.rank === null) return `${start} was pruned${winner}${how}.`;
  return `${start} was kept as ${nth(cell.rank + 1)} of ${here.kept}${winner}${how}.`;
}

function proposal({ kept }, { rank }) {
  if (rank === null) return "the score would prune it";
  return `the score would keep it${kept > 1 ? ` as ${nth(rank + 1)} of ${kept}` : ""}`;
}

function howChosen({ byHand, tooLate }) {
  if (byHand) return ", chosen by hand";
  return tooLate ? "; the artist did not answer in time" : "";
}

// Where its fused score stands among the others, and on which reward it gained or lost.
function standing(here, cell) {
  if (here.cells.length === 1 || cell.fused === null) return [];
  const scored = here.cells.filter(({ fused, failure }) => fused !== null && !failure);
  const place = scored.filter((other) => isBefore(other, cell)).length + 1;
  const digits = here.decimals.fused;
  const rivals = scored.filter((other) => other !== cell);
  const lastKept = here.cells.find(({ rank }) => rank === here.kept - 1);
  const rival =
    cell.rank === 0 || here.byHand ? bestOf(rivals) : cell.rank === null ? lastKept : here.cells[here.winner];
  const own = `Fused ${numberText(cell.fused, digits)} is`;
  if (!rival) return [`${own} the only score: all others failed.`];
  const order = place === 1 ? "the highest" : nth(place);
  const against =
    cell.rank === null && !here.byHand
      ? `${named(rival.candidate)}, the last of ${here.kept} kept`
      : named(rival.candidate);
  const gap = cell.fused - rival.fused;
  const side = gap > 0 ? "above" : "below";
  const distance = gap === 0 ? "equal to" : `${gapText(Math.abs(gap), digits)} ${side}`;
  const sentence = `${own} ${order} of ${scored.length}, ${distance} ${against}`;
  const tied = cell.fused === rival.fused && !here.byHand;
  const tie = tied ? ": of equals the one tried first wins" : "";
  const gains = ["short", "long"]
    .filter((name) => cell[name] !== null && rival[name] !== null)
    .map((name) => `${name} is ${gained(cell[name] - rival[name], here.decimals[name])}`);
  const why = `Against ${named(rival.candidate)}, ${gains.join(" and ")}.`;
  if (cell.standard) return [`${sentence}${tie}.`]; // plain scores are not what was compared
  return gains.length ? [`${sentence}${tie}.`, why] : [`${sentence}${tie}.`];
}

const isBefore = (other, cell) =>
  other.fused > cell.fused || (other.fused === cell.fused && other.candidate < cell.candidate);

function gained(gap, digits) {
  if (gap === 0) return "equal";
  return `${gapText(Math.abs(gap), digits)} ${gap > 0 ? "higher" : "lower"}`;
}

// How short and long became fused. The weight is stream_t1_core/search.py's; it is only stated
// where it gives the reported number.
function composition({ settings, planned }, here, cell) {
  const { short, long, fused } = cell;
  if (short === null || long === null || fused === null) return [];
  const own = `short ${numberText(short, here.decimals.short)}`;
  const all = `long ${numberText(long, here.decimals.long)}`;
  const tau = settings.search?.tau;
  if (tau === undefined) return [`${capital(own)}, ${all}.`];
  const weight = planned > 1 ? Math.min(here.chunk / (planned - 1), tau) : 0;
  const shares = [percentText(weight), percentText(1 - weight)];
  if (cell.standard) {
    const [ownUsual, allUsual] = cell.standard.map((value) => signedText(value));
    return [
      `Fused = ${shares[0]} of short ${ownUsual} + ${shares[1]} of long ${allUsual}, each reward ` +
        `in standard deviations from its mean in this run (${own}, ${all}).`,
    ];
  }
  const expected = weight * short + (1 - weight) * long;
  const fits = Math.abs(expected - fused) <= 1e-6 * Math.max(1, Math.abs(short), Math.abs(long));
  if (!fits) return [`${capital(own)}, ${all}.`];
  if (weight === 0) return [`Here only long counts: ${all}, ${own}.`];
  return [`Fused = ${shares[0]} of ${own} + ${shares[1]} of ${all}.`];
}

// What the refiner did to it before it went on. Few candidates that are alike make any change many
// standard deviations, so short and long are told as they are too.
function refinement({ chunks }, { chunk, decimals }, { fused, refined, standard, ...plain }) {
  if (!refined) return [];
  const { passes, accepted } = refined;
  const tried = `Refined: ${accepted} of ${passes} ${passes === 1 ? "pass" : "passes"} accepted`;
  if (!accepted) return [`${tried}, it stayed as it was.`];
  const [before, after] = [fused, refined.fused].map((value) => numberText(value, decimals.fused));
  const gains = ["short", "long"]
    .filter((name) => plain[name] !== null && refined[name] !== null)
    .map((name) => `${name} is ${gained(refined[name] - plain[name], decimals[name])}`);
  const own = gains.length ? `; ${gains.join(" and ")}` : "";
  const seen = chunks.slice(0, chunk + 1).flatMap((one) => one?.cells ?? []);
  const unit = standard ? `, in standard deviations of the ${seen.length} candidates so far` : "";
  return [`${tried}, fused ${before} became ${after}${unit}${own}.`];
}

// What became of its path.
function fate(view, here, cell) {
  const { state, chunks } = view;
  if (cell.rank === null) return [];
  const path = state === "done" ? "final path" : "leading path";
  if (cell.state === "final") {
    if (cell.rank === 0) return [`The ${path} goes through it.`];
    return [`The ${path} goes through it, because ${whyNotTheWinner(view, here)}.`];
  }
  if (cell.state === "alive") {
    if (state === "done") {
      const last = chunks.at(-1).cells[view.path.at(-1)];
      const why = scoredBest(view) ?? `${named(last.candidate)} of the last chunk was taken`;
      return [`Its path lasted to the end, but was not chosen: ${why}.`];
    }
    const alive = state === "stopped" ? "was alive when the run stopped" : "is still alive";
    return [`Its path ${alive}, but does not lead.`];
  }
  if (cell.lasted === here.chunk) {
    return [`Its branch ended here: none of its continuations was kept.`];
  }
  return [`Its branch ended after chunk ${cell.lasted + 1}: no later continuation was kept.`];
}

function whyNotTheWinner(view, here) {
  const winner = here.cells[here.winner];
  if (winner.state === "kept") {
    const until = winner.lasted === here.chunk ? "" : ` after chunk ${winner.lasted + 1}`;
    return `no continuation of ${named(winner.candidate)}, which won here, was kept${until}`;
  }
  return (
    (view.state === "done" && scoredBest(view)) ||
    `the best candidate of chunk ${view.path.length} comes from it`
  );
}

// Null where the choice at the end was not made by a score.
function scoredBest({ finalScores, bestBeam }) {
  const best = finalScores[bestBeam] ?? null;
  if (best === null) return null;
  const others = finalScores.filter((score, beam) => beam !== bestBeam && score !== null);
  const digits = decimalsFor(finalScores);
  const against = others.length ? `, the next ${numberText(Math.max(...others), digits)}` : "";
  return `the chosen whole video scored best at the end (${numberText(best, digits)}${against})`;
}

// What becomes of its keys and values, and why.
function memory(view, cell) {
  const { settings, planned, state, chunks } = view;
  if (cell.rank === null || !settings.memory) return [];
  if (isFirstSink(cell.chunk, settings)) {
    return ["Its memory is the first sink: it does not leave."];
  }
  const { window_frames, sink_frames, max_sink_frames } = settings.memory;
  const leaves = cell.chunk + Math.floor((window_frames - sink_frames) / settings.frames_per_chunk);
  const route = cell.route ?? "drop";
  const seen = leaves <= cell.lasted + 1; // its path lived to see it
  if (cell.state === "kept" && !seen) return [];
  if (leaves >= planned || (state !== "running" && leaves >= chunks.length)) {
    const effect = cell.route ? `, so its route (${route}) has no effect` : "";
    return [`The video ends before it leaves the window${effect}.`];
  }
  const tense = seen && leaves < chunks.length ? "was" : "will be";
  const limit = max_sink_frames / settings.frames_per_chunk;
  const what = {
    drop: `${tense} dropped (drop)`,
    blend: `${tense} blended into the newest sink (blend)`,
    append: `${tense} appended as a new sink (append), or blended where all ${limit} are in use,`,
  }[route];
  if (!what) return [];
  const why = cell.route ? routeReason(view, cell) : ": routing is off";
  return [`Its memory ${what} before chunk ${leaves + 1}${why}.`];
}

// stream_t1_core/sinks.py `decide`, in words; empty where a score it needs is missing.
function routeReason({ chunks, settings }, cell) {
  const earlier = [];
  const parent = chunks[cell.chunk - 1]?.cells[cell.parent];
  let ancestor = parent;
  while (ancestor) {
    const { short } = wentOn(ancestor);
    if (short !== null) earlier.push(short);
    ancestor = chunks[ancestor.chunk - 1]?.cells[ancestor.parent];
  }
  const { short, long } = wentOn(cell);
  const before = wentOn(parent)?.long ?? null;
  const known = [short, long, before].every((score) => score !== null);
  if (!known || !earlier.length) return "";
  const { short_gate, long_gate } = settings.memory;
  const usual = mean(earlier);
  const gain = short - usual;
  const digits = decimalsFor([short, usual]);
  const [own, path] = [short, usual].map((score) => numberText(score, digits));
  const scores = `short ${own} against its path's mean ${path}`;
  if (!(gain > short_gate)) return cell.route === "drop" ? `: ${scores}` : "";
  const fall = before - long;
  const moved = fall > 0 ? "fell by" : "rose by";
  const step = fall === 0 ? "long stayed" : `long ${moved} ${gapText(Math.abs(fall), 2)}`;
  const route = fall > long_gate ? "append" : "blend";
  return cell.route === route ? `: ${scores}, ${step}` : "";
}

// Who else was tried.
function earlyOnes({ settings }, { early }) {
  if (!early.length) return [];
  const were = early.length === 1 ? "1 more was" : `${early.length} more were`;
  const scores = early.map(({ scoreText }) => scoreText).join(", ");
  return [`${were} pruned ${givenUp(settings)}, by an estimated short score of ${scores}.`];
}

// What its chunk got of the run's budget, and what that took.
function spent({ settings }, { budget, cells, early, kept }) {
  if (!budget) return [];
  const { allotted, seconds, calls, passes } = budget;
  const timed = TIMED.includes(settings.budget?.target);
  const tried = cells.length + early.length;
  const got = [outOf(tried, allotted.candidates, "candidate"), `${kept} kept`];
  if (allotted.passes) got.push(outOf(passes, allotted.passes, "refinement pass", "es"));
  if (allotted.as_shown) got.push("judged by the video's own VAE");
  const late = timed && (tried < allotted.candidates || passes < allotted.passes);
  const notes = allotted.predicted === null ? [] : [`${secondsText(allotted.predicted)} predicted`];
  if (timed) notes.push(`share ${secondsText(allotted.share)}`);
  const time = `${secondsText(seconds)}${notes.length ? ` (${notes.join(", ")})` : ""}`;
  const spending = `${count(calls, "denoiser call")} (share ${Math.round(allotted.share)})`;
  const took = timed ? time : `${time} and ${spending}`;
  return [`Budget: ${got.join(", ")}${late ? ": time was up" : ""}; took ${took}.`];
}

// What the whole run took of its budget, in a line; empty before the end and without one.
function totalOf({ done, started }) {
  const { budget = null } = done ?? {};
  if (!budget) return "";
  const { target, amount } = started?.settings.budget ?? {};
  const asked = target ? ` (${target}: ${amount})` : "";
  const took = `${count(budget.calls, "denoiser call")} in ${secondsText(budget.seconds)}`;
  const off = budget.error === null ? "" : `; predicted seconds were off by ${percentText(budget.error)}`;
  return `Budget${asked}: ${took}${off}`;
}

// Of so many, if it is not all.
function outOf(number, most, word, plural = "s") {
  const some = number < most ? `${number} of ${most}` : number;
  return `${some} ${word}${Math.max(number, most) === 1 ? "" : plural}`;
}

function origin({ chunks }, cell) {
  const seed = `Seed ${cell.seed}`;
  if (cell.chunk === 0) return `${seed}, from fresh noise.`;
  const parent = chunks[cell.chunk - 1]?.cells[cell.parent];
  return parent
    ? `${seed}, continues ${named(parent.candidate)} of chunk ${cell.chunk}.`
    : `${seed}.`;
}

function singles({ parts }) {
  const texts = Object.entries(parts).map(
    ([name, value]) => `${name.replace(".", " ")} ${numberText(value, decimalsFor([value]))}`,
  );
  return texts.length ? [`Single rewards: ${texts.join(", ")}.`] : [];
}

// Decimals that tell the values of one chunk apart: two digits of their spread.
function decimalsFor(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const size = Math.max(Math.abs(low), Math.abs(high));
  const least = size >= 1000 ? 0 : size >= 100 ? 1 : 2;
  const spread = high - low;
  if (!(spread > 0)) return least;
  return Math.min(4, Math.max(least, 1 - Math.floor(Math.log10(spread))));
}

function numberText(value, decimals) {
  if (value === null) return "none";
  const text = Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toFixed(decimals);
  return text.replace("-", "\u2212");
}

// A difference is never shown as 0 when it is not.
function gapText(gap, decimals) {
  const text = gap.toFixed(decimals);
  return Number(text) === 0 && gap > 0 ? String(Number(gap.toPrecision(1))) : text;
}

const signedText = (value) => (value > 0 ? "+" : "") + numberText(value, 2);

const percentText = (share) => `${Math.round(100 * share)}\u00a0%`;

function secondsText(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)}\u00a0s`;
  if (seconds < 99.5) return `${Math.round(seconds)}\u00a0s`;
  const minutes = seconds / 60;
  return minutes < 90 ? `${Math.round(minutes)}\u00a0min` : `${(minutes / 60).toFixed(1)}\u00a0h`;
}

function bytesText(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)}\u00a0GB`;
  return `${(bytes / 1e6).toFixed(bytes < 9.95e6 ? 1 : 0)}\u00a0MB`;
}

// The next of 1, 2, 5, 10, 20 ...: a scale that seldom changes.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}

function nth(place) {
  const teen = place % 100 > 10 && place % 100 < 14;
  return `${place}${teen ? "th" : (["th", "st", "nd", "rd"][place % 10] ?? "th")}`;
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);

function mean(values) {
  let sum = 0;
  let known = 0;
  for (const value of values) {
    if (value === null) continue;
    sum += value;
    known += 1;
  }
  return known ? sum / known : null;
}
