"""The pack's own socket types, and marking an input as advanced on every host."""

from collections.abc import Iterator
from dataclasses import dataclass

from comfy_api.latest import io

from ..stream_t1_core.config import Search
from ..stream_t1_core.rewards.base import Reward
from ..stream_t1_core.rewards.mix import named_terms
from .host.rewards import HostedReward

BudgetSocket = io.Custom("STREAM_T1_BUDGET")
NoiseSocket = io.Custom("STREAM_T1_NOISE")
MemorySocket = io.Custom("STREAM_T1_MEMORY")
DirectorSocket = io.Custom("STREAM_T1_DIRECTOR")
PrunerSocket = io.Custom("STREAM_T1_PRUNER")
ReelSocket = io.Custom("STREAM_T1_REEL")
RefinerSocket = io.Custom("STREAM_T1_REFINER")
RewardSocket = io.Custom("STREAM_T1_REWARD")
StartSocket = io.Custom("STREAM_T1_START")
WriterSocket = io.Custom("STREAM_T1_WRITER")


@dataclass(frozen=True)
class Pruner:
    """What a Reward Pruner hands to the sampler."""

    search: Search
    short_reward: Reward | None
    long_reward: Reward | None
    prompt: str = ""

    def weights(self) -> dict[str, float]:
        """Every single reward's weight by name, ``short.NAME`` and ``long.NAME``."""
        kinds = {"short": self.short_reward, "long": self.long_reward}
        return {
            f"{kind}.{name}": weight
            for kind, reward in kinds.items()
            if reward is not None
            for name, (weight, _) in named_terms(reward).items()
        }

    def hosted(self) -> Iterator[HostedReward]:
        """The rewards whose weights the host manages."""
        for reward in filter(None, (self.short_reward, self.long_reward)):
            for _, part in named_terms(reward).values():
                if isinstance(part, HostedReward):
                    yield part


@dataclass(frozen=True)
class Writer:
    """What a Stream Video Writer hands to the sampler."""

    filename_prefix: str
    crf: int
    keep_images: bool


def advanced(widget: io.WidgetInput) -> io.WidgetInput:
    """Fold a widget behind "Show advanced inputs"; 0.3.75 has no argument for it."""
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget
