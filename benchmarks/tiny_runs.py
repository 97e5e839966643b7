"""What benchmarks of the tiny model share: its tools, the quickstart's rewards, and the judge.

The judge is what no search sees: the oracle of ``training/``, and the drawn clip that is nearest to
the made one. Captions and seeds are those that training never saw, numbered from ``FIRST_CLIP``;
``training/measure.py`` has those before.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.rewards.base import Clips
from stream_t1_core.rewards.clip import ClipScore
from stream_t1_core.rewards.drift import ColourDrift
from stream_t1_core.rewards.flicker import Flicker
from stream_t1_core.rewards.mix import RewardMix
from stream_t1_core.rewards.motion import MotionAmount, TemporalConsistency
from stream_t1_core.scoring import Critic
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.tiny import TinyModel, load_tiny
from stream_t1_core.tools import Tools
from training import clips, oracle
from training.nearest import nearest, psnr, ssim

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "tiny_model"
FIRST_CLIP = 1000


def long_reward() -> RewardMix:
    """The quickstart's: four rewards that need no weights."""
    return RewardMix(
        (
            (1.0, TemporalConsistency()),
            (1.0, Flicker()),
            (0.5, MotionAmount(2.0)),
            (1.0, ColourDrift()),
        )
    )


def tiny_tools(
    prompt: str, weights: Path = WEIGHTS, clock: Callable[[], float] = time.process_time
) -> Tools:
    """All that a run needs, with the quickstart's rewards."""
    tiny, short = _loaded(weights)
    model = CausalWan(tiny.backbone)
    critic = Critic(StreamingDecoder(tiny.vae), short, long_reward(), prompt)
    return Tools(model, model.encode_text(tiny.encode_prompt(prompt)), critic, clock=clock)


def judged(frames: Tensor, scene: clips.Scene) -> dict[str, float]:
    """Quality of a made clip [T, 64, 64, 3] by what no search sees, but for the warping error."""
    verdict = oracle.judge(oracle.track(frames), scene)
    truth = nearest(frames, scene)
    seen = Clips(frames[None], frames[None], prompt="", fps=16.0)
    return {
        "oracle pass rate": float(verdict.all_right),
        "shape right": float(verdict.shape),
        "PSNR (dB)": psnr(frames, truth),
        "SSIM": ssim(frames, truth),
        "warping error (%)": -TemporalConsistency()(seen).item(),
        "flicker (grey levels)": verdict.flicker,
    }


@functools.cache
def _loaded(weights: Path) -> tuple[TinyModel, ClipScore]:
    return load_tiny(weights), ClipScore.from_folder(weights / "clip_tiny")
