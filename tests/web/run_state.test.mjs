// What the panel makes of a run's messages, without a browser: `node --test tests/web`.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { applyMessage, ask, emptyRun, explain, runFromReport, viewOf } from "../../web/run_state.js";

const WEB = new URL("../../web/", import.meta.url);
const HOSTILE = `<img src=x onerror=alert(1)></script><script>alert(2)</script> "'\\ \u202e`;
const MEMORY = {
  window_frames: 12,
  sink_frames: 3,
  max_sink_frames: 15,
  alpha: 0.999,
  short_gate: 0,
  long_gate: 0.2,
  routing: true,
};

function started({ chunks = 3, search = {}, memory = {}, prompt = "a red circle" } = {}) {
  return {
    event: "run_started",
    version: 1,
    prompt,
    chunks,
    denoiser_calls: 10,
    settings: {
      frames_per_chunk: 3,
      search: { beam_width: 2, branch_factor: 2, span_chunks: 10, tau: 0.4, ...search },
      memory: { ...MEMORY, ...memory },
    },
  };
}

const at = (parent, fused, rank, more = {}) => ({
  parent,
  seed: 42,
  short: fused,
  long: fused,
  fused,
  parts: {},
  route: null,
  rank,
  failure: null,
  kept: rank !== null,
  ...more,
});

const made = (chunk, candidates, more = {}) => ({
  event: "chunk_done",
  chunk,
  candidates,
  sinks: [1, 2],
  seconds: { denoise: 1, decode: 0.5, score: 0.25, commit: 0.25 },
  kv_bytes: 2_500_000,
  left_out: {},
  ...more,
});

// Candidate 1 wins chunk 1, but only candidate 2 has continuations that are kept. At the end the
// whole video of the second beam, candidate 4, scores best.
const CHUNKS = [
  made(0, [at(0, 0.9, 0), at(0, 0.8, 1), at(0, 0.2, null), at(0, 0.1, null)]),
  made(1, [at(0, 0.3, null), at(0, 0.2, null), at(1, 0.71, 0), at(1, 0.6, 1)]),
  made(2, [at(0, 0.5, null), at(0, 0.82, 0), at(1, 0.4, null), at(1, 0.71, 1)]),
];
const DONE = { event: "run_done", final_scores: [0.7, 0.75], best_beam: 1, seeds: [], routes: [] };

const messagesOf = (records, run = "a") =>
  records.map((record, seq) => ({ run, node: "12:7", workflow: null, seq, record }));
const runOf = (...records) => messagesOf(records).reduce(applyMessage, emptyRun());
const statesOf = (view, chunk) => view.chunks[chunk].cells.map(({ state }) => state);
const textOf = (view, chunk, candidate) => explain(view, chunk, candidate).join(" ");

function deepFreeze(value) {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  Object.freeze(value);
  Object.values(value).forEach(deepFreeze);
  return value;
}

function longRun(chunks, beams, branches) {
  let state = 1;
  const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
  const records = [started({ chunks, search: { beam_width: beams, branch_factor: branches } })];
  for (let chunk = 0; chunk < chunks; chunk++) {
    const candidates = Array.from({ length: beams * branches }, (_, index) =>
      at(chunk ? Math.floor(index / branches) : 0, random(), null),
    );
    const order = [...candidates].sort((a, b) => b.fused - a.fused);
    order.slice(0, beams).forEach((candidate, rank) => (candidate.rank = rank));
    records.push(made(chunk, candidates));
  }
  return [...records, { ...DONE, final_scores: Array(beams).fill(0.5), best_beam: 0 }];
}

test("nothing is known before the first message", () => {
  const view = viewOf(emptyRun());
  assert.equal(view.state, "waiting");
  assert.deepEqual([view.chunks, view.path, view.facts, view.weakest], [[], [], [], null]);
});

test("a run goes from started to running to done", () => {
  const states = [[], [CHUNKS[0]], [...CHUNKS, DONE]].map((records) => {
    const { state, status } = viewOf(runOf(started(), ...records));
    return `${state}: ${status}`;
  });
  assert.deepEqual(states, [
    "running: Running: 0 of 3 chunks done",
    "running: Running: 1 of 3 chunks done",
    "done: Done: 3 chunks",
  ]);
});

test("applying a message changes nothing that was there, and shares the chunks", () => {
  let run = deepFreeze(emptyRun());
  for (const message of messagesOf([started(), ...CHUNKS, DONE])) {
    const before = run;
    const copy = structuredClone(before);
    run = deepFreeze(applyMessage(before, deepFreeze(message)));
    assert.deepEqual(before, copy);
    before.chunks.forEach((chunk, index) => assert.equal(run.chunks[index], chunk));
  }
  const view = viewOf(run);
  for (const { cells } of view.chunks) {
    for (const { chunk, candidate } of cells) explain(view, chunk, candidate);
  }
});

