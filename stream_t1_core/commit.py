"""Make a chunk permanent: its context pass, then sinks and window for the next one.

Also what a stream begins with: nothing, or given footage, which is remembered in the same way.
"""

import functools
from collections.abc import Iterable

import torch

from . import sinks
from .causal_wan import CausalWan, Text
from .config import StreamConfig
from .kv import ChunkKV, LayOut
from .rewards.base import Piece
from .scoring import Decoder
from .sinks import Blend
from .state import Beam, Candidate, Chunk, Scores, Start, StreamState
from .work import Work


def commit(survivors: Iterable[Candidate], work: Work) -> tuple[Beam, ...]:
    """Beams of the candidates that go on, in their order."""
    model, text = work.tools.model, work.tools.text
    blend = blending(work.config, model)
    beams = []
    for rank, candidate in enumerate(survivors):
        work.meter.before_call(1)
        parent, scores = candidate.parent, candidate.scores
        tip = parent.chunk
        alike = tip is not None and tip.scores.as_shown == scores.as_shown
        total, count = tip.shorts if alike else (0.0, 0)
        piece = candidate.piece and candidate.piece.put_away()
        chunk = Chunk(
            index=work.chunk,
            first_frame=work.config.first_frame(work.chunk),
            seed=candidate.seed,
            latent=candidate.latent,
            piece=piece,
            scores=scores,
            route=candidate.route,
            parent=tip,
            opening=tip.opening if tip else piece and piece.frames,
            shorts=(total, count) if scores.short is None else (total + scores.short, count + 1),
        )
        kept = _remember(parent, chunk, model, text, work.config, blend, work.lay_out)
        beams.append(Beam(chunk, rank, candidate.noise, *kept, candidate.decoder_state))
    return tuple(beams)


def begin(
    start: Start | None, model: CausalWan, text: Text, config: StreamConfig, decoder: Decoder | None
) -> StreamState:
    """The state before the first chunk; given footage is remembered in pieces of a chunk or less.

    The first piece is the short one, so that all others end where a chunk would.
    """
    if start is None:
        return StreamState()
    whole, blend = start.latent.cpu().float(), blending(config, model)
    length, size = whole.shape[1], config.frames_per_chunk
    sizes = [length % size or size, *[size] * ((length - 1) // size)]
    beam, first, shown = Beam(), 0, 0
    for number, latent in enumerate(whole.split(sizes, dim=1)):
        frames, decoder_state = None, None
        if decoder is not None:
            decoded, decoder_state = decoder.decode(latent[None], beam.decoder_state)
            frames = decoded[0].cpu().clone()
            if start.frames is not None:
                frames = start.frames[shown : shown + len(frames)]
            shown += len(frames)
        tip = beam.chunk
        chunk = Chunk(
            index=number - len(sizes),
            first_frame=first,
            seed=None,
            latent=latent,
            piece=frames if frames is None else Piece(frames),
            scores=Scores(),
            route=None,
            parent=tip,
            opening=tip.opening if tip else frames,
        )
        lay_out = model.layout(tuple(latent.shape[-2:]), config.relative(chunk.index))
        kept = _remember(beam, chunk, model, text, config, blend, lay_out)
        beam = Beam(chunk, 0, None, *kept, decoder_state)
        first += sizes[number]
    return StreamState(beams=(beam,))


def blending(config: StreamConfig, model: CausalWan) -> Blend:
    """Blend an evicted chunk into a sink, once for all beams that do the same.

    The sink lies where the model keeps keys and values, page-locked too.
    """

    @functools.cache
    def blend(sink: ChunkKV, evicted: ChunkKV) -> ChunkKV:
        return sink.blend(evicted, config.memory.alpha).moved(model.store)

    return blend


def _remember(
    parent: Beam,
    chunk: Chunk,
    model: CausalWan,
    text: Text,
    config: StreamConfig,
    blend: Blend,
    lay_out: LayOut,
) -> tuple[sinks.Chunks, sinks.Chunks, sinks.Chunks]:
    """Sinks, window and what has left it, after ``chunk``."""
    frames = chunk.latent.shape[1]
    kv = model.context_pass(
        chunk.latent[None],
        torch.full((frames,), config.schedule.context_timestep),
        chunk.first_frame,
        text,
        lay_out(parent.kv),
        chunk.route,
    )
    first, before = sinks.remember(parent.sinks, parent.window, kv, frames, config.memory)
    kept = sinks.make_room(first, before, config.memory, config.frames_per_chunk, blend)
    most = config.refine.remembered_chunks if config.refine else 0
    left = tuple(chunk for chunk in before if chunk not in (*kept[0], *kept[1]))
    return *kept, (*parent.older, *left)[-most:] if most else ()
