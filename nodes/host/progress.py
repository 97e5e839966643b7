"""Core events -> the host's progress bar with a preview image, and its Cancel."""

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from PIL import Image
from torch import Tensor

from ...stream_t1_core.events import (
    CandidatesMade,
    ChunkDone,
    Event,
    RunDone,
    StepDone,
    SurvivorsRefined,
)

PREVIEW_PIXELS = 384


class ProgressEvents:
    """Callable for ``emit``. Raises the host's interrupt before a denoiser call."""

    def __init__(self, denoiser_calls: int) -> None:
        self.total = denoiser_calls
        self.done = 0
        self.bar = comfy.utils.ProgressBar(denoiser_calls)
        self.last_frames: list[Tensor | None] = []  # of the newest candidates

    def __call__(self, event: Event) -> None:
        throw_exception_if_processing_interrupted()
        if isinstance(event, StepDone):
            self.done = event.done
            self.bar.update_absolute(self.done, self.total)
        elif isinstance(event, CandidatesMade):
            self.last_frames = [None if f is None else _last_of(f) for f in event.frames]
        elif isinstance(event, SurvivorsRefined):
            for index, frames in event.frames.items():
                self.last_frames[index] = _last_of(frames)
        elif isinstance(event, ChunkDone):
            best = [c.rank for c in event.candidates].index(0)
            if self.last_frames[best] is not None:
                preview = _preview(self.last_frames[best])
                self.bar.update_absolute(self.done, self.total, preview)
        elif isinstance(event, RunDone):
            self.bar.update_absolute(self.total, self.total)


def _last_of(frames: Tensor) -> Tensor:
    """Off the device where the rest is, and in memory of its own."""
    return frames[-1].to("cpu", copy=True)


def _preview(frame: Tensor) -> tuple[str, Image.Image, int]:
    """Frame [H, W, 3] in 0..1 -> the host's preview triple, fitted into PREVIEW_PIXELS."""
    image = Image.fromarray((frame * 255).round().byte().numpy())
    return ("JPEG", image, PREVIEW_PIXELS)
