"""Memory sinking: which route a chunk takes when it leaves the window, and taking it.

The route is decided when a chunk is made, from its scores, and carried out when room is needed for
a later one. Source: Stream-T1, memory sinking, as released.
"""

from collections.abc import Callable

from .config import Memory
from .kv import ChunkKV, Route

Chunks = tuple[ChunkKV, ...]
Blend = Callable[[ChunkKV, ChunkKV], ChunkKV]  # (sink, evicted chunk) -> new sink


def decide(
    short: float,
    long: float,
    mean_short: float,
    previous_long: float,
    memory: Memory,
) -> Route:
    """Route for a chunk scored ``short`` and ``long``, from its beam's earlier scores.

    A chunk better than the mean of all earlier ones is kept: blended while the video goes on as
    before, appended when the long score falls, which marks a transition.
    """
    good = short - mean_short > memory.short_gate
    if not good:
        return Route.DROP
    transition = previous_long - long > memory.long_gate
    return Route.APPEND if transition else Route.BLEND


def remember(
    sinks: Chunks, window: Chunks, chunk: ChunkKV, frames: int, memory: Memory
) -> tuple[Chunks, Chunks]:
    """Add a chunk of ``frames``: the first become the fixed sink, later ones join the window."""
    if chunk.first_frame + frames <= memory.sink_frames:
        return (*sinks, chunk), window
    return sinks, (*window, chunk)


def make_room(
    sinks: Chunks, window: Chunks, memory: Memory, frames_per_chunk: int, blend: Blend
) -> tuple[Chunks, Chunks]:
    """Sinks and window for the next chunk: the oldest leaves a full window by its route.

    The window counts the chunk being made, so it is full when no other fits beside that one.
    Append at the sink limit becomes blend, into the newest sink. There is no blend of two lengths:
    beside the short piece that given footage may begin with, a chunk that is kept is appended, and
    dropped at the limit.
    """
    capacity = (memory.window_frames - memory.sink_frames) // frames_per_chunk
    if len(window) < capacity:
        return sinks, window
    evicted, window = window[0], window[1:]
    if not memory.routing or evicted.route in (None, Route.DROP):
        return sinks, window
    room = (len(sinks) + 1) * frames_per_chunk <= memory.max_sink_frames
    alike = sinks[-1].tokens == evicted.tokens
    if room and (evicted.route is Route.APPEND or not alike):
        return (*sinks, evicted), window
    if not alike:
        return sinks, window
    return (*sinks[:-1], blend(sinks[-1], evicted)), window
