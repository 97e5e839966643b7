"""Settings of a run: frozen records with the released defaults, derived sizes and checks.

One record per unit, so that a unit that is not plugged in is simply ``None`` (or its plain form).
Lengths are latent frames unless the name says chunks. Nothing here knows tensors or models.

Defaults: Stream-T1 (arXiv 2605.04461), released code; LongLive for window, sink and steps.
"""

import math
from dataclasses import dataclass, field, replace

TIMESTEP_COUNT = 1000  # Wan's flow-matching schedule has 1000 entries
TRAINED_FRAMES = 240  # latent frames of the longest videos that LongLive saw (60 s)
POSITIONS = ("auto", "absolute", "relative")
TIMED = ("seconds per chunk", "milliseconds per frame", "total seconds")
TARGETS = ("quality", *TIMED, "total denoiser calls")
QUALITY = {"low": 0.2, "medium": 0.5, "high": 1.0}  # names for a budget's quality
REFINE_METHODS = ("iterative", "ensemble", "extended")
VOTES = ("medoid", "mean")
LEAST_FOR_MEDOID = 3  # of two, each is as near to the other


@dataclass(frozen=True)
class Schedule:
    """Few-step schedule: which noise levels the denoiser sees.

    ``steps`` are unshifted timesteps (1000 = pure noise), ``shift`` is Wan's timestep shift;
    ``context_timestep`` is what a finished chunk is labelled with in its context pass.
    """

    steps: tuple[int, ...] = (1000, 750, 500, 250)
    shift: float = 5.0
    context_timestep: float = 0.0

    def __post_init__(self) -> None:
        descending = all(a > b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or not descending or not 0 < self.steps[-1] <= self.steps[0] <= 1000:
            raise ValueError(
                f"denoising steps {self.steps}: give one or more falling numbers from 1000 to 1, "
                "for example 1000, 750, 500, 250"
            )
        if not self.shift > 0:
            raise ValueError(f"timestep shift {self.shift}: it must be above 0 (Wan: 5)")

    @classmethod
    def evenly(cls, count: int, shift: float = 5.0) -> "Schedule":
        """``count`` steps spread evenly from 1000: 4 gives 1000, 750, 500, 250."""
        if not 1 <= count <= 100:
            raise ValueError(f"denoising steps: {count} given, 1 to 100 allowed (LongLive: 4)")
        return cls(tuple(round(1000 - 1000 * i / count) for i in range(count)), shift)


@dataclass(frozen=True)
class NoisePropagation:
    """``noise_n = beta * noise_(n-1) + sqrt(1 - beta^2) * eps`` (Stream-T1, noise propagation).

    The parent beam's first branch also draws its eps from the parent's own seed, as released.
    """

    beta: float = -0.1

    def __post_init__(self) -> None:
        if not -1 < self.beta < 1:
            raise ValueError(
                f"Noise Propagation: beta is {self.beta}; it must lie between -1 and 1, both "
                "excluded (released setting: -0.1; 0 keeps nothing of the previous noise)"
            )


@dataclass(frozen=True)
class EarlyPruning:
    """After ``step`` denoiser calls of each candidate, drop the worst ``share`` of a chunk's.

    They are compared by the short reward of what they would become, the clean estimate of that
    step, decoded; as many as the beam width go on in any case. Where a budget's deadline has
    candidates made one by one there is nothing to compare, and all of them go on.
    """

    step: int = 1
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"Reward Pruner: early step is {self.step}; 1 or more allowed")
        if not 0 < self.share < 1:
            raise ValueError(
                f"Reward Pruner: early share is {self.share}; above 0 and below 1 allowed (0 in "
                "the node turns early pruning off)"
            )

    def left(self, candidates: int, beam_width: int) -> int:
        """Candidates that go on."""
        dropped = math.floor(self.share * candidates + 1e-9)  # 0.29 * 100 is 29
        return min(candidates, max(beam_width, candidates - dropped))


