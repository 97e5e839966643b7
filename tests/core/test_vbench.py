"""VBench's metrics: inputs with known answers, and parity with VBench's own code and networks.

``tests/goldens/vbench`` tells how the recorded numbers were made.
"""

import json
import math
from pathlib import Path

import drawn
import pytest
import torch
from torch import Tensor

from stream_t1_core.rewards.background import BackgroundConsistency
from stream_t1_core.rewards.base import Clips, Reward
from stream_t1_core.rewards.flicker import TemporalFlickering

ROOT = Path(__file__).parents[2]
TINY_CLIP = ROOT / "tiny_model" / "clip_tiny"
GOLDENS = ROOT / "tests" / "goldens" / "vbench" / "expected.json"
EXPECTED = json.loads(GOLDENS.read_text(encoding="utf-8"))


def clips(*candidates: Tensor, fps: float = 16.0) -> Clips:
    frames = torch.stack(candidates)
    return Clips(frames, frames, "", fps)


def waves(frames: int, height: int, width: int) -> Tensor:
    return drawn.moving_waves(frames, height, width) / 255


def grey(*levels: float, height: int = 8, width: int = 8) -> Tensor:
    """A plain frame of each level: [T, H, W, 3]."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, height, width, 3)


def test_flickering_is_one_less_the_mean_step() -> None:
    still, fading, jumping = grey(0.2, 0.2, 0.2), grey(0.2, 0.4, 0.6), grey(0.0, 1.0, 1.0)
    found = TemporalFlickering()(clips(still, fading, jumping))
    assert found.tolist() == pytest.approx([1.0, 0.8, 0.5])


def test_flickering_is_vbenchs() -> None:
    expected = EXPECTED["temporal_flickering"]["score"]
    assert TemporalFlickering()(clips(waves(5, 40, 60))).item() == pytest.approx(expected, abs=1e-6)


def test_a_background_that_stays_is_perfect_and_a_cut_counts_against_both_frames() -> None:
    metric = BackgroundConsistency.from_folder(TINY_CLIP)
    scene = waves(1, 72, 100)
    other = torch.zeros_like(scene)
    (across,) = metric(clips(torch.cat([scene, other]))).tolist()
    still, late = metric(
        clips(torch.cat([scene, scene, scene]), torch.cat([scene, scene, other]))
    ).tolist()
    assert still == pytest.approx(1.0, abs=1e-5)
    assert 0 < across < 0.9 and late == pytest.approx((1 + across) / 2, abs=1e-5)


@pytest.mark.parametrize("size", ["72x125", "125x72", "64x64"])
def test_background_consistency_is_vbenchs(size: str) -> None:
    """The crop of 72 x 125 and 125 x 72 has an odd pixel to give away: torchvision's place."""
    found = BackgroundConsistency.from_folder(TINY_CLIP)(
        clips(waves(4, *map(int, size.split("x"))))
    )
    assert found.item() == pytest.approx(EXPECTED["background_consistency"][size], abs=1e-5)


METRICS = {
    "temporal_flickering": TemporalFlickering,
    "background_consistency": lambda: BackgroundConsistency.from_folder(TINY_CLIP),
}


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> Reward:
    """Each of the metrics, freshly loaded."""
    return METRICS[request.param]()


def test_a_batch_scores_as_its_clips_one_by_one(metric: Reward) -> None:
    candidates = waves(4, 72, 80), waves(6, 72, 80)[2:], grey(*4 * [0.5], height=72, width=80)
    alone = [metric(clips(candidate)) for candidate in candidates]
    found = metric(clips(*candidates))
    assert found.shape == (3,) and found.dtype == torch.float32
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=0)


def test_a_broken_pixel_makes_its_clip_nan_and_no_other(metric: Reward) -> None:
    broken = waves(4, 72, 80)
    broken[3, 0, 0, 0] = math.nan
    found = metric(clips(waves(4, 72, 80), broken))
    assert found.isnan().tolist() == [False, True]


def test_one_frame_is_too_few(metric: Reward) -> None:
    with pytest.raises(ValueError, match=metric.name):
        metric(clips(waves(1, 72, 80)))
