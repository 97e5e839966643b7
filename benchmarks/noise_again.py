"""Is noise that was good for a chunk good for the next one? The tiny model, ways to pass it on.

Run ``python -m benchmarks.noise_again``; it writes ``benchmarks/results/noise_again.{json,md}``.
The search of ``benchmarks/systems.py`` with fresh noise; with noise propagation as released, which
mixes the first noise, of which little is left (``benchmarks/first_noise.py``), and whose first
branch draws all noise from its parent's seed again; and with the noise of every step mixed with the
parent's, the more of it the greater ``beta``, where the first branch has the parent's as it is. If
good noise stayed good, the first branch would be above its siblings, and more of it would help.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stream_t1_core import noise
from stream_t1_core.config import NoisePropagation
from stream_t1_core.events import CandidateReport, ChunkDone, Event
from stream_t1_core.generate import generate
from training.clips import evaluation_seed
from training.measure import LATENT_HW, SHORT_FRAMES, evaluation_pair

from .compare import Comparison, command_line, compare, less
from .measured import Job, Row
from .system import liked
from .systems import BEAM, UNITS
from .tiny_runs import judged, tiny_tools

FRESH, RELEASED = "fresh", "as released"
BETAS = {f"every step, beta {beta}": beta for beta in (0.5, 0.8, 0.95)}


@dataclass(eq=False)
class Inherited:
    """Draws noise of all steps, mixed with the parent's; ``told`` which candidates go on.

    ``parents``: the beams' noise, best first; ``drawn``: the candidates', in the order tried.
    """

    beta: float
    parents: list[Tensor] = field(default_factory=list)
    drawn: list[Tensor] = field(default_factory=list)

    def draw(self, seed: int, steps: int, shape: tuple[int, int, int, int]) -> Tensor:
        mine = noise.draw(seed, steps, shape)
        if self.parents:
            rank, branch = divmod(len(self.drawn), BEAM.branch_factor)
            mixed = self.beta * self.parents[rank] + math.sqrt(1 - self.beta**2) * mine
            mine = mixed if branch else self.parents[rank]
        self.drawn.append(mine)
        return mine

    def told(self, done: ChunkDone) -> None:
        assert len(self.drawn) == len(done.candidates), "who drew what is known by the order"
        ranks = {c.rank: i for i, c in enumerate(done.candidates) if c.rank is not None}
        self.parents, self.drawn = [self.drawn[ranks[rank]] for rank in sorted(ranks)], []


def measure(job: Job) -> Row:
    """One clip, its noise passed on in one way."""
    way, clip = job
    scene, prompt = evaluation_pair(clip)
    tools, done, inherited = tiny_tools(prompt), [], None
    unit = NoisePropagation() if way == RELEASED else None
    config = replace(UNITS, noise=unit).config(SHORT_FRAMES, evaluation_seed(clip))
    if way in BETAS:
        inherited = Inherited(BETAS[way])
        tools = replace(tools, draw=inherited.draw)

    def emit(event: Event) -> None:
        if isinstance(event, ChunkDone):
            done.append(event)
            if inherited:
                inherited.told(event)

    with torch.inference_mode():
        frames = generate(tools, config, LATENT_HW, emit).frames
        row = {"denoiser calls": config.denoiser_calls, **judged(frames, scene)}
        row |= liked([frames], tools.critic, config.fps)
    families = [family for chunk in done[1:] for family in siblings(chunk)]
    above = [found for family in families if (found := first_above(family)) is not None]
    best = [family[0].fused == max(c.fused for c in family) for family in families]
    told = {"first branch's score (SD)": statistics.fmean(above)}
    return row | told | {"first branch best (%)": 100 * statistics.fmean(best)}


def siblings(chunk: ChunkDone) -> Iterator[list[CandidateReport]]:
    """Candidates of each beam, its first branch first; of those that all have a score."""
    for parent in {c.parent for c in chunk.candidates}:
        family = [c for c in chunk.candidates if c.parent == parent]
        if all(c.fused is not None for c in family):
            yield family


def first_above(family: list[CandidateReport]) -> float | None:
    """The first one's distance from the mean of all, in their deviations; None of equals."""
    scores = [c.fused for c in family]
    spread = statistics.pstdev(scores)
    return (scores[0] - statistics.fmean(scores)) / spread if spread else None


NAMES = (FRESH, RELEASED, *BETAS)
COMPARISON = Comparison(
    name="noise_again",
    about=__doc__,
    way="noise",
    measure=measure,
    names=NAMES,
    config=replace(UNITS, noise=None).config(SHORT_FRAMES, seed=0),
    differences=less(FRESH, NAMES),
)

if __name__ == "__main__":
    compare(COMPARISON, command_line(__doc__, clips=24).parse_args())
