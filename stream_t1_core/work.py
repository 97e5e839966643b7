"""The chunk at hand: which one, what it is made with, under which settings, what it has taken."""

from dataclasses import dataclass, field

from .config import StreamConfig
from .events import Emit
from .kv import LayOut
from .meter import Meter
from .tools import Tools


@dataclass(frozen=True, eq=False)
class Work:
    """What every step of the chunk loop is handed. ``latent_hw``: the latent's height and width.

    ``lay_out`` keeps what it has put in place as long as this record lives: one chunk.
    """

    chunk: int
    latent_hw: tuple[int, int]
    tools: Tools = field(repr=False)
    config: StreamConfig
    meter: Meter
    lay_out: LayOut = field(repr=False)

    @property
    def emit(self) -> Emit:
        return self.meter.emit


def begin_chunk(
    chunk: int,
    latent_hw: tuple[int, int],
    tools: Tools,
    config: StreamConfig,
    emit: Emit,
    since: float | None = None,
) -> Work:
    """``since``: when the chunk before was done, by the tools' clock; now, if not given."""
    done, end = (n * config.denoiser_calls // config.chunks for n in (chunk, chunk + 1))
    meter = Meter(tools.clock, emit, done, end, tools.clock() if since is None else since)
    lay_out = tools.model.layout(latent_hw, config.relative(chunk))
    return Work(chunk, latent_hw, tools, config, meter, lay_out)
