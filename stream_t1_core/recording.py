"""Keep a run in its reel while it runs: an ``emit`` that writes each chunk that is not there."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .events import CandidatesMade, ChunkDone, Event, SurvivorsRefined
from .reel import Reel
from .reel_content import StoredChunk, Take
from .report import record


class Recorder:
    """Callable for ``emit``. ``prompt(chunk)``: SHA of its prompt in the reel, and keep_sinks."""

    def __init__(
        self, reel: Reel, take: Take, stored: int, prompt: Callable[[int], tuple[str, bool]]
    ) -> None:
        self.reel = reel
        self.take = take
        self.stored = stored  # chunks that are there
        self.prompt = prompt
        self.made: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] = ((), ())  # latents, noise
        self.refined: Mapping[int, Tensor] = {}  # latents by candidate

    def __call__(self, event: Event) -> None:
        if isinstance(event, CandidatesMade) and event.chunk >= self.stored:
            self.made, self.refined = (event.latents, event.noise), {}
        elif isinstance(event, SurvivorsRefined):
            self.refined = event.latents
        elif isinstance(event, ChunkDone) and event.chunk >= self.stored:
            latents, noise = self.made
            kept = sorted((c.rank, i) for i, c in enumerate(event.candidates) if c.rank is not None)
            stored = StoredChunk(
                record(event),
                torch.stack(latents),
                torch.stack([noise[i] for _, i in kept]),
                *self.prompt(event.chunk),
                self.refined,
            )
            self.reel.write(self.take, event.chunk, stored)
            self.stored = event.chunk + 1
            self.made, self.refined = ((), ()), {}
