// The Reel node that is plugged into a sampler: what can be done with it about one candidate, by
// setting its widgets and queueing the prompt as the front end does. Importing it does nothing.

import { app } from "../../scripts/app.js";

const REEL = "StreamT1Reel";
const BUSY_MS = 50; // between looks whether the front end has queued what it was asked to

// The buttons for the candidate at {chunk, candidate}; null where no Reel node is plugged in, or
// something else is to be decided first.
export function reelActions(sampler, view, at) {
  const reel = reelOf(sampler);
  if (!reel || view.question || !writes(view, reel)) return null;
  const take = view.reel ? { take: view.reel.take } : {};
  const chunk = at && view.chunks[at.chunk];
  if (!chunk) return [];
  const number = at.chunk + 1;
  const reroll = {
    label: `Reroll from chunk ${number}`,
    title: `Makes chunk ${number} and all later ones again, with other seeds, as a new take`,
    act: () => queueOnce(reel, { ...take, action: "reroll", chunk: number }),
  };
  if (view.path[at.chunk] === at.candidate) {
    const lock = {
      label: number > 1 ? `Lock chunks 1 to ${number}` : "Lock chunk 1",
      title: "Sets lock on the Reel node: from the next run on no reroll or pick changes them",
      act: () => set(reel, { lock: number }),
    };
    return [reroll, lock];
  }
  if (chunk.cells[at.candidate].failure) return [reroll];
  const candidate = at.candidate + 1;
  const pick = {
    label: `Keep candidate ${candidate} instead`,
    title: `Goes on from candidate ${candidate} of chunk ${number}, as a new take`,
    act: () => queueOnce(reel, { ...take, action: "pick", chunk: number, candidate }),
  };
  return [reroll, pick];
}

// The node behind the sampler's `reel` input; old Reroute nodes are passed through.
function reelOf(sampler) {
  const slot = sampler.inputs?.findIndex(({ name }) => name === "reel") ?? -1;
  let node = slot < 0 ? null : sampler.getInputNode(slot);
  for (const seen = new Set(); node?.type === "Reroute" && !seen.has(node); ) {
    seen.add(node);
    node = node.getInputNode(0);
  }
  return node?.comfyClass === REEL ? node : null;
}

// Whether the run is of the reel that the node names now; a name that is wired in is not known here.
function writes({ reel }, node) {
  const wired = node.inputs?.some(({ name, link }) => name === "name" && link != null);
  return !reel || wired || widgetOf(node, "name").value === reel.name;
}

const widgetOf = (node, name) => node.widgets.find((widget) => widget.name === name);

function set(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name);
    widget.value = value;
    widget.callback?.(value);
  }
  node.setDirtyCanvas(true, true);
}

// For one prompt: what is queued afterwards goes on as before.
async function queueOnce(reel, values) {
  const after = { action: "continue", take: widgetOf(reel, "take").value };
  while (app.processingQueue) await new Promise((resolve) => setTimeout(resolve, BUSY_MS));
  set(reel, values);
  try {
    await app.queuePrompt(0, 1);
  } finally {
    set(reel, after);
  }
}
