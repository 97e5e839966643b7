"""The paper's protocol: every prompt of a file, at every length, by every workflow, all scored.

Run it beside a ComfyUI that has the pack and the models, here for 5 and 30 seconds of LongLive:

    python -m benchmarks.protocol prompts.txt --server http://127.0.0.1:8188 \\
        --workflows workflows/api/longlive_plain.json workflows/api/longlive_stream_t1.json \\
        --frames 81 481 --rewards benchmarks/protocol_paper.json --output protocol.jsonl

``prompts.txt`` has a prompt a line. ``--rewards`` is a workflow in ComfyUI's API format whose
Evaluate node says what to score by: ``protocol_paper.json`` has VBench's metrics and VideoAlign,
whose weights the Doctor node asks for; without one, the rewards that need no weights do. Videos and
reports are saved by the workflows' own nodes. One row per prompt, length and workflow is written as
it is done: run it again to go on, and rows that ended in an error are tried again. It ends with a
table: means with 95 % intervals over prompts, and each workflow less the first, prompt by prompt.

The size is the workflow's own (LongLive: 832 x 480). Needs aiohttp and a clone of this repository.
"""

import argparse
import contextlib
import copy
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from devtools.client import Prompt, run_prompt

from .measured import differences, markdown, means

ROOT = Path(__file__).resolve().parents[1]
REWARDS = ROOT / "benchmarks" / "protocol_rewards.json"
SAMPLER, EVALUATE = "StreamT1ChunkBeamSampler", "StreamT1Evaluate"
SAVERS = ("SaveVideo", "SaveWEBM", "SaveImage", "StreamT1SaveReport", "StreamT1VideoWriter")
MOST_HOURS = 24
Key = tuple[str, int, int]  # workflow, frames, prompt


def only(nodes: Prompt, kind: str, path: Path) -> str:
    """The id of the one node of a kind."""
    found = [name for name, node in nodes.items() if node["class_type"] == kind]
    if len(found) != 1:
        raise ValueError(f"{path}: {len(found)} nodes {kind}; this needs one")
    return found[0]


def varied(nodes: Prompt, path: Path, prompt: str, seed: int, frames: int, name: str) -> Prompt:
    """A workflow with another prompt, seed and length, saving under ``name``."""
    nodes = copy.deepcopy(nodes)
    sampler = nodes[only(nodes, SAMPLER, path)]["inputs"]
    said = nodes[sampler["positive"][0]]["inputs"].get("text")
    while isinstance(said, list):  # a text node before the text encoder
        said = next(v for v in nodes[said[0]]["inputs"].values() if isinstance(v, list | str))
    if not said:
        raise ValueError(f"{path}: no prompt found before the sampler's positive input")
    for node in nodes.values():  # the encoder's, and what rewards are told
        for key, value in node["inputs"].items():
            if value == said:
                node["inputs"][key] = prompt
        if node["class_type"] in SAVERS:
            node["inputs"]["filename_prefix"] = name
    sampler["seed"] = seed
    nodes[sampler["latent"][0]]["inputs"]["length"] = frames
    return nodes


def scored(nodes: Prompt, path: Path, rewards: Prompt, prompt: str) -> Prompt:
    """The workflow with an Evaluate node at its end, whose JSON node ``told`` shows."""
    sampler = only(nodes, SAMPLER, path)
    added = {f"score {name}": copy.deepcopy(node) for name, node in rewards.items()}
    for node in added.values():
        for key, value in node["inputs"].items():
            if isinstance(value, list):
                node["inputs"][key] = [f"score {value[0]}", value[1]]
    evaluate = only(added, EVALUATE, path)
    added[evaluate]["inputs"] |= {"images": [sampler, 1], "prompt": prompt}
    told = {"class_type": "PreviewAny", "inputs": {"source": [evaluate, 2]}}
    return {**nodes, **added, "told": told}


def run(url: str, nodes: Prompt) -> dict[str, Any]:
    """One video: its seconds and scores, or why there is none."""
    began = time.monotonic()
    done = run_prompt(url, nodes, timeout_seconds=3600 * MOST_HOURS)
    if done.error:
        told = done.error
        return {"error": f"{told.get('node_type')}: {told.get('exception_message', '').strip()}"}
    if done.interrupted:
        return {"error": "interrupted"}
    found = json.loads(done.outputs["told"]["text"][0])
    scores = {reward["name"]: reward["video"] for reward in found["rewards"]}
    return {"seconds": round(time.monotonic() - began, 3), "scores": scores}


def read(path: Path) -> dict[Key, dict[str, Any]]:
    """Rows that are done: those without an error, and not cut off."""
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if "error" not in row:
                done[row["workflow"], row["frames"], row["index"]] = row
    return done


def table(done: Mapping[Key, Mapping[str, Any]], names: Iterable[str], frames: int) -> str:
    """Means of each workflow at one length, and what it has more than the first."""
    names = list(names)
    shared = set.intersection(
        *({i for n, f, i in done if (n, f) == (name, frames)} for name in names)
    )
    rows = {
        name: [
            {"seconds": row["seconds"], **{k: v for k, v in row["scores"].items() if v is not None}}
            for row in (done[name, frames, index] for index in sorted(shared))
        ]
        for name in names
    }
    if not shared:
        return f"{frames} frames: no prompt is done by every workflow yet\n"
    known = set.intersection(*(set(row) for of in rows.values() for row in of))
    columns = [key for key in rows[names[0]][0] if key in known]
    rows = {name: [{key: row[key] for key in columns} for row in of] for name, of in rows.items()}
    parts = [markdown({n: means(of) for n, of in rows.items()}, f"{frames} frames", columns)]
    if len(names) > 1:
        less = {n: differences(rows[n], rows[names[0]]) for n in names[1:]}
        parts.append(markdown(less, f"less {names[0]}", columns))
    return f"{len(shared)} prompts\n\n" + "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--workflows", type=Path, nargs="+", required=True)
    parser.add_argument("--frames", type=int, nargs="+", default=[81, 481], help="pixel frames")
    parser.add_argument("--rewards", type=Path, default=REWARDS)
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt; the next is 1 up")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    prompts = [p for p in options.prompts.read_text(encoding="utf-8").splitlines() if p.strip()]
    rewards = json.loads(options.rewards.read_text(encoding="utf-8"))
    only(rewards, EVALUATE, options.rewards)
    done = read(options.output)
    with options.output.open("a", encoding="utf-8") as file:
        if file.tell():
            file.write("\n")  # ends a line that was cut off
        for index, prompt in enumerate(prompts):
            for frames in options.frames:
                for path in options.workflows:
                    if (path.stem, frames, index) in done:
                        continue
                    nodes, seed = json.loads(path.read_text(encoding="utf-8")), options.seed + index
                    name = f"protocol/{path.stem}_{frames}_{index:04}"
                    nodes = varied(nodes, path, prompt, seed, frames, name)
                    row = run(options.server, scored(nodes, path, rewards, prompt))
                    head = {"workflow": path.stem, "frames": frames, "index": index, "seed": seed}
                    row = {**head, "prompt": prompt, **row}
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    print(f"{name}: {row.get('error') or row['seconds']}", flush=True)
                    if "error" not in row:
                        done[path.stem, frames, index] = row
    for frames in options.frames:
        print("\n" + table(done, [path.stem for path in options.workflows], frames))


if __name__ == "__main__":
    main()
