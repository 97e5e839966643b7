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

from stream_t1_core.rewards.base import Clips, Reward
from stream_t1_core.rewards.flicker import TemporalFlickering

GOLDENS = Path(__file__).parent.parent / "goldens" / "vbench" / "expected.json"
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


@pytest.fixture(params=["temporal_flickering"])
def metric(request: pytest.FixtureRequest) -> Reward:
    return {"temporal_flickering": TemporalFlickering}[request.param]()


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