@dataclass(frozen=True)
class Search:
    """Reward pruning: chunk beam search.

    Each of ``beam_width`` (K) beams is tried ``branch_factor`` (M) times per chunk; the first
    chunk is tried K * M times. ``span_chunks`` is the length of the clip the long reward sees and
    ``tau`` the highest weight the short reward reaches (equation in ``search.short_weight``).

    ``standardise``: candidates are compared by each reward's distance from its mean so far, in
    standard deviations over all candidates of this run, before weights and fusion; the mean and
    spread include the chunk at hand. Otherwise rewards are added as they are, as released. Scores
    that are reported, and the memory's gates, are as they are in both cases.

    ``strict``: a reward that fails, or gives no finite number, ends the run. Otherwise it is
    reported; where it has a number for none of a chunk's candidates it is left out of that chunk's
    scores, and a candidate that it has no number for cannot win.

    ``early``: candidates are pruned once before they are done; None: all are made to their end.
    """

    beam_width: int = 2
    branch_factor: int = 2
    span_chunks: int = 10
    tau: float = 0.4
    standardise: bool = False
    strict: bool = False
    early: EarlyPruning | None = None

    def __post_init__(self) -> None:
        if self.beam_width < 1 or self.branch_factor < 1:
            raise ValueError(
                f"Reward Pruner: beam width {self.beam_width} and branch factor "
                f"{self.branch_factor}; both must be 1 or more"
            )
        if self.span_chunks < 1:
            raise ValueError(f"Reward Pruner: span is {self.span_chunks} chunks; 1 or more allowed")
        if not 0 <= self.tau <= 1:
            raise ValueError(f"Reward Pruner: tau is {self.tau}; 0 to 1 allowed")

    @property
    def candidates(self) -> int:
        return self.beam_width * self.branch_factor

    def finished(self, candidates: int) -> int:
        """Of so many candidates, those that are made to their end."""
        return self.early.left(candidates, self.beam_width) if self.early else candidates

    def calls(self, candidates: int, steps: int) -> int:
        """Denoiser calls that so many candidates take."""
        finished, before = self.finished(candidates), self.early.step if self.early else steps
        return candidates * before + finished * (steps - before)


@dataclass(frozen=True)
class Memory:
    """What stays in the context: a window of recent chunks, and sinks.

    ``window_frames`` counts all of LongLive's local attention: the fixed sink, the recent chunks
    and the chunk being made. With ``routing`` a chunk that leaves the window is dropped, blended
    into the newest sink (moving average, weight ``alpha`` on the old) or appended as a new sink,
    until there are ``max_sink_frames``. Without it every such chunk is dropped: LongLive's sink.
    """

    window_frames: int = 12
    sink_frames: int = 3
    max_sink_frames: int = 15
    alpha: float = 0.999
    short_gate: float = 0.0
    long_gate: float = 0.2
    routing: bool = True

    def __post_init__(self) -> None:
        if self.sink_frames < 0:
            raise ValueError(f"Memory Sink: sink is {self.sink_frames} frames; 0 or more allowed")
        if self.window_frames <= self.sink_frames:
            raise ValueError(
                f"Memory Sink: window of {self.window_frames} latent frames leaves no room beside "
                f"a sink of {self.sink_frames}; make the window larger (LongLive: 12 and 3)"
            )
        if self.max_sink_frames < self.sink_frames:
            raise ValueError(
                f"Memory Sink: at most {self.max_sink_frames} sink frames is less than the first "
                f"sink's {self.sink_frames}"
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"Memory Sink: alpha is {self.alpha}; 0 to 1 allowed")
        if self.routing and self.sink_frames == 0:
            raise ValueError(
                "Memory Sink: blend and append need a first sink; set sink frames to one chunk or "
                "more, or turn routing off"
            )

    def check_chunks(self, frames_per_chunk: int) -> None:
        """Windows and sinks are made of whole chunks."""
        lengths = {
            "sink frames": self.sink_frames,
            "window minus sink frames": self.window_frames - self.sink_frames,
            "maximum minus first sink frames": self.max_sink_frames - self.sink_frames,
        }
        for name, length in lengths.items():
            if length % frames_per_chunk:
                raise ValueError(
                    f"Memory Sink: {name} is {length}, not a whole number of chunks of "
                    f"{frames_per_chunk} latent frames (the sampler's frames_per_chunk). Plug in a "
                    f"Memory Sink whose lengths are multiples of {frames_per_chunk}, or change "
                    "frames_per_chunk"
                )


FIXED_SINK = Memory(routing=False)


