"""Makes expected.json with VBench's own code and networks, on clips and weights drawn by formula.

``python tests/goldens/vbench/make.py`` where ``vbench==0.1.5`` and ``pyiqa==0.1.16`` are on the
path (``pip install --no-deps``), with what their used parts import: opencv-python-headless,
easydict, omegaconf, decord, imageio, scipy, torchvision, transformers. See README.md.
"""

import json
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tests" / "core"))
sys.modules["clip"] = types.ModuleType("clip")  # OpenAI's loader, of which nothing is used

import drawn  # noqa: E402
from vbench import (  # noqa: E402
    aesthetic_quality,
    background_consistency,
    dynamic_degree,
    imaging_quality,
    motion_smoothness,
    temporal_flickering,
)

TINY_CLIP = ROOT / "tiny_model" / "clip_tiny"
TINY_PIXELS = 64


def shown_as(frames: Tensor) -> Callable[..., Tensor]:
    """A stand-in for ``load_video``: these frames, [T, 3, H, W]."""
    return lambda path: frames.movedim(-1, 1)


def as_pictures(frames: Tensor, folder: Path) -> str:
    """PNG files of frames [T, H, W, 3], RGB."""
    for i, frame in enumerate(frames.numpy()):
        cv2.imwrite(str(folder / f"{i:03}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return str(folder)


def layout(network: nn.Module) -> dict[str, list[int]]:
    """Shape by name of what a file of this network holds."""
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def flickering() -> dict[str, float]:
    frames = drawn.moving_waves(5, 40, 60)
    temporal_flickering.get_frames = lambda path: list(frames.numpy())
    return {"score": temporal_flickering.cal_score("")}


def tiny_clip() -> nn.Module:
    """The one that ships, with the method that VBench calls."""
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(TINY_CLIP, local_files_only=True).eval()
    clip.encode_image = lambda pictures: clip.visual_projection(
        clip.vision_model(pixel_values=pictures).pooler_output
    )
    return clip


@torch.no_grad()
def seen_by_clip(module: types.ModuleType, score: Callable[[], float]) -> dict[str, float]:
    """On wide, tall and square pictures; some crops are off the middle."""
    transform = module.clip_transform
    module.clip_transform = lambda size: transform(TINY_PIXELS)
    scores = {}
    for height, width in ((72, 125), (125, 72), (64, 64)):
        module.load_video = shown_as(drawn.moving_waves(4, height, width))
        scores[f"{height}x{width}"] = score()
    return scores


def background() -> dict[str, float]:
    clip, module = tiny_clip(), background_consistency
    return seen_by_clip(
        module, lambda: module.background_consistency(clip, None, [""], "cpu", False)[0]
    )


def aesthetic() -> dict:
    clip, module = tiny_clip(), aesthetic_quality
    head = nn.Linear(clip.config.projection_dim, 1)
    shapes = layout(head)
    head.load_state_dict(drawn.weights(shapes))
    scores = seen_by_clip(module, lambda: module.laion_aesthetic(head, clip, [""], "cpu")[0])
    return {"layout": shapes, "scores": scores}


def dynamic(folder: Path) -> dict:
    """RAFT's speeds on pictures whose sides are no multiples of 8, its flow, and the rule alone."""
    options = dict(model=str(folder / "raft.pth"), small=False, alternate_corr=False)
    options = dynamic_degree.edict(options, mixed_precision=False)
    shapes = {f"module.{k}": v for k, v in layout(dynamic_degree.RAFT(options)).items()}
    torch.save(drawn.weights(shapes), options.model)
    metric = dynamic_degree.DynamicDegree(options, "cpu")
    frames = drawn.moving_waves(3, 130, 141)
    speeds, verdict = [], metric.check_move
    metric.check_move = lambda found: speeds.extend(found) or verdict(found)
    metric.infer(as_pictures(frames, folder))
    with torch.no_grad():
        first, second = frames[:2, :128, :136].movedim(-1, 1).float().split(1)
        _, flow = metric.model(first, second, iters=20, test_mode=True)
    needed = []
    for count in range(3, 40):
        metric.set_params(torch.zeros(3, 480, 832), count)
        runs = [[99.0] * moving + [0.0] * (count - 1 - moving) for moving in range(count)]
        needed.append((count, [verdict(run) for run in runs].index(True)))
    return {
        "layout": shapes,
        "speeds": speeds,
        "flow": flow[0, :, 4::24, 4::24].tolist(),
        "moving_frames_needed_of": needed,
        "threshold_of_480": metric.params["thres"],
    }


def imaging() -> dict:
    """MUSIQ on a wide, a tall and a small picture; the first two are shrunk to 512 pixels."""
    shapes = layout(imaging_quality.MUSIQ(pretrained=False))
    network = imaging_quality.MUSIQ(pretrained=False)
    network.load_state_dict(drawn.weights(shapes))
    network.training = False  # as VBench does
    scores = {}
    for height, width in ((300, 610), (530, 250), (64, 90)):
        imaging_quality.load_video = shown_as(drawn.moving_waves(2, height, width))
        with torch.no_grad():
            score, _ = imaging_quality.technical_quality(network, [""], "cpu")
        scores[f"{height}x{width}"] = score
    return {"layout": shapes, "scores": scores}


def smoothness(folder: Path) -> dict:
    """AMT-S on pictures whose sides are no multiples of 16, the last without a later neighbour."""
    config = Path(motion_smoothness.__file__).parent / "third_party/amt/cfgs/AMT-S.yaml"
    settings = motion_smoothness.OmegaConf.load(config).network
    shapes = layout(motion_smoothness.build_from_cfg(settings))
    torch.save({"state_dict": drawn.weights(shapes, drawn.AMT_GAIN)}, folder / "amt.pth")
    metric = motion_smoothness.MotionSmoothness(str(config), str(folder / "amt.pth"), "cpu")
    frames = drawn.moving_waves(6, 130, 141)
    (folder / "six").mkdir()
    score = metric.motion_score(as_pictures(frames, folder / "six"))
    pictures = frames[:, :128, :128].movedim(-1, 1).float() / 255
    with torch.no_grad():
        halfway = metric.model(pictures[:1], pictures[2:3], metric.embt, eval=True)["imgt_pred"]
    return {
        "layout": shapes,
        "score": score,
        "halfway": halfway[0, :, 4::24, 4::24].tolist(),
    }


def lines(found: dict, depth: int = 0) -> str:
    """JSON with a line for each number, list or shape."""
    if not isinstance(found, dict):
        return json.dumps(found)
    pad = " " * depth
    rows = [f"{pad} {json.dumps(str(k))}: {lines(v, depth + 1)}" for k, v in found.items()]
    return "{\n" + ",\n".join(rows) + f"\n{pad}}}"


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "temporal_flickering": flickering(),
            "background_consistency": background(),
            "aesthetic_quality": aesthetic(),
            "dynamic_degree": dynamic(Path(folder)),
            "imaging_quality": imaging(),
            "motion_smoothness": smoothness(Path(folder)),
        }
    (HERE / "expected.json").write_text(lines(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