test("a message applied twice, or late, changes nothing", () => {
  const run = runOf(started(), ...CHUNKS);
  for (const message of messagesOf([started(), ...CHUNKS])) {
    assert.equal(applyMessage(run, message), run);
  }
});

test("a gap is remembered, and what came is shown", () => {
  const [first, , third, fourth] = messagesOf([started(), ...CHUNKS]);
  const run = [first, third, fourth].reduce(applyMessage, emptyRun());
  assert.equal(run.gap, true);
  const view = viewOf(run);
  assert.equal(view.chunks[0], null);
  assert.equal(view.chunks[1].cells[2].parent, null);
  assert.equal(view.status, "Running: 2 of 3 chunks done");
  assert.match(textOf(view, 2, 1), /candidate 2 won/);
  assert.match(textOf(view, 1, 2), /candidate 3 won/);
  assert.equal(runOf(started(), ...CHUNKS).gap, false);
});

test("a page that comes late knows that it missed the start", () => {
  const [, , third] = messagesOf([started(), ...CHUNKS]);
  const run = applyMessage(emptyRun(), third);
  assert.equal(run.gap, true);
  assert.equal(viewOf(run).state, "running");
});

test("a message of another run starts afresh", () => {
  const old = runOf(started(), ...CHUNKS, DONE);
  const [message] = messagesOf([started({ chunks: 5 })], "b");
  const view = viewOf(applyMessage(old, message));
  assert.deepEqual([view.id, view.planned, view.chunks, view.gap], ["b", 5, [], false]);
});

test("before the end the path from the best of the newest chunk leads", () => {
  const view = viewOf(runOf(started(), ...CHUNKS));
  assert.deepEqual(view.path, [1, 2, 1]);
  assert.deepEqual(statesOf(view, 0), ["kept", "final", "pruned", "pruned"]);
  assert.deepEqual(statesOf(view, 1), ["pruned", "pruned", "final", "alive"]);
  assert.equal(view.chunks[2].cells[1].parent, 2);
  assert.match(textOf(view, 1, 3), /Its path is still alive, but does not lead\./);
});

test("the final path is the one chosen at the end, whoever won the chunks", () => {
  const view = viewOf(runOf(started(), ...CHUNKS, DONE));
  assert.deepEqual(view.path, [1, 3, 3]);
  assert.deepEqual(statesOf(view, 2), ["pruned", "alive", "pruned", "final"]);
  const second = textOf(view, 2, 3);
  assert.match(second, /^Chunk 3: candidate 4 was kept as 2nd of 2; candidate 2 won\./);
  assert.match(
    second,
    /because the chosen whole video scored best at the end \(0\.750, the next 0\.700\)/,
  );
  assert.match(textOf(view, 2, 1), /lasted to the end, but was not chosen/);
  assert.match(
    textOf(view, 0, 1),
    /goes through it, because no continuation of candidate 1, which won here, was kept\./,
  );
});

test("without whole-video scores no score is given as the reason", () => {
  const view = viewOf(
    runOf(started(), ...CHUNKS, { ...DONE, final_scores: [null, null], best_beam: 0 }),
  );
  assert.deepEqual(view.path, [1, 2, 1]);
  assert.doesNotMatch(textOf(view, 2, 3), /scored best/);
});

test("the words say by how much, against whom and by which reward", () => {
  const chunk = made(0, [
    at(0, 0.71, 1, { short: 0.1, long: 0.71 }),
    at(0, 0.82, 0, { short: 0.4, long: 0.82 }),
    at(0, 0.5, null),
    at(0, 0.3, null),
  ]);
  const view = viewOf(runOf(started(), chunk));
  assert.deepEqual(explain(view, 0, 1).slice(0, 5), [
    "Chunk 1: candidate 2 won.",
    "Fused 0.82 is the highest of 4, 0.11 above candidate 1.",
    "Against candidate 1, short is 0.30 higher and long is 0.11 higher.",
    "The leading path goes through it.",
    "Here only long counts: long 0.82, short 0.40.",
  ]);
  assert.match(textOf(view, 0, 2), /3rd of 4, 0\.21 below candidate 1, the last of 2 kept\./);
});