@dataclass(frozen=True)
class Budget:
    """What a run may spend, below what its search may use at most: ``amount`` of ``target``.

    ``quality``: from 0, one candidate a chunk, to 1, all that the search allows; the other targets
    are named by their units. A ``hard`` deadline is kept within a chunk too: candidates are made
    one by one until its time is up. ``adaptive`` moves candidates from chunks that look easy to
    those that look hard; a target for each chunk then holds on average. Source of the numbers that
    follow from it: ``budget.py``.
    """

    target: str = "quality"
    amount: float = QUALITY["medium"]
    hard: bool = False
    adaptive: bool = False

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"Budget: target '{self.target}': one of {', '.join(TARGETS)}")
        if self.target == "quality" and not 0 <= self.amount <= 1:
            raise ValueError(f"Budget: quality is {self.amount}; 0 to 1 allowed")
        if not 0 < self.amount < math.inf and self.target != "quality":
            raise ValueError(f"Budget: {self.target} is {self.amount}; more than 0 is needed")
        if self.hard and not self.timed:
            raise ValueError(
                "Budget: a hard deadline needs a target in seconds, not in a quality or denoiser "
                f"calls; choose {', '.join(TIMED)}, or turn 'hard' off"
            )
        if self.hard and self.adaptive and self.target != "total seconds":
            raise ValueError(
                "Budget: a hard deadline for each chunk leaves nothing to move to another; turn "
                "'hard' or 'adaptive' off, or choose total seconds"
            )

    @property
    def timed(self) -> bool:
        return self.target in TIMED

    @property
    def unit(self) -> str:
        """What a chunk's share is counted in."""
        return "seconds" if self.timed else "denoiser calls"


@dataclass(frozen=True)
class Refine:
    """Improve the survivors of a chunk, in ``passes`` that count only if the score does not fall.

    A pass noises the clean latent again and denoises it: from ``strength`` of the way up the
    schedule, before its shift (1 is pure noise, 0.25 the last of four steps), down those of the
    schedule's own steps that lie below. ``iterative`` does that once; ``ensemble`` does it
    ``members`` times with other noise and takes their ``vote``: the ``medoid``, the one nearest to
    all others, or the ``mean``; ``extended`` does it once, attending also to the last
    ``wider_chunks`` that have left the window, which are remembered for that.
    """

    method: str = "iterative"
    passes: int = 1
    strength: float = 0.25
    members: int = 4
    vote: str = "medoid"
    wider_chunks: int = 3  # with LongLive's window and sink: 21 latent frames, Wan's own clip

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("method", self.method, REFINE_METHODS),
            ("vote", self.vote, VOTES),
        ):
            if value not in allowed:
                raise ValueError(f"Refiner: {name} is '{value}'; one of {', '.join(allowed)}")
        if self.passes < 0:
            raise ValueError(f"Refiner: {self.passes} passes; 0 or more allowed")
        if not 0.01 <= self.strength <= 1:
            raise ValueError(
                f"Refiner: strength is {self.strength}; 0.01 to 1 allowed (0.25: the last of four "
                "steps)"
            )
        if self.members < 1 or self.wider_chunks < 1:
            raise ValueError(
                f"Refiner: members {self.members} and wider chunks {self.wider_chunks}; both must "
                "be 1 or more"
            )
        few = self.members < LEAST_FOR_MEDOID
        if self.method == "ensemble" and self.vote == "medoid" and few:
            raise ValueError(
                f"Refiner: members is {self.members}, but none of so few is nearest to all others; "
                f"set members to {LEAST_FOR_MEDOID} or more, or vote to mean"
            )

    @property
    def tries(self) -> int:
        """Latents that a pass makes."""
        return self.members if self.method == "ensemble" else 1

    @property
    def remembered_chunks(self) -> int:
        """Chunks that are remembered after they have left the window."""
        return self.wider_chunks if self.method == "extended" else 0

    def schedule(self, whole: Schedule) -> Schedule:
        """The noise levels of a pass."""
        start = round(self.strength * TIMESTEP_COUNT)
        return replace(whole, steps=(start, *(step for step in whole.steps if step < start)))


