"""What a run works with: the model, its prompts, what scores its chunks, and who may choose."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from . import noise
from .causal_wan import CausalWan, Text
from .events import CandidateReport, Emit
from .scoring import Critic, Decoder
from .show import Behind, Showing
from .state import Start

# (chunk, candidates with the ranks by score, kept indices, emit) -> kept indices, who chose them
Director = Callable[
    [int, tuple[CandidateReport, ...], list[int], Emit], tuple[list[int], str | None]
]


@dataclass(frozen=True, eq=False)
class PromptSwitch:
    """From ``chunk`` on, another prompt; what is remembered is recomputed under it (LongLive).

    ``rows`` [1, L, text_dim] are the text encoder's: keys and values are made when it is time, for
    a long fade has one switch per chunk. ``keep_sinks`` leaves sinks older than the window as they
    are.
    """

    chunk: int
    rows: Tensor = field(repr=False)
    prompt: str = ""  # its words, for rewards that read them
    keep_sinks: bool = True


@dataclass(frozen=True, eq=False)
class Tools:
    """The first prompt is ``text`` and the critic's; later ones are ``switches``, by chunk.

    ``decoder``: of the video, where the critic's is only for scoring; see ``show.py``. ``showing``:
    for a chunk whose candidates are judged by that one nevertheless. ``behind``: where it works
    while the next chunk is made.
    """

    model: CausalWan
    text: Text = field(repr=False)
    critic: Critic = field(default_factory=Critic)
    draw: Callable[[int, int, tuple[int, int, int, int]], Tensor] = noise.draw
    switches: Sequence[PromptSwitch] = ()
    start: Start | None = None
    director: Director | None = None
    switch: PromptSwitch | None = None  # that begins with the chunk at hand
    new_prompt: str | None = None  # its words, where they are others
    clock: Callable[[], float] = time.perf_counter  # seconds, for measuring and budgets
    quality: Callable[[], float | None] = lambda: None  # the budget's, if it is moved as it runs
    decoder: Decoder | None = None
    behind: Behind | None = None
    showing: Showing | None = None

    def critic_at(self, chunk: int) -> Critic:
        """The critic, reading the prompt that holds for a chunk."""
        words = [switch.prompt for switch in self.switches if switch.chunk <= chunk]
        return replace(self.critic, prompt=words[-1]) if words else self.critic

    def without_rewards(self) -> "Tools":
        """For a chunk where they have nothing to decide."""
        return replace(self, critic=replace(self.critic, short=None, long=None))

    def under(self, switch: PromptSwitch) -> "Tools":
        """The tools under another prompt; blending into it is not told again at every chunk."""
        text = self.model.encode_text(switch.rows)
        told = switch.prompt if switch.prompt != self.critic.prompt or not switch.prompt else None
        critic = replace(self.critic, prompt=switch.prompt)
        return replace(self, text=text, critic=critic, switch=switch, new_prompt=told)