test("the fusion is only stated where it gives the reported score", () => {
  const candidate = at(0, 0.4 * 0.6 + 0.6 * 0.9, 0, { short: 0.6, long: 0.9 });
  const chunks = [CHUNKS[0], CHUNKS[1], made(2, [candidate])];
  assert.match(
    textOf(viewOf(runOf(started(), ...chunks)), 2, 0),
    /Fused = 40\u00a0% of short 0\.60 \+ 60\u00a0% of long 0\.90\./,
  );
  candidate.fused = 1.7;
  assert.doesNotMatch(textOf(viewOf(runOf(started(), ...chunks)), 2, 0), /Fused = /);
  candidate.standard = [0.5, -1.25];
  const words = textOf(viewOf(runOf(started({ search: { standardise: true } }), ...chunks)), 2, 0);
  assert.match(words, /of short \+0\.50 \+ .*of long \u22121\.25, each reward in standard dev/);
  assert.doesNotMatch(words, /Against/); // plain scores are not what was compared
});

test("a refined candidate: what was compared, what went on, and the route by the latter", () => {
  const refined = { passes: 2, accepted: 1, short: 0.95, long: 0.96, fused: 0.93, parts: {} };
  const chunk = made(1, [at(0, 0.8, 0, { route: "blend", refined }), at(0, 0.7, null)]);
  const view = viewOf(runOf(started({ chunks: 9 }), CHUNKS[0], chunk));
  const words = textOf(view, 1, 0);
  assert.match(words, /Fused 0\.80 is the highest of 2, 0\.10 above candidate 2/);
  assert.match(words, /Refined: 1 of 2 passes accepted, fused 0\.80 became 0\.93; short is 0\.15 higher and long is/);
  assert.match(words, /short 0\.950 against its path.s mean 0\.900, long rose by 0\.06/);
  assert.deepEqual(view.series.short, [0.9, 0.95]);
  refined.accepted = 0;
  assert.match(textOf(view, 1, 0), /Refined: 0 of 2 passes accepted, it stayed as it was\./);
  assert.doesNotMatch(textOf(view, 1, 1), /Refined/);
});

test("a gain in standard deviations says of how few, and stands beside the plain ones", () => {
  const refined = { passes: 1, accepted: 1, short: 0.82, long: 0.79, fused: 57.3, parts: {} };
  const standard = [1, 1];
  const chunk = made(0, [
    at(0, 1, 0, { short: 0.8, long: 0.8, standard, refined }),
    at(0, -1, null, { short: 0.79, long: 0.79, standard: [-1, -1] }),
  ]);
  const words = textOf(viewOf(runOf(started({ search: { standardise: true } }), chunk)), 0, 0);
  const expected =
    "fused 1.00 became 57.30, in standard deviations of the 2 candidates so far; " +
    "short is 0.020 higher and long is 0.010 lower.";
  assert.ok(words.includes(expected), words);
});

test("a refinement that is none is refused", () => {
  const lines = (refined) =>
    [started(), made(0, [at(0, 0.9, 0, { refined })])].map(JSON.stringify).join("\n");
  runFromReport(lines(null));
  for (const refined of [3, [], {}, { passes: 1, accepted: "1", short: 1, long: 1, fused: 1 }]) {
    assert.throws(() => runFromReport(lines(refined)), /chunk_done needs candidates/);
  }
});

const budgeted = (budget, search = {}) => {
  const start = started({ search: { beam_width: 4, ...search } });
  return { ...start, settings: { ...start.settings, budget } };
};
const spent = (allotted, more = {}) => ({
  allotted: { candidates: 4, beam_width: 2, passes: 0, share: 18, predicted: null, ...allotted },
  seconds: 3.14,
  calls: 18,
  passes: 0,
  ...more,
});
const QUALITY = { target: "quality", amount: 0.4, hard: false, adaptive: false };

test("the words say what a chunk got of the budget, and what was predicted", () => {
  const words = (target, budget, candidates = CHUNKS[0].candidates) => {
    const run = runOf(budgeted({ ...QUALITY, target }), made(0, candidates, { budget }));
    return explain(viewOf(run), 0, 0).find((sentence) => sentence.startsWith("Budget"));
  };
  assert.equal(
    words("quality", spent()),
    "Budget: 4 candidates, 2 kept; took 3.1\u00a0s and 18 denoiser calls (share 18).",
  );
  assert.equal(
    words("total denoiser calls", spent({ passes: 2, predicted: 2.94 }, { passes: 1, calls: 1 })),
    "Budget: 4 candidates, 2 kept, 1 of 2 refinement passes; took 3.1\u00a0s (2.9\u00a0s predicted) " +
      "and 1 denoiser call (share 18).",
  );
  const late = spent({ candidates: 6, passes: 1, predicted: 2.94, share: 3 });
  assert.equal(
    words("seconds per chunk", late),
    "Budget: 4 of 6 candidates, 2 kept, 0 of 1 refinement pass: time was up; " +
      "took 3.1\u00a0s (2.9\u00a0s predicted, share 3.0\u00a0s).",
  );
  assert.equal(
    words("quality", spent({ as_shown: true, passes: 1 }, { passes: 1 })),
    "Budget: 4 candidates, 2 kept, 1 refinement pass, judged by the video's own VAE; " +
      "took 3.1\u00a0s and 18 denoiser calls (share 18).",
  );
  const alone = words("milliseconds per frame", spent({ candidates: 1 }), [at(0, 0, 0)]);
  assert.match(alone, /^Budget: 1 candidate, 1 kept; took/);
  assert.equal(words("quality", null), undefined);
});

