// The live panel on the Chunk Beam Sampler: listens to the server, keeps the latest runs of the open
// workflow, and hands them to the panel of the node that made them. What a run says is worked out in
// run_state.js and drawn by beam_panel.js; what can be done about it is drawn by choices.js and
// quality.js, and reel.js knows the Reel node. This file knows ComfyUI.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { createPanel, PANEL_HEIGHT } from "./beam_panel.js";
import { createChoices } from "./choices.js";
import { createQuality } from "./quality.js";
import { reelActions } from "./reel.js";
import { applyMessage, ask, emptyRun, explain, runFromReport, viewOf } from "./run_state.js";

const SAMPLER = "StreamT1ChunkBeamSampler";
const NAME = "stream_t1_panel";
const MARGIN = 20; // pixels that the classic canvas takes off a widget's height
const LEAST_WIDTH = 420;
const MOST_RUNS = 8; // remembered for a node

const warned = new Set(); // run and reward: told once
const shown = new Map(); // node -> Shown; nodes have no id yet when they are made
let ahead = 0; // seconds that this page's clock is ahead of the server's

// One sampler node: its panel, its runs by id (oldest first), and which of them is drawn.
class Shown {
  constructor(node) {
    this.node = node;
    this.runs = new Map();
    this.current = null;
    this.due = 0;
    this.panel = createPanel({
      viewOf,
      explain,
      stripUrl: (run, chunk, candidate) =>
        run && api.apiURL(`/stream_t1/runs/${run}/${chunk}/${candidate}.jpg`),
      videoUrl: (file) => api.apiURL(`/view?${new URLSearchParams(file)}`),
      onOpenReport: (text) => this.openReport(text),
      choices: createChoices({
        ask,
        now: () => Date.now() / 1000 - ahead,
        answer: sendChoice,
        actionsFor: (view, at) => (view.id === "report" ? null : reelActions(node, view, at)),
      }),
      quality: createQuality((run, quality) => this.move(run, quality)),
    });
  }

  put(id, run) {
    const isNew = !this.runs.has(id);
    this.runs.set(id, run);
    if (isNew) {
      this.current = id; // the newest run is what one wants to see
      for (const old of [...this.runs.keys()].slice(0, -MOST_RUNS)) this.runs.delete(old);
    }
    this.drawSoon();
  }

  // Runs in the server's order, oldest first; those that only this page knows come after.
  sort(ids) {
    const rest = [...this.runs.keys()].filter((id) => !ids.includes(id));
    const order = [...ids.filter((id) => this.runs.has(id)), ...rest];
    this.runs = new Map(order.map((id) => [id, this.runs.get(id)]));
    this.current = order.at(-1) ?? null;
    this.drawSoon();
  }

  openReport(text) {
    if (text.trimStart().startsWith("<")) {
      const words = "This is the page of a report. Choose the .jsonl file beside it.";
      notice("error", "report not opened", words);
      return;
    }
    try {
      this.put("report", runFromReport(text));
      this.current = "report";
    } catch (error) {
      notice("error", "report not opened", error.message);
    }
  }

  async move(id, quality) {
    const taken = await sendQuality(id, quality);
    const run = this.runs.get(id);
    if (taken && run) this.put(id, { ...run, quality });
    return taken;
  }

  drawSoon() {
    this.due ||= requestAnimationFrame(() => {
      this.due = 0;
      const names = [...this.runs].map(([id, run], i) => ({ run: id, label: label(id, run, i) }));
      this.panel.setRuns(names, this.current, (id) => {
        this.current = id;
        this.drawSoon();
      });
      this.panel.draw(this.runs.get(this.current) ?? emptyRun());
    });
  }

  forget() {
    cancelAnimationFrame(this.due);
    this.panel.destroy();
  }
}

// Whether the question is settled: by this answer, or before it came.
async function sendChoice(run, chunk, candidates) {
  const { status, text } = await post(`/stream_t1/runs/${run}/choice`, { chunk, candidates });
  if (status === 200 || status === 409) return true; // 409: another was faster
  notice("error", "the choice was not taken", text);
  return false;
}

