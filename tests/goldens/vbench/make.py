"""Makes expected.json with VBench's own code and networks, on clips and weights drawn by formula.

``python tests/goldens/vbench/make.py`` where ``vbench==0.1.5`` and ``pyiqa==0.1.16`` are on the
path (``pip install --no-deps``), with what their used parts import: opencv-python-headless,
easydict, omegaconf, decord, imageio, scipy, torchvision, transformers. See README.md.
"""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tests" / "core"))
sys.modules["clip"] = types.ModuleType("clip")  # OpenAI's loader, of which nothing is used

import drawn  # noqa: E402
from vbench import (  # noqa: E402
    background_consistency,
    temporal_flickering,
)

TINY_CLIP = ROOT / "tiny_model" / "clip_tiny"
TINY_PIXELS = 64


def shown_as(frames: Tensor) -> Callable[..., Tensor]:
    """A stand-in for ``load_video``: these frames, [T, 3, H, W]."""
    return lambda path: frames.movedim(-1, 1)


def flickering() -> dict[str, float]:
    frames = drawn.moving_waves(5, 40, 60)
    temporal_flickering.get_frames = lambda path: list(frames.numpy())
    return {"score": temporal_flickering.cal_score("")}


@torch.no_grad()
def background() -> dict[str, float]:
    """By the tiny CLIP that ships, on wide and tall pictures; one crop is off the middle."""
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(TINY_CLIP, local_files_only=True).eval()

    def encode_image(pictures: Tensor) -> Tensor:
        return clip.visual_projection(clip.vision_model(pixel_values=pictures).pooler_output)

    model = types.SimpleNamespace(encode_image=encode_image)
    transform = background_consistency.clip_transform
    background_consistency.clip_transform = lambda size: transform(TINY_PIXELS)
    scores = {}
    for height, width in ((72, 125), (125, 72), (64, 64)):
        frames = drawn.moving_waves(4, height, width)
        background_consistency.load_video = shown_as(frames)
        score, _ = background_consistency.background_consistency(model, None, [""], "cpu", False)
        scores[f"{height}x{width}"] = score
    return scores


def main() -> None:
    torch.set_num_threads(1)
    found = {
        "temporal_flickering": flickering(),
        "background_consistency": background(),
    }
    (HERE / "expected.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