test("a budget that is none is refused", () => {
  const lines = (budget) =>
    [started(), made(0, CHUNKS[0].candidates, { budget })].map(JSON.stringify).join("\n");
  for (const budget of [null, undefined, spent({ predicted: 2 })]) runFromReport(lines(budget));
  const wrong = [3, {}, { ...spent(), allotted: null }, spent({ share: "1" }), spent({}, { calls: null })];
  wrong.push(spent({}, { warning: 3 }));
  for (const budget of wrong) {
    assert.throws(() => runFromReport(lines(budget)), /line 2 of the report: budget is null, or/);
  }
});

test("a budget that cannot be kept is a warning of the whole run", () => {
  const warning = "Budget: 1 seconds per chunk cannot be kept";
  const [first, second] = [spent(), spent({}, { warning })].map((budget, chunk) =>
    made(chunk, CHUNKS[chunk].candidates, { budget }),
  );
  assert.deepEqual(viewOf(runOf(budgeted(QUALITY), first)).warnings, []);
  assert.deepEqual(viewOf(runOf(budgeted(QUALITY), first, second)).warnings, [warning]);
});

test("after the run a line tells what it took of its budget", () => {
  const line = (budget, more = {}) =>
    viewOf(runOf(budgeted({ ...QUALITY, ...more }), ...CHUNKS, { ...DONE, budget })).spent;
  const timed = { target: "seconds per chunk", amount: 5 };
  assert.equal(
    line({ calls: 140, seconds: 52.4, error: 0.083 }, timed),
    "Budget (seconds per chunk: 5): 140 denoiser calls in 52\u00a0s; " +
      "predicted seconds were off by 8\u00a0%",
  );
  assert.equal(
    line({ calls: 1, seconds: 1, error: null }),
    "Budget (quality: 0.4): 1 denoiser call in 1.0\u00a0s",
  );
  assert.equal(viewOf(runOf(budgeted(QUALITY), ...CHUNKS)).spent, "");
  for (const budget of [null, undefined]) assert.equal(line(budget), "");
  const bad = { ...DONE, budget: { calls: "1", seconds: 1, error: null } };
  const text = [budgeted(QUALITY), bad].map(JSON.stringify).join("\n");
  assert.throws(() => runFromReport(text), /line 2 of the report: budget is null, or calls/);
});

test("the slider is where the run's quality is, and names the chunk that a move reaches", () => {
  const messages = messagesOf([budgeted(QUALITY), CHUNKS[0], CHUNKS[1], CHUNKS[2], DONE]);
  const quality = [0.4, 0.4, 0.9, 0.9, 0.9];
  const seen = messages.map((message, i) => {
    const until = messages.slice(0, i + 1).map((one, j) => ({ ...one, quality: quality[j] }));
    return viewOf(until.reduce(applyMessage, emptyRun())).quality;
  });
  assert.deepEqual(seen, [
    { value: 0.4, from: 1 },
    { value: 0.4, from: 2 },
    { value: 0.9, from: null },
    { value: 0.9, from: null },
    null,
  ]);
  assert.equal(viewOf(runOf(budgeted({ ...QUALITY, target: "total seconds" }))).quality, null);
  assert.equal(viewOf(emptyRun()).quality, null);
  const report = JSON.stringify(budgeted(QUALITY));
  assert.equal(viewOf(runFromReport(report)).quality, null); // of a run long gone
});

test("while a chunk waits for a choice, a move reaches the next one", () => {
  const run = askedRun(budgeted(QUALITY), CHUNKS[0], asking(1, CHUNKS[1].candidates));
  assert.deepEqual(viewOf({ ...run, quality: 0.4 }).quality, { value: 0.4, from: 2 });
});

test("a run by quality gets as many rows as its first chunk will have", () => {
  const rows = (...records) => viewOf(runOf(...records)).rows;
  const amounts = [0, 0.4, 1].map((amount) => rows(budgeted({ ...QUALITY, amount })));
  assert.deepEqual(amounts, [1, 4, 8]);
  assert.equal(rows(started()), 4);
  assert.equal(rows(budgeted({ ...QUALITY, target: "total seconds" })), 8);
  assert.equal(rows(budgeted(QUALITY), made(0, [at(0, 0.5, 0), at(0, 0.4, 1)])), 2);
});

