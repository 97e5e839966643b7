"""Prompt switch: compute the remembered chunks' keys and values anew, under the new prompt.

Without it the context would go on telling the old prompt. Source: LongLive, KV recache.
"""

from dataclasses import replace
from itertools import islice

import torch

from .causal_wan import CausalWan, Text
from .config import StreamConfig
from .kv import ChunkKV
from .sinks import Chunks
from .state import Beam, Chunk


def recache(
    beam: Beam, model: CausalWan, text: Text, config: StreamConfig, keep_sinks: bool
) -> Beam:
    """The same beam, its memory under the prompt ``text``; before the first chunk, itself.

    ``keep_sinks`` keeps sinks older than the window as they are (LongLive's global sink);
    otherwise the oldest recomputed frames take their place.
    """
    if beam.chunk is None:
        return beam
    sinks, window = recompute(beam, model, text, config, keep_sinks)
    if sinks is not beam.sinks:  # chunks that were appended since stay sinks
        were_sinks = {chunk.first_frame for chunk in beam.sinks}
        sinks += tuple(chunk for chunk in window if chunk.first_frame in were_sinks)
    # the pass reaches back further than the window: what has left it took its route then
    still = {chunk.first_frame for chunk in beam.window}
    window = tuple(chunk for chunk in window if chunk.first_frame in still)
    return replace(beam, sinks=sinks, window=window, older=())  # those would tell the old prompt


def recompute(
    beam: Beam, model: CausalWan, text: Text, config: StreamConfig, keep_sinks: bool
) -> tuple[Chunks, Chunks]:
    """Sinks and window (before making room) from one pass over the last ``window_frames``.

    The frames of that pass see each other in both directions, as in the released code.
    """
    memory, size = config.memory, config.frames_per_chunk
    tail = [*islice(beam.chunk.ancestors(), memory.window_frames // size)][::-1]
    fixed = memory.sink_frames // size
    if tail[0].first_frame == 0:  # given footage may begin with a short piece
        fixed = sum(c.first_frame + c.latent.shape[1] <= memory.sink_frames for c in tail)
    elif keep_sinks:
        return beam.sinks, _chunks(tail[fixed:], beam.sinks, model, text, config)
    chunks = _chunks(tail, (), model, text, config)
    return chunks[:fixed], chunks[fixed:]


def _chunks(
    tail: list[Chunk], past: Chunks, model: CausalWan, text: Text, config: StreamConfig
) -> Chunks:
    """Keys and values of consecutive chunks, from one pass over all of them."""
    latent = torch.cat([chunk.latent for chunk in tail], dim=1)[None]
    whole = model.context_pass(
        latent,
        torch.full((latent.shape[2],), config.schedule.context_timestep),
        tail[0].first_frame,
        text,
        model.lay_out(past, tuple(latent.shape[-2:]), config.relative(tail[-1].index)),
    )
    tokens = whole.keys[0].shape[1] // latent.shape[2]  # of a latent frame
    sizes = [chunk.latent.shape[1] * tokens for chunk in tail]
    keys = [tensor.split(sizes, dim=1) for tensor in whole.keys]
    values = [tensor.split(sizes, dim=1) for tensor in whole.values]
    return tuple(
        ChunkKV(
            chunk.first_frame,
            tuple(layer[i].clone() for layer in keys),  # clones: a chunk must not pin the pass
            tuple(layer[i].clone() for layer in values),
            chunk.route,
        ).moved(model.store)
        for i, chunk in enumerate(tail)
    )
