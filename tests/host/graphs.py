"""API prompts for the host tier: the shipped workflows, cut down to seconds on a CPU."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from devtools.server import PACK_ROOT

Prompt = dict[str, dict]
WORKFLOWS = PACK_ROOT / "workflows"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))


def api(name: str) -> Prompt:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def id_of(prompt: Prompt, class_type: str) -> str:
    """The id of the one node of a class."""
    (found,) = [key for key, node in prompt.items() if node["class_type"] == class_type]
    return found


def small(frames: int = 9, steps: int = 1, **sampler: object) -> Prompt:
    """The quickstart at 32 x 32 pixels: three latent frames (one chunk) unless told otherwise.

    Without its Budget, and with no more candidates than that allows: four a chunk, two survive.
    ``sampler`` changes the sampler's inputs; None unplugs one.
    """
    prompt = changed(api("quickstart"), "StreamT1RewardPruner", beam_width=2, branch_factor=2)
    prompt = changed(prompt, "StreamT1ChunkBeamSampler", budget=None)
    del prompt[id_of(prompt, "StreamT1Budget")]
    prompt[id_of(prompt, "EmptyHunyuanLatentVideo")]["inputs"] |= {
        "width": 32,
        "height": 32,
        "length": frames,
    }
    inputs = prompt[id_of(prompt, "StreamT1ChunkBeamSampler")]["inputs"]
    inputs |= {"steps": steps, **sampler}
    for name in [name for name, value in inputs.items() if value is None]:
        del inputs[name]
    return prompt


def changed(prompt: Prompt, class_type: str, /, **inputs: object) -> Prompt:
    """A copy with some inputs of one node set; None unplugs one."""
    prompt = copy.deepcopy(prompt)
    kept = prompt[id_of(prompt, class_type)]["inputs"]
    kept |= inputs
    for name in [name for name, value in kept.items() if value is None]:
        del kept[name]
    return prompt


def reports(folder: Path) -> list[list[dict]]:
    """All reports below a folder, oldest first, each as its events."""
    paths = sorted(folder.rglob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]
