"""Decode what the video shows, where candidates are scored by the frames of a cheaper decoder.

The video's own decoder runs over the path that no later decision can change, once for each of its
chunks and never for a candidate, always one path at a time: its frames do not depend on the search,
on where a run was stopped, or on how much memory there was. What candidates, previews and rewards
see are the scoring decoder's frames; the two never mix.
"""

from dataclasses import replace

from .commit import Start
from .config import StreamConfig
from .scoring import Decoder
from .settle import path_from, settled_chunk
from .state import Chunk, Shown, StreamState


def show_settled(state: StreamState, decoder: Decoder | None, config: StreamConfig) -> StreamState:
    """The state with the frames that ``settle`` is about to hand out."""
    tip = settled_chunk(state, config)
    if decoder is None or tip is None:
        return state
    return replace(state, shown=show(state.shown, tip, decoder))


def show_given(state: StreamState, start: Start | None, decoder: Decoder) -> StreamState:
    """The state before the first chunk, with given footage; given frames are shown as they are."""
    tip = state.beams[0].chunk
    shown = show(Shown(), tip, decoder) if tip else Shown()
    if start is not None and start.frames is not None:
        parts = start.frames.split([len(frames) for frames in shown.frames.values()])
        shown = replace(shown, frames=dict(zip(shown.frames, parts, strict=True)))
    return replace(state, shown=shown)


def show(shown: Shown, tip: Chunk, decoder: Decoder) -> Shown:
    """The frames of the path to ``tip`` too."""
    for chunk in path_from(shown.until, tip):
        decoded, after = decoder.decode(chunk.latent[None], shown.decoder_state)
        frames = {**shown.frames, chunk.first_frame: decoded[0].cpu().clone()}
        shown = Shown(chunk.first_frame + chunk.latent.shape[1], frames, after)
    return shown