@dataclass(frozen=True)
class StreamConfig:
    """Everything a run depends on besides tensors and tools.

    ``latent_frames`` is the length asked for, ``given_frames`` of them are there before the run
    begins (a start from an image or a video); the run makes whole chunks and trims the last.
    ``isolated`` decodes as the released code does (each chunk alone, the span anew) instead of
    continuing the decoder from chunk to chunk.

    ``positions``: where rotary embeddings place a chunk and its context. ``absolute``, at their
    own frames, as trained and released; ``relative``, sinks, window and chunk side by side from
    0, however long the video (LongLive's later release); ``auto``, absolute as far as
    ``trained_frames`` go, relative after that.

    ``whole`` keeps every frame until the end, for the video returned and for a last choice by all
    of it. Without it memory does not grow with the video: see ``generate.stream``.
    """

    latent_frames: int = 21
    given_frames: int = 0
    frames_per_chunk: int = 3
    seed: int = 42
    fps: float = 16.0
    schedule: Schedule = field(default_factory=Schedule)
    noise: NoisePropagation | None = None
    search: Search | None = None
    memory: Memory = FIXED_SINK
    refine: Refine | None = None
    budget: Budget | None = None
    isolated: bool = False
    positions: str = "auto"
    trained_frames: int = TRAINED_FRAMES
    whole: bool = True

    def __post_init__(self) -> None:
        if self.latent_frames < 1:
            raise ValueError(f"video length: {self.latent_frames} latent frames; 1 or more needed")
        if not 0 <= self.given_frames < self.latent_frames:
            raise ValueError(
                f"Start From: {4 * self.given_frames - 3} frames are given, and the video has "
                f"{4 * self.latent_frames - 3} in all; make it longer (its length counts the given "
                "part too)"
            )
        if self.positions not in POSITIONS:
            raise ValueError(f"positions '{self.positions}': one of {', '.join(POSITIONS)}")
        if self.isolated and not self.whole:
            raise ValueError(
                "isolated decoding decodes the whole video at the end; it cannot be written as it "
                "goes. Turn 'isolated' off, or keep the images"
            )
        if self.frames_per_chunk < 1:
            raise ValueError(f"chunk length: {self.frames_per_chunk} latent frames; 1 or more")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed}: 0 to 2^63 - 1 allowed")
        self.memory.check_chunks(self.frames_per_chunk)
        if self.plan.early:
            self._check_early(self.plan.early)
        if self.budget:
            self._check_budget(self.budget)

    def _check_early(self, early: EarlyPruning) -> None:
        steps = len(self.schedule.steps)
        if early.step >= steps:
            raise ValueError(
                f"Reward Pruner: early step is {early.step}, but the sampler makes {steps} "
                f"denoising steps; 1 to {steps - 1} allowed, or an early share of 0 to turn it off"
            )
        if self.budget and self.budget.hard:
            raise ValueError(
                "Budget: with a hard deadline candidates are made one by one, so none can be "
                "pruned early; turn 'hard' off, or set the Reward Pruner's early share to 0"
            )

    def _check_budget(self, budget: Budget) -> None:
        if self.search is None:
            raise ValueError(
                "Budget: plug a Reward Pruner into the sampler too; its beam width and branch "
                "factor are the most that a chunk may spend"
            )
        least = self.chunks * (len(self.schedule.steps) + 1)
        if budget.target == "total denoiser calls" and budget.amount < least:
            raise ValueError(
                f"Budget: {budget.amount:g} denoiser calls in all; one candidate a chunk already "
                f"takes {least} ({self.chunks} chunks, {len(self.schedule.steps)} steps and a "
                "context pass each). Give that many or more, or make the video shorter"
            )

    @property
    def chunks(self) -> int:
        """Chunks to make."""
        return math.ceil((self.latent_frames - self.given_frames) / self.frames_per_chunk)

    def first_frame(self, chunk: int) -> int:
        """Latent frame that a chunk starts at."""
        return self.given_frames + chunk * self.frames_per_chunk

    def relative(self, chunk: int) -> bool:
        """Whether a chunk is placed next to its context rather than at its own frame."""
        if self.positions == "auto":
            return self.first_frame(chunk + 1) > self.trained_frames
        return self.positions == "relative"

    @property
    def plan(self) -> Search:
        """The search that runs: plain streaming is one beam with one branch."""
        return self.search or Search(beam_width=1, branch_factor=1)

    @property
    def denoiser_calls(self) -> int:
        """Denoiser calls of the whole run, one per candidate and step.

        Refinement and context passes included.
        """
        return self.chunks * (
            self.plan.calls(self.plan.candidates, len(self.schedule.steps))
            + self.plan.beam_width * (self.refining_calls + 1)
        )

    @property
    def refining_calls(self) -> int:
        """Denoiser calls that refining one survivor takes."""
        if self.refine is None:
            return 0
        steps = self.refine.schedule(self.schedule).steps
        return self.refine.passes * self.refine.tries * len(steps)
