// The Reel node that is plugged into a sampler: what can be done with it about one candidate, by
// setting its widgets and queueing the prompt as the front end does. Importing it does nothing.

import { app } from "../../scripts/app.js";

const REEL = "StreamT1Reel";
const BUSY_MS = 50; // between looks whether the front end has queued what it was asked to

// The buttons for the candidate at {chunk, candidate}; null where no Reel node is plugged in, or
// something else is to be decided first.
export function reelActions(sampler, view, at) {
  const reel = reelOf(sampler);
  if (!reel || view.question) return null;
  const chunk = at && view.chunks[at.chunk];
  if (!chunk) return [];
  const number = at.chunk + 1;
  const actions = [
    {
      label: `Reroll from chunk ${number}`,
      title: `Makes chunk ${number} and all later ones again, with other seeds, as a new take`,
      act: () => queueOnce(reel, { action: "reroll", chunk: number }),
    },
    {
      label: number > 1 ? `Lock chunks 1 to ${number}` : "Lock chunk 1",
      title: "Sets lock on the Reel node: no reroll and no pick changes them",
      act: () => set(reel, { lock: number }),
    },
  ];
  const { failure } = chunk.cells[at.candidate];
  if (!failure && view.path[at.chunk] !== at.candidate) {
    const candidate = at.candidate + 1;
    actions.splice(1, 0, {
      label: `Keep candidate ${candidate} instead`,
      title: `Goes on from candidate ${candidate} of chunk ${number}, as a new take`,
      act: () => queueOnce(reel, { action: "pick", chunk: number, candidate }),
    });
  }
  return actions;
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

function set(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets.find((one) => one.name === name);
    widget.value = value;
    widget.callback?.(value);
  }
  node.setDirtyCanvas(true, true);
}

// For one prompt: what is queued afterwards goes on as before.
async function queueOnce(reel, values) {
  while (app.processingQueue) await new Promise((resolve) => setTimeout(resolve, BUSY_MS));
  set(reel, values);
  try {
    await app.queuePrompt(0, 1);
  } finally {
    set(reel, { action: "continue" });
  }
}