test("a reward that was left out is told once, with how often and why", () => {
  const bad = { ...CHUNKS[0], left_out: { "short.bad": "RuntimeError: boom" } };
  assert.deepEqual(viewOf(runOf(started(), bad, CHUNKS[1])).warnings, [
    "reward short.bad left out of 1 of 2 chunks: RuntimeError: boom",
  ]);
  assert.deepEqual(viewOf(runOf(started(), ...CHUNKS)).warnings, []);
});

const early = (parent, score, seed = 45) => ({ parent, seed, score });

test("those pruned early stand apart, with their step and their estimated score", () => {
  const pruned_early = [early(1, 3), early(0, 0.52, 46), early(0, null, 47)];
  const search = { early: { step: 1, share: 0.5 } };
  const records = [started({ search }), CHUNKS[0], { ...CHUNKS[1], pruned_early }];
  const view = viewOf(runOf(...records));
  assert.deepEqual([view.rows, view.early], [4, 3]);
  assert.deepEqual([view.chunks[0].early, view.chunks[1].cells.length], [[], 4]);
  const [first, second, third] = view.chunks[1].early;
  assert.deepEqual([first.parent, second.parent], [1, 0]); // candidates of the chunk before
  assert.deepEqual([first, second, third].map(({ text }) => text), [
    "step 1: 3.00",
    "step 1: 0.52",
    "step 1: –",
  ]);
  assert.equal(
    second.words,
    "Chunk 2: pruned after step 1, before it was done, by its estimated short score: 0.52. Seed 46.",
  );
  const told = "3 more were pruned after step 1, by an estimated short score of 3.00, 0.52, –.";
  assert.ok(explain(view, 1, 0).includes(told));
  assert.doesNotMatch(textOf(view, 0, 0), /more/);
  const standardised = [started({ search: { ...search, standardise: true } }), ...records.slice(1)];
  const [best] = viewOf(runOf(...standardised)).chunks[1].early;
  assert.match(best.words, /short score: \+3\.00 standard deviations from the chunk's mean\./);
});

test("time was not up where candidates were pruned early", () => {
  const budget = spent({ candidates: 6, share: 9 });
  const settings = budgeted({ ...QUALITY, target: "total seconds" });
  const chunk = { ...CHUNKS[0], budget, pruned_early: [early(0, 1), early(0, 2)] };
  assert.match(textOf(viewOf(runOf(settings, chunk)), 0, 0), /Budget: 6 candidates, 2 kept; took/);
});

test("a report says nothing wrong about those pruned early", () => {
  const lines = (pruned_early) =>
    [started(), { ...CHUNKS[0], pruned_early }].map(JSON.stringify).join("\n");
  for (const good of [undefined, [], [early(0, null)]]) runFromReport(lines(good));
  for (const wrong of [3, {}, [3], [early("0", 1)], [early(0, "1")], [{ parent: 0, score: 1 }]]) {
    assert.throws(() => runFromReport(lines(wrong)), /line 2 of the report: pruned_early needs/);
  }
  assert.equal(viewOf(runFromReport(lines([early(0, 1)]))).chunks[0].early[0].text, "1.00");
});

test("equal scores: the words say that the earlier one wins", () => {
  const view = viewOf(runOf(started(), made(0, [at(0, 0.5, 0), at(0, 0.5, 1)])));
  assert.match(
    textOf(view, 0, 0),
    /the highest of 2, equal to candidate 2: of equals the one tried first wins/,
  );
});

test("a small lead is not shown as none", () => {
  const view = viewOf(
    runOf(started(), made(0, [at(0, 70, 0), at(0, 69.9999, 1), at(0, 10, null)])),
  );
  assert.match(textOf(view, 0, 0), /0\.0001 above candidate 2/);
  assert.equal(view.chunks[0].leadText, "by 0.0001");
});

test("a failed candidate is failed, with its reason, and cannot win", () => {
  const failed = at(0, null, null, { short: null, long: null, failure: "latent not finite" });
  const view = viewOf(runOf(started(), made(0, [failed, at(0, 0.4, 0)])));
  assert.deepEqual(statesOf(view, 0), ["failed", "final"]);
  assert.match(
    textOf(view, 0, 0),
    /^Chunk 1: candidate 1 failed and could not win: latent not finite\./,
  );
  assert.match(textOf(view, 0, 1), /Fused 0\.40 is the only score: all others failed\./);
});

test("a single candidate is no winner over anybody", () => {
  const view = viewOf(runOf(started(), made(0, [at(0, 0, 0, { short: null, long: null })])));
  assert.match(textOf(view, 0, 0), /^Chunk 1: candidate 1 was the only one\./);
  assert.equal(view.chunks[0].cells[0].placeText, "");
});

test("a stopped run shows what it has, and why it stopped", () => {
  const stop = (reason) => viewOf(runOf(started(), CHUNKS[0], { event: "run_stopped", reason }));
  const view = stop("cancelled");
  assert.equal(view.state, "stopped");
  assert.equal(view.status, "Stopped after 1 of 3 chunks: cancelled");
  assert.deepEqual(statesOf(view, 0), ["final", "alive", "pruned", "pruned"]);
  assert.match(textOf(view, 0, 1), /was alive when the run stopped/);
  assert.equal(stop("RuntimeError: no memory").reason, "RuntimeError: no memory");
});

test("memory: the route, when it is taken and why", () => {
  const chunks = [0, 1, 2, 3, 4].map((chunk) =>
    made(chunk, [
      at(0, [0.5, 0.6, 0.1, 0.9, 0.5][chunk], 0, {
        route: [null, "blend", "drop", "append", "blend"][chunk],
      }),
    ]),
  );
  const view = viewOf(runOf(started({ chunks: 7 }), ...chunks));
  assert.deepEqual(
    view.chunks.map(({ route }) => route),
    ["sink", "blend", "drop", "append", "blend"],
  );
  assert.equal(view.chunks[0].sinksInUse, 1);
  assert.match(textOf(view, 0, 0), /Its memory is the first sink/);
  assert.match(
    textOf(view, 1, 0),
    /was blended into the newest sink \(blend\) before chunk 5: short 0\.60 against its path's mean/,
  );
  assert.match(textOf(view, 1, 0), /path's mean 0\.50, long rose by 0\.10/);
  assert.match(textOf(view, 2, 0), /will be dropped \(drop\) before chunk 6: short 0\.10 against/);
  assert.match(
    textOf(view, 3, 0),
    /will be appended as a new sink \(append\), or blended where all 5/,
  );
  assert.match(textOf(view, 4, 0), /so its route \(blend\) has no effect/);
  const off = viewOf(
    runOf(
      started({ chunks: 7, memory: { routing: false } }),
      made(0, [at(0, 1, 0)]),
      made(1, [at(0, 1, 0)]),
    ),
  );
  assert.match(textOf(off, 1, 0), /will be dropped \(drop\) before chunk 5: routing is off/);
});

const asking = (chunk, candidates, more = {}) => ({
  event: "choice_asked",
  chunk,
  candidates,
  seconds: 60,
  ...more,
});

// Messages of a run whose last record is a question, asked at 1000 by the server's clock.
function askedRun(...records) {
  const messages = messagesOf(records);
  Object.assign(messages.at(-1), { asked: 1000, strips: [6, 6, 0, 6] });
  return deepFreeze(messages).reduce(applyMessage, emptyRun());
}

test("a question shows its chunk's candidates, and what the score would do", () => {
  const failed = at(0, null, null, { short: null, long: null, failure: "latent not finite" });
  const candidates = [at(0, 0.5, null), at(1, 0.9, 0), failed, at(1, 0.7, 1)];
  const view = viewOf(askedRun(started(), CHUNKS[0], asking(1, candidates)));
  assert.deepEqual(view.question, {
    chunk: 1,
    most: 2,
    favourite: 1,
    open: [0, 1, 3],
    until: 1060,
  });
  assert.equal(view.state, "running");
  assert.equal(view.status, "Chunk 2 of 3 waits for your choice");
  assert.deepEqual([view.made, view.chunks.length, view.path], [1, 2, [0]]);
  assert.deepEqual(statesOf(view, 1), ["open", "open", "failed", "open"]);
  assert.deepEqual(
    view.chunks[1].cells.map(({ strip, parent }) => [strip, parent]),
    [
      [6, 0],
      [6, 1],
      [0, 0],
      [6, 1],
    ],
  );
  assert.match(textOf(view, 1, 1), /^Chunk 2: candidate 2 waits for your choice; the score would /);
  assert.match(textOf(view, 1, 3), /the score would keep it as 2nd of 2\./);
  assert.match(textOf(view, 1, 0), /the score would prune it\./);
  assert.doesNotMatch(textOf(view, 1, 1), /path goes|memory|undefined|NaN/);
  assert.deepEqual(
    view.facts.map(({ text }) => text),
    viewOf(runOf(started(), CHUNKS[0])).facts.map(({ text }) => text),
  );
});

test("the time that is left is told until the score decides", () => {
  const view = viewOf(askedRun(started(), asking(0, [at(0, 0.5, null), at(0, 0.9, 0)])));
  const otherwise = "the score decides (candidate 2)";
  assert.equal(ask(view, 1017.2), `Choose for chunk 1: 43\u00a0s left, then ${otherwise}`);
  assert.equal(ask(view, 1060), `Chunk 1: the time is over, ${otherwise}`);
  const two = [at(0, 0.5, 1), at(0, 0.9, 0), at(0, 0.1, null)];
  const long = viewOf(askedRun(started(), asking(0, two, { seconds: 1800 })));
  assert.match(ask(long, 1000), /^Choose up to 2 candidates for chunk 1: 30\u00a0min left/);
});

test("an answer, the end and a stop end the question", () => {
  const question = asking(1, CHUNKS[1].candidates);
  const run = askedRun(started(), CHUNKS[0], question);
  for (const record of [CHUNKS[1], { event: "run_stopped", reason: "cancelled" }]) {
    const view = viewOf(applyMessage(run, { run: "a", seq: 3, record }));
    assert.equal(view.question, null);
    assert.equal(view.chunks.length, view.made);
  }
  const text = [started(), CHUNKS[0], question].map((record) => JSON.stringify(record)).join("\n");
  assert.equal(viewOf(runFromReport(text)).question, null); // of a run long gone
});

test("the words say who chose, and where the prompt changes", () => {
  const candidates = [at(0, 0.9, null), at(0, 0.5, 0), at(0, 0.7, null)];
  const byHand = viewOf(runOf(started(), made(0, candidates, { chosen: "artist" })));
  assert.match(textOf(byHand, 0, 1), /^Chunk 1: candidate 2 won, chosen by hand\./);
  assert.match(textOf(byHand, 0, 1), /3rd of 3, 0\.40 below candidate 1\./);
  assert.match(textOf(byHand, 0, 0), /pruned; candidate 2 won, chosen by hand\./);
  assert.match(textOf(byHand, 0, 0), /the highest of 3, 0\.20 above candidate 3\./);
  assert.equal(byHand.chunks[0].leadText, "by hand");
  const late = made(0, CHUNKS[0].candidates, { chosen: "timeout", prompt: HOSTILE });
  const view = viewOf(runOf(started(), late));
  assert.match(textOf(view, 0, 0), /the artist did not answer in time\./);
  assert.ok(textOf(view, 0, 0).includes(`From this chunk on the prompt is "${HOSTILE}".`));
  assert.equal(view.chunks[0].prompt, HOSTILE);
  const report = [started(), { ...late, prompt: 7 }].map((record) => JSON.stringify(record));
  assert.throws(() => runFromReport(report.join("\n")), { message: /prompt and chosen are text/ });
});

test("rewards left out are named with the reason", () => {
  const left_out = { "short.clip_score": "no weights" };
  const view = viewOf(runOf(started(), made(0, [at(0, 0.5, 0)], { left_out })));
  assert.deepEqual(view.chunks[0].leftOut, [["short.clip_score", "no weights"]]);
  assert.match(
    textOf(view, 0, 0),
    /Reward short\.clip_score had no number in this chunk \(no weights\)/,
  );
});

test("the chart has the best and the mean fused, and short and long of the path", () => {
  const { series } = viewOf(runOf(started(), ...CHUNKS, DONE));
  assert.deepEqual(series.best, [0.9, 0.71, 0.82]);
  assert.deepEqual(series.short, [0.8, 0.6, 0.71]);
  assert.equal(series.mean[0], (0.9 + 0.8 + 0.2 + 0.1) / 4);
  assert.equal(viewOf(runOf(started(), ...CHUNKS, DONE)).weakest.chunk, 1);
});

test("facts are short: bytes as MB or GB, time left only while running", () => {
  const facts = (...records) =>
    viewOf(runOf(started(), ...records)).facts.map(({ label, text }) => `${label} ${text}`);
  assert.deepEqual(facts(CHUNKS[0]), [
    "best fused 0.90",
    "per chunk 2.0\u00a0s",
    "left about 4.0\u00a0s",
    "K/V 2.5\u00a0MB",
  ]);
  assert.deepEqual(facts(...CHUNKS, DONE)[0], "whole video 0.750");
  assert.ok(
    facts(made(0, [at(0, 1, 0)], { kv_bytes: 12_340_000_000 })).includes("K/V 12.3\u00a0GB"),
  );
});

test("120 chunks of 16: after every message each chunk has one path", () => {
  const messages = deepFreeze(messagesOf(longRun(120, 4, 4)));
  let run = emptyRun();
  for (const message of messages) {
    run = applyMessage(run, message);
    viewOf(run).chunks.forEach(({ cells }) =>
      assert.equal(cells.filter(({ state }) => state === "final").length, 1),
    );
  }
  const view = viewOf(run);
  assert.equal(view.path.length, 120);
  for (let chunk = 1; chunk < 120; chunk++) {
    const cell = view.chunks[chunk].cells[view.path[chunk]];
    assert.equal(cell.parent, view.path[chunk - 1]);
    assert.equal(view.chunks[chunk - 1].cells[cell.parent].rank, cell.parentRank);
  }
  for (const { cells } of view.chunks) {
    for (const { chunk, candidate } of cells) assert.ok(explain(view, chunk, candidate).length > 2);
  }
});

test("a report is the same run as its messages", () => {
  const records = [started(), ...CHUNKS, DONE];
  const text = records.map((record) => `${JSON.stringify(record)}\n`).join("");
  const fromReport = viewOf(runFromReport(text));
  const live = viewOf(runOf(...records));
  assert.deepEqual({ ...fromReport, id: null }, { ...live, id: null });
  assert.deepEqual(viewOf(runFromReport(text.replaceAll("\n", "\r\n"))), fromReport);
});

test("a report of an earlier version of the pack, without a prompt, opens", () => {
  const { prompt, ...start } = started();
  assert.equal(viewOf(runFromReport(JSON.stringify(start))).prompt, "");
});

test("a bad report names the line and what is wrong", () => {
  const start = JSON.stringify(started());
  const chunk = (change) => JSON.stringify({ ...CHUNKS[0], ...change });
  const cases = [
    ["", /line 1 .*empty/],
    [`${start}\n{"event": "chunk_do`, /line 2 of the report is not JSON/],
    [`${start}\n\n[1]`, /line 3 .*an object with "event"/],
    [chunk({}), /line 1 .*run_started is expected first, not chunk_done/],
    [
      JSON.stringify({ ...started(), version: 2 }),
      /line 1 .*version 2; this panel reads version 1/,
    ],
    [JSON.stringify({ ...started(), chunks: 1e12 }), /line 1 .*chunks is 1000000000000/],
    [`${start}\n${chunk({ chunk: 3 })}`, /line 2 .*chunk is 3; 0 to 2 is allowed/],
    [`${start}\n${chunk({ chunk: -1 })}`, /line 2 .*chunk is -1/],
    [
      `${start}\n${chunk({ candidates: [{ ...at(0, 1, 0), fused: HOSTILE }] })}`,
      /line 2 .*candidates/,
    ],
    [`${start}\n${chunk({ candidates: [at(0, 1, null)] })}`, /line 2 .*no candidate has rank 0/],
    [`${start}\n${chunk({ seconds: null })}`, /line 2 .*seconds/],
    [`${start}\n{"event": "run_done"}`, /line 2 .*best_beam/],
  ];
  for (const [text, message] of cases) assert.throws(() => runFromReport(text), { message });
});

test("text from prompts, rewards and failures passes through as it is", () => {
  const failed = at(0, null, null, { failure: HOSTILE });
  const records = [
    started({ prompt: HOSTILE }),
    made(0, [at(0, 1, 0), failed], { left_out: { [HOSTILE]: HOSTILE } }),
    { event: "run_stopped", reason: HOSTILE },
  ];
  for (const run of [
    runOf(...records),
    runFromReport(records.map((r) => JSON.stringify(r)).join("\n")),
  ]) {
    const view = viewOf(run);
    assert.equal(view.prompt, HOSTILE);
    assert.equal(view.chunks[0].cells[1].failure, HOSTILE);
    assert.ok(textOf(view, 0, 1).includes(HOSTILE));
    assert.ok(view.status.includes(HOSTILE.trim()));
  }
});

test("state and drawing do nothing on import, import nothing, and fit into one module", async () => {
  const files = ["run_state.js", "beam_panel.js"].map((name) => new URL(name, WEB));
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8")));
  for (const text of texts)
    assert.doesNotMatch(text, /^import |innerHTML|insertAdjacentHTML|<\/script/m);
  const both = texts.join("\n").replace(/^export /gm, "");
  const code = `${both}\nexport { viewOf, createPanel, PANEL_HEIGHT };`;
  const page = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  assert.equal(typeof page.createPanel, "function");
  for (const name of ["choices.js", "quality.js"]) {
    const text = await readFile(new URL(name, WEB), "utf8");
    assert.doesNotMatch(text, /^import |innerHTML|insertAdjacentHTML/m);
    assert.equal(Object.keys(await import(new URL(name, WEB))).length, 1);
  }
  const css = await readFile(new URL("stream_t1.css", WEB), "utf8");
  assert.ok(css.includes(`min-height: ${page.PANEL_HEIGHT}px`));
});
