"""Decode what the video shows, where candidates are scored by the frames of a cheaper decoder.

The video's own decoder runs over the path that no later decision can change, once for each of its
chunks, always one path at a time: its frames do not depend on the search, on where a run was
stopped, or on how much memory there was. What candidates, previews and rewards see are the scoring
decoder's frames, or where a budget has enough for a chunk, the video's decoder's (``Showing``), and
then of its past too.

So no decision waits for the video's frames, unless a budget does. Where their decoder has a device
of its own, they are made there while the next chunk is searched for (``Behind``).
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from itertools import islice

import torch

from .config import StreamConfig
from .rewards.base import Piece
from .scoring import Decoder, DecoderState
from .settle import path_from, settled_chunk
from .state import AsShown, Beam, Candidate, Chunk, Shown, Start, StreamState


@dataclass(eq=False)
class Behind:
    """Goes over settled chunks in another thread; what it has begun is there a chunk later.

    ``pool`` has one thread: a path is decoded in its order.
    """

    pool: Executor = field(repr=False)
    _begun: tuple[int, Future[Shown]] | None = field(default=None, repr=False)

    def show(self, shown: Shown, tip: Chunk, decoder: Decoder) -> Shown:
        """What was begun before; the path from there to ``tip`` is begun."""
        shown = self.arrived(shown)
        mode = torch.is_inference_mode_enabled()  # each thread has its own
        self._begun = shown.until, self.pool.submit(_show_in_mode, mode, shown, tip, decoder)
        return shown

    def arrived(self, shown: Shown) -> Shown:
        """What was begun from ``shown`` on, waiting for it; its errors are raised here."""
        begun, self._begun = self._begun, None
        return begun[1].result() if begun and begun[0] == shown.until else shown


def show_settled(
    state: StreamState, decoder: Decoder | None, behind: Behind | None, config: StreamConfig
) -> StreamState:
    """The state with the frames that ``settle`` is about to hand out; or ``behind`` begins them."""
    tip = settled_chunk(state, config)
    if decoder is None or tip is None:
        return state
    make = behind.show if behind and config.budget is None else show
    return replace(state, shown=make(state.shown, tip, decoder))


def show_given(state: StreamState, start: Start | None, decoder: Decoder) -> StreamState:
    """The state before the first chunk, with given footage; given frames are shown as they are."""
    tip = state.beams[0].chunk
    shown = show(Shown(), tip, decoder) if tip else Shown()
    if start is not None and start.frames is not None:
        parts = start.frames.split([len(frames) for frames in shown.frames.values()])
        shown = replace(shown, frames=dict(zip(shown.frames, parts, strict=True)))
    return replace(state, shown=shown)


def show(
    shown: Shown, tip: Chunk, decoder: Decoder, before: Callable[[], None] = lambda: None
) -> Shown:
    """The frames of the path to ``tip`` too. ``before``: called before every chunk of it."""
    for chunk in path_from(shown.until, tip):
        before()
        decoded, after = decoder.decode(chunk.latent[None], shown.decoder_state)
        frames = {**shown.frames, chunk.first_frame: decoded[0].cpu().clone()}
        shown = Shown(chunk.first_frame + chunk.latent.shape[1], frames, after)
    return shown


def _show_in_mode(inference: bool, shown: Shown, tip: Chunk, decoder: Decoder) -> Shown:
    with torch.inference_mode(inference):
        return show(shown, tip, decoder)


def not_shown(state: StreamState) -> list[int]:
    """How many chunks of each path the video's decoder has yet to go over."""
    tips = [beam.chunk for beam in state.beams]
    return [len(path_from(state.shown.until, tip)) if tip else 0 for tip in tips]


def as_shown(shown: Shown, tip: Chunk, most: int | None = None) -> AsShown:
    """The path to ``tip``, or the last ``most`` chunks of it, by the video's frames.

    What was forgotten of them is there as it was scored.
    """
    path = [*islice(tip.ancestors(), most)][::-1]
    made = [shown.frames.get(chunk.first_frame) for chunk in path]
    pieces = [c.piece if x is None else Piece(x) for c, x in zip(path, made, strict=True)]
    return AsShown(tuple(pieces), shown.frames.get(0, tip.opening))


@dataclass(frozen=True, eq=False)
class Showing:
    """One chunk's candidates as the video's decoder makes them.

    What is not settled yet of a path is gone over once for all candidates of its beam. ``span``:
    chunks that the long reward looks at. Nothing of it outlives the chunk.
    """

    begun: Shown
    decoder: Decoder
    span: int
    _ends: dict[Beam, tuple[AsShown, DecoderState | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    def decodes(self, candidate: Candidate) -> int:
        """How often the decoder will run for it."""
        tip = candidate.parent.chunk
        gone_over = tip is None or candidate.parent in self._ends
        return 1 if gone_over else 1 + len(path_from(self.begun.until, tip))

    def __call__(self, candidate: Candidate, before: Callable[[], None]) -> Candidate:
        """The candidate to be judged by it. ``before``: called before the decoder runs."""
        if candidate.failure:
            return candidate
        past, state = self._end(candidate.parent, before)
        before()
        decoded, _ = self.decoder.decode(candidate.latent[None], state)
        frames = decoded[0].cpu().clone()
        opening = frames if past is None else past.opening
        pieces = () if past is None else past.pieces
        return replace(candidate, as_shown=AsShown((*pieces, Piece(frames)), opening))

    def _end(
        self, beam: Beam, before: Callable[[], None]
    ) -> tuple[AsShown | None, DecoderState | None]:
        """Pieces of a path, and the decoder's state at its end."""
        if beam.chunk is None:
            return None, None
        if beam not in self._ends:
            shown = show(self.begun, beam.chunk, self.decoder, before)
            past = as_shown(shown, beam.chunk, self.span - 1)
            self._ends[beam] = past, shown.decoder_state
        return self._ends[beam]