// Whether the run has it.
async function sendQuality(run, quality) {
  const { status, text } = await post(`/stream_t1/runs/${run}/quality`, { quality });
  if (status !== 200) notice("error", "the quality was not moved", text);
  return status === 200;
}

// Status and text of the answer; 0 without one.
async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  try {
    const request = { method: "POST", headers, body: JSON.stringify(body) };
    const response = await api.fetchApi(path, request);
    return { status: response.status, text: await response.text() };
  } catch (error) {
    console.error(error);
    return { status: 0, text: "the server does not answer" };
  }
}

function label(id, run, index) {
  if (id === "report") return "report file";
  return `run ${index + 1}${run.node?.includes(":") ? `, node ${run.node}` : ""}`;
}

function notice(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary: `Stream-T1: ${summary}`, detail, life: 8000 });
}

const rootGraph = () => app.rootGraph ?? app.graph;
const nodeOf = (graph, id) => graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));

// The node behind an id such as 12:7, node 7 of the subgraph that node 12 stands for.
function findNode(path) {
  const ids = path.split(":");
  const last = ids.pop();
  const graph = ids.reduce((outer, id) => nodeOf(outer, id)?.subgraph, rootGraph());
  return nodeOf(graph, last);
}

function shownFor({ node, workflow }) {
  return workflow === rootGraph().id ? shown.get(findNode(node)) : undefined;
}

function receive(message) {
  const target = shownFor(message);
  if (!target) return;
  if (message.asked) ahead = Date.now() / 1000 - message.asked;
  const run = applyMessage(target.runs.get(message.run) ?? emptyRun(), message);
  target.put(message.run, run);
  if (run.gap) fetchRun(message.run);
  for (const [name, reason] of Object.entries(message.record.left_out ?? {})) {
    const mark = `${message.run} ${name}`;
    if (!warned.has(mark)) notice("warn", `reward '${name}' is left out`, reason);
    warned.add(mark);
  }
}

async function fetchRun(id) {
  const answer = await api.fetchApi(`/stream_t1/runs/${id}`);
  if (!answer.ok) return; // forgotten since
  const { messages, now, ...whose } = await answer.json();
  ahead = Date.now() / 1000 - now;
  const run = { ...messages.reduce(applyMessage, emptyRun()), quality: whose.quality };
  const target = shownFor(whose);
  // Messages that came meanwhile are newer than the answer.
  if (target && !(target.runs.get(id)?.seq > run.seq)) target.put(id, run);
}

// What ran before this page was loaded, or while it was not connected.
async function catchUp() {
  if (!shown.size) return;
  const answer = await api.fetchApi(`/stream_t1/runs?workflow=${encodeURIComponent(rootGraph().id)}`);
  if (!answer.ok) return;
  const listed = await answer.json();
  for (const [node, entry] of shown) {
    const own = listed.filter((run) => findNode(run.node) === node).slice(-MOST_RUNS);
    for (const { run } of own) await fetchRun(run);
    entry.sort(own.map(({ run }) => run));
  }
}

function addPanel(node) {
  const entry = new Shown(node);
  shown.set(node, entry);
  const height = PANEL_HEIGHT + MARGIN;
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => height };
  const widget = node.addDOMWidget(NAME, NAME, entry.panel.element, options);
  widget.serialize = false;
  const [width, least] = node.computeSize();
  node.setSize([Math.max(width, LEAST_WIDTH), least]);
  const { onRemoved } = node;
  node.onRemoved = function () {
    onRemoved?.call(this);
    entry.forget();
    shown.delete(node);
  };
}

app.registerExtension({
  name: "stream_t1.panel",
  init() {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL("./stream_t1.css", import.meta.url).href;
    document.head.append(link);
    api.addEventListener("stream_t1.run", ({ detail }) => receive(detail));
    api.addEventListener("reconnected", catchUp);
  },
  nodeCreated(node) {
    if (node.comfyClass === SAMPLER) addPanel(node);
  },
  afterConfigureGraph: catchUp,
});
