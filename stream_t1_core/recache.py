"""Prompt switch: compute the remembered chunks' keys and values anew, under the new prompt.

Without it the context would go on telling the old prompt. Source: LongLive, KV recache.
"""

from dataclasses import replace

import torch

from .causal_wan import CausalWan, Text
from .config import StreamConfig
from .kv import ChunkKV
from .sinks import Chunks, make_room
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

    def blend(sink: ChunkKV, evicted: ChunkKV) -> ChunkKV:
        return sink.blend(evicted, config.memory.alpha)

    sinks, window = make_room(sinks, window, config.memory, config.frames_per_chunk, blend)
    return replace(beam, sinks=sinks, window=window)


def recompute(
    beam: Beam, model: CausalWan, text: Text, config: StreamConfig, keep_sinks: bool
) -> tuple[Chunks, Chunks]:
    """Sinks and window (before making room) from one pass over the last ``window_frames``.

    The frames of that pass see each other in both directions, as in the released code.
    """
    memory, frames_per_chunk = config.memory, config.frames_per_chunk
    tail = beam.chunk.path()[-(memory.window_frames // frames_per_chunk) :]
    fixed = memory.sink_frames // frames_per_chunk
    if keep_sinks and tail[0].index > 0:
        return beam.sinks, _chunks(tail[fixed:], beam.sinks, model, text, config)
    chunks = _chunks(tail, (), model, text, config)
    return chunks[:fixed], chunks[fixed:]


def _chunks(
    tail: list[Chunk], past: Chunks, model: CausalWan, text: Text, config: StreamConfig
) -> Chunks:
    """Keys and values of consecutive chunks, from one pass over all of them."""
    latent = torch.cat([chunk.latent for chunk in tail], dim=1)[None]
    frames_per_chunk = config.frames_per_chunk
    whole = model.context_pass(
        latent,
        torch.full((latent.shape[2],), config.schedule.context_timestep),
        tail[0].index * frames_per_chunk,
        text,
        model.lay_out(past, tuple(latent.shape[-2:])),
    )
    keys = [tensor.chunk(len(tail), dim=1) for tensor in whole.keys]
    values = [tensor.chunk(len(tail), dim=1) for tensor in whole.values]
    return tuple(
        ChunkKV(
            chunk.index * frames_per_chunk,
            tuple(layer[i].clone() for layer in keys),  # clones: a chunk must not pin the pass
            tuple(layer[i].clone() for layer in values),
            chunk.route,
        )
        for i, chunk in enumerate(tail)
    )
