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
from .state import Beam, Chunk, StreamState


def settle(state: StreamState, config: StreamConfig, emit: Emit) -> StreamState:
    """Emit the newly settled frames; without ``config.whole`` forget the old ones."""
    beams = state.beams if config.whole else _agreed(state.beams, config.plan.span_chunks)
    shared = shared_chunk(beams)
    if shared is None or config.isolated:  # isolated: the whole is decoded at the end
        return replace(state, beams=beams)
    settled = hand_out(shared, state.settled, config, emit)
    if not config.whole:
        beams = _forget(beams, look_back(config))
    return replace(state, beams=beams, settled=settled)


def hand_out(tip: Chunk, settled: int, config: StreamConfig, emit: Emit) -> int:
    """Emit the path to ``tip`` from frame ``settled`` on; the first frame that is left to emit."""
    fresh = takewhile(lambda chunk: chunk.first_frame >= settled, tip.ancestors())
    for chunk in [*fresh][::-1]:
        emit(FramesSettled(chunk.first_frame, *footage(chunk, config)))
        settled = chunk.first_frame + chunk.latent.shape[1]
    return settled


def footage(chunk: Chunk, config: StreamConfig) -> tuple[Tensor, Tensor | None]:
    """A chunk's latent and frames, the last chunk's cut where the video ends."""
    latent, frames = chunk.latent, chunk.frames
    surplus = chunk.first_frame + latent.shape[1] - config.latent_frames
    if surplus <= 0:
        return latent, frames
    if frames is not None:
        frames = frames[: len(frames) - surplus * _frames_per_latent(chunk)]
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


def _frames_per_latent(chunk: Chunk) -> int:
    """Pixel frames of a latent frame that is not the video's very first."""
    latents, frames = chunk.latent.shape[1], len(chunk.frames)
    return frames // latents if chunk.first_frame else (frames - 1) // (latents - 1)


def _agreed(beams: tuple[Beam, ...], most: int) -> tuple[Beam, ...]:
    """The beams that share the best one's chunk ``most`` chunks ago."""

    def ancestor(beam: Beam) -> Chunk | None:
        chunk = beam.chunk
        for _ in range(most):
            chunk = chunk and chunk.parent
        return chunk

    return tuple(beam for beam in beams if ancestor(beam) is ancestor(beams[0]))


def _forget(beams: tuple[Beam, ...], most: int) -> tuple[Beam, ...]:
    """The same beams, their paths cut to the last ``most`` chunks; what was shared stays shared."""
    copies: dict[int, Chunk] = {}

    def cut(chunk: Chunk, left: int) -> Chunk:
        if id(chunk) not in copies:
            parent = cut(chunk.parent, left - 1) if chunk.parent and left > 1 else None
            copies[id(chunk)] = replace(chunk, parent=parent)
        return copies[id(chunk)]

    return tuple(replace(beam, chunk=cut(beam.chunk, most)) for beam in beams)
