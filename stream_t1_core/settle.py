"""Hand out what no later decision can change, and forget what no later chunk needs.

While several beams live, the end of the video is open; what all of them share is settled. A run
that keeps the whole video forgets nothing. One that does not keeps the last chunks only: those that
rewards and a prompt switch look back on. There a path that has gone its own way for as long as the
long reward looks back is given up for the best one, so that the end that is open stays short.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from torch import Tensor

from .config import StreamConfig
from .events import Emit, FramesSettled
from .state import Beam, Chunk, Shown, StreamState


def settle(state: StreamState, config: StreamConfig, emit: Emit) -> StreamState:
    """Emit the newly settled frames; without ``config.whole`` forget the old ones."""
    beams, shown = _alive(state.beams, config), state.shown
    shared = shared_chunk(beams)
    if shared is None or config.isolated:  # isolated: the whole is decoded at the end
        return replace(state, beams=beams)
    settled = hand_out(shared, state.settled, config, emit, shown)
    if not config.whole:
        beams = _forget(beams, look_back(config))
        shown = shown and replace(shown, frames=_looked_back_on(shown, beams, config))
    return replace(state, beams=beams, settled=settled, shown=shown)


def settled_chunk(state: StreamState, config: StreamConfig) -> Chunk | None:
    """The newest chunk that ``settle`` will hand out."""
    return None if config.isolated else shared_chunk(_alive(state.beams, config))


def hand_out(
    tip: Chunk, settled: int, config: StreamConfig, emit: Emit, shown: Shown | None = None
) -> int:
    """Emit the path to ``tip`` from frame ``settled`` on; the first frame that is left to emit.

    What is not ``shown`` yet is left.
    """
    for chunk in path_from(settled, tip):
        if shown and chunk.first_frame >= shown.until:
            break
        emit(FramesSettled(chunk.first_frame, *footage(chunk, config, shown)))
        settled = chunk.first_frame + chunk.latent.shape[1]
    return settled


def path_from(first_frame: int, tip: Chunk) -> list[Chunk]:
    """The path to ``tip`` from the chunk that begins with a latent frame."""
    fresh = takewhile(lambda chunk: chunk.first_frame >= first_frame, tip.ancestors())
    return [*fresh][::-1]


def footage(
    chunk: Chunk, config: StreamConfig, shown: Shown | None = None
) -> tuple[Tensor, Tensor | None]:
    """A chunk's latent and frames, the last chunk's cut where the video ends."""
    latent = chunk.latent
    frames = shown.frames[chunk.first_frame] if shown else chunk.frames
    surplus = chunk.first_frame + latent.shape[1] - config.latent_frames
    if surplus <= 0:
        return latent, frames
    if frames is not None:
        frames = frames[: len(frames) - surplus * _frames_per_latent(chunk, frames)]
    return latent[:, :-surplus], frames


def look_back(config: StreamConfig) -> int:
    """Chunks that a path must remember: for the long reward and for a prompt switch."""
    return max(config.plan.span_chunks, config.memory.window_frames // config.frames_per_chunk) + 1


def shared_chunk(beams: Sequence[Beam]) -> Chunk | None:
    """The newest chunk that is on every beam's path, as far as the paths are remembered."""
    chunks = [beam.chunk for beam in beams]
    while chunks[0] is not None and any(chunk is not chunks[0] for chunk in chunks):
        chunks = [chunk.parent for chunk in chunks]
    return chunks[0]


def _frames_per_latent(chunk: Chunk, frames: Tensor) -> int:
    """Pixel frames of a latent frame that is not the video's very first."""
    latents, count = chunk.latent.shape[1], len(frames)
    return count // latents if chunk.first_frame else (count - 1) // (latents - 1)


def _alive(beams: tuple[Beam, ...], config: StreamConfig) -> tuple[Beam, ...]:
    """The beams that go on."""
    return beams if config.whole else _agreed(beams, config.plan.span_chunks)


def _agreed(beams: tuple[Beam, ...], most: int) -> tuple[Beam, ...]:
    """The beams that share the best one's chunk ``most`` chunks ago."""

    def ancestor(beam: Beam) -> Chunk | None:
        chunk = beam.chunk
        for _ in range(most):
            chunk = chunk and chunk.parent
        return chunk

    return tuple(beam for beam in beams if ancestor(beam) is ancestor(beams[0]))


def _looked_back_on(shown: Shown, beams: Sequence[Beam], config: StreamConfig) -> dict[int, Tensor]:
    """Frames that a candidate may yet be judged by: a budget decides whether; and the opening."""
    if config.budget is None:
        return {}
    wanted = {chunk.first_frame for beam in beams for chunk in beam.chunk.ancestors()} | {0}
    return {first: frames for first, frames in shown.frames.items() if first in wanted}


def _forget(beams: tuple[Beam, ...], most: int) -> tuple[Beam, ...]:
    """The same beams, their paths cut to the last ``most`` chunks; what was shared stays shared."""
    copies: dict[int, Chunk] = {}

    def cut(chunk: Chunk, left: int) -> Chunk:
        if id(chunk) not in copies:
            parent = cut(chunk.parent, left - 1) if chunk.parent and left > 1 else None
            copies[id(chunk)] = replace(chunk, parent=parent)
        return copies[id(chunk)]

    return tuple(replace(beam, chunk=cut(beam.chunk, most)) for beam in beams)
