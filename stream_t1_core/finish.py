"""The end of a run: the path that is best as a whole video is chosen, and handed out."""

from dataclasses import dataclass, field

from torch import Tensor

from . import scoring, search
from .accounts import total
from .config import StreamConfig
from .events import Emit, FramesSettled, RunDone
from .settle import hand_out
from .show import as_shown, show
from .state import Shown, StreamState
from .tools import Tools


@dataclass(frozen=True, eq=False)
class Video:
    """The chosen path: latent [1, C, F, h, w]; frames [T, H, W, 3], or None without a decoder.

    Both are None where the run did not keep the whole video.
    """

    latent: Tensor | None = field(repr=False)
    frames: Tensor | None = field(repr=False)
    best_beam: int
    final_scores: tuple[float | None, ...]


def finish(state: StreamState, tools: Tools, config: StreamConfig, emit: Emit) -> Video:
    """Choose the best beam by the long reward of its whole video; a state cut short is fine."""
    critic = tools.critic_at(state.chunk - 1)
    tips = {beam.rank: beam.chunk for beam in state.beams}
    ends: dict[int, Shown] = {}
    if all(tip.scores.as_shown for tip in tips.values()):  # as the last chunk's candidates were
        ends = {rank: show(state.shown, tip, tools.decoder) for rank, tip in tips.items()}
    scores = {}
    for rank, tip in tips.items():
        judged = as_shown(ends[rank], tip) if ends else None
        scores[rank] = scoring.final_score(tip, critic, config, state.seen, judged)
    best = [*tips][search.choose([*scores.values()])]
    final = tuple(scores.get(rank) for rank in range(max(scores) + 1))
    latent, frames = (None, None)
    shown, decoder = state.shown, tools.decoder or critic.decoder
    if shown and tools.behind:
        shown = tools.behind.arrived(shown)
    if shown and not config.isolated:
        shown = ends.get(best) or show(shown, tips[best], decoder)
    if config.whole:
        latent, frames = scoring.video(tips[best], decoder, config, shown)
    if config.isolated:
        emit(FramesSettled(0, latent[0], frames))
    else:
        hand_out(tips[best], state.settled, config, emit, shown)
    path = [chunk for chunk in tips[best].path() if chunk.seed is not None]
    seeds, routes = tuple(c.seed for c in path), tuple(c.route for c in path)
    emit(RunDone(final, best, seeds, routes, total(config, state.spending)))
    return Video(latent, frames, best, final)
