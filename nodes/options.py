"""The units as nodes: each one's output is the core's settings record."""

from comfy_api.latest import io

from ..stream_t1_core.config import (
    REFINE_METHODS,
    VOTES,
    EarlyPruning,
    Memory,
    NoisePropagation,
    Refine,
    Search,
)
from ..stream_t1_core.rewards.base import Reward
from .sockets import (
    MemorySocket,
    NoiseSocket,
    Pruner,
    PrunerSocket,
    RefinerSocket,
    RewardSocket,
    advanced,
)


class StreamT1NoisePropagation(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1NoisePropagation",
            display_name="Noise Propagation",
            category="Stream-T1",
            description="Starts each chunk from the previous good chunk's noise: "
            "noise = beta * previous + sqrt(1 - beta^2) * new.",
            inputs=[
                io.Float.Input(
                    "beta",
                    default=-0.1,
                    min=-0.999,
                    max=0.999,
                    step=0.001,
                    tooltip="Share of the previous chunk's noise, between -1 and 1. 0 keeps none "
                    "of it; the released setting is -0.1.",
                )
            ],
            outputs=[NoiseSocket.Output("noise", display_name="noise")],
        )

    @classmethod
    def execute(cls, beta: float) -> io.NodeOutput:
        return io.NodeOutput(NoisePropagation(beta))


class StreamT1RewardPruner(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1RewardPruner",
            display_name="Reward Pruner",
            category="Stream-T1",
            description="Tries several candidates for every chunk and keeps the best paths. "
            "Cost grows with beam width x branch factor.",
            inputs=[
                RewardSocket.Input(
                    "short_reward",
                    optional=True,
                    tooltip="Judges each chunk by itself: image quality, for example Sharpness.",
                ),
                RewardSocket.Input(
                    "long_reward",
                    optional=True,
                    tooltip="Judges the last chunks as one video: motion, consistency. Its weight "
                    "is 1 - the short reward's.",
                ),
                io.Int.Input(
                    "beam_width",
                    default=2,
                    min=1,
                    max=64,
                    tooltip="Paths kept after every chunk (K). More keep more variety; each needs "
                    "memory for its own chunks.",
                ),
                io.Int.Input(
                    "branch_factor",
                    default=2,
                    min=1,
                    max=64,
                    tooltip="Candidates tried per path and chunk (M). The first chunk tries K x M.",
                ),
                advanced(
                    io.Int.Input(
                        "span_chunks",
                        default=10,
                        min=1,
                        max=1000,
                        tooltip="How many chunks the long reward sees, the new one included.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "tau",
                        default=0.4,
                        min=0.0,
                        max=1.0,
                        step=0.01,
                        tooltip="Highest weight of the short reward. It rises from 0 in the first "
                        "chunk to tau.",
                    )
                ),
                io.String.Input(
                    "prompt",
                    optional=True,
                    force_input=True,
                    tooltip="The text that rewards compare the pictures with: wire the text here "
                    "that goes into CLIP Text Encode. Needed by rewards that read the prompt.",
                ),
                advanced(
                    io.Boolean.Input(
                        "standardise",
                        default=False,
                        tooltip="Compare rewards by their distance from the mean of all candidates "
                        "so far, in standard deviations, before weights. Use it to mix rewards of "
                        "different scales. Off: add them as they are, as published.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "strict",
                        default=False,
                        tooltip="On: a reward that fails stops the run. Off: it is reported. "
                        "Without a number for any candidate it is left out of the chunk; a "
                        "candidate that it has no number for cannot win.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "early_share",
                        default=0.0,
                        min=0.0,
                        max=0.95,
                        step=0.01,
                        optional=True,
                        tooltip="Early pruning: this share of a chunk's candidates, the worst, is "
                        "dropped before its last denoising steps; beam_width of them go on in any "
                        "case. Goes by the short reward, which looks once more. 0: off.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "early_step",
                        default=1,
                        min=1,
                        max=99,
                        optional=True,
                        tooltip="After how many denoising steps early_share is dropped. Later "
                        "ones tell more and save less; below the sampler's steps.",
                    )
                ),
            ],
            outputs=[PrunerSocket.Output("pruner", display_name="pruner")],
        )

    @classmethod
    def execute(
        cls,
        beam_width: int,
        branch_factor: int,
        span_chunks: int,
        tau: float,
        standardise: bool,
        strict: bool,
        early_share: float = 0.0,
        early_step: int = 1,
        short_reward: Reward | None = None,
        long_reward: Reward | None = None,
        prompt: str = "",
    ) -> io.NodeOutput:
        early = EarlyPruning(early_step, early_share) if early_share else None
        search = Search(beam_width, branch_factor, span_chunks, tau, standardise, strict, early)
        return io.NodeOutput(Pruner(search, short_reward, long_reward, prompt))


class StreamT1MemorySink(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1MemorySink",
            display_name="Memory Sink",
            category="Stream-T1",
            description="Decides by reward what becomes of a chunk that leaves the window: dropped "
            "when worse than its past, blended into the newest sink when good, appended as a new "
            "sink when good and the scene changes. Needs both rewards in the Reward Pruner.",
            inputs=[
                io.Float.Input(
                    "short_gate",
                    default=0.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="A chunk is worth keeping when its short reward beats the mean of all "
                    "earlier chunks by more than this. In units of the short reward.",
                ),
                io.Float.Input(
                    "long_gate",
                    default=0.2,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="The scene changes when the long reward falls by more than this from "
                    "one chunk to the next. In units of the long reward.",
                ),
                io.Float.Input(
                    "alpha",
                    default=0.999,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Weight of the old sink when a chunk is blended into it. 1 changes "
                    "nothing, 0.9 takes over a tenth.",
                ),
                io.Int.Input(
                    "max_sink_frames",
                    default=15,
                    min=1,
                    max=1000,
                    tooltip="Most latent frames of sinks. Each appended sink costs memory and time "
                    "for the rest of the video.",
                ),
                advanced(
                    io.Int.Input(
                        "window_frames",
                        default=12,
                        min=1,
                        max=1000,
                        tooltip="Latent frames a chunk attends to before any append: first sink, "
                        "recent chunks and its own. LongLive: 12.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "sink_frames",
                        default=3,
                        min=0,
                        max=1000,
                        tooltip="Latent frames of the fixed first sink. LongLive: 3.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "routing",
                        default=True,
                        tooltip="Off: window and fixed sink only, as without this node, but with "
                        "the sizes given here.",
                    )
                ),
            ],
            outputs=[MemorySocket.Output("memory", display_name="memory")],
        )

    @classmethod
    def execute(
        cls,
        short_gate: float,
        long_gate: float,
        alpha: float,
        max_sink_frames: int,
        window_frames: int,
        sink_frames: int,
        routing: bool,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            Memory(
                window_frames, sink_frames, max_sink_frames, alpha, short_gate, long_gate, routing
            )
        )


class StreamT1Refiner(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1Refiner",
            display_name="Refiner",
            category="Stream-T1",
            description="Improves the chunks that go on: noises each a little and denoises it "
            "again, and keeps the new one where its fused score does not fall. Needs a reward in "
            "the Reward Pruner.",
            inputs=[
                io.Combo.Input(
                    "method",
                    options=[*REFINE_METHODS],
                    default=REFINE_METHODS[0],
                    tooltip="iterative: once a pass; ensemble: several times a pass with other "
                    "noise, combined by vote; extended: once a pass, attending also to chunks that "
                    "have left the window.",
                ),
                io.Int.Input(
                    "passes",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="Passes for each chunk that goes on, one after the other; each starts "
                    "from the last accepted. One costs a denoiser call or more per path.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.25,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How much is made anew: where on the noise schedule a pass starts, "
                    "before its shift. 0.25 is the last of 4 steps; 1 is pure noise. Each of the "
                    "sampler's steps below it costs one more denoiser call.",
                ),
                advanced(
                    io.Int.Input(
                        "members",
                        default=4,
                        min=1,
                        max=64,
                        tooltip="For ensemble: latents that vote in a pass. Cost grows with it. "
                        "The medoid needs 3 or more; fewer are refused.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "vote",
                        options=[*VOTES],
                        default=VOTES[0],
                        tooltip="For ensemble: medoid takes the member nearest to all others, mean "
                        "their average, which is smoother.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "wider_chunks",
                        default=3,
                        min=1,
                        max=100,
                        tooltip="For extended: chunks that have left the window and are remembered "
                        "for the passes. Each costs memory like a chunk of the window.",
                    )
                ),
            ],
            outputs=[RefinerSocket.Output("refiner", display_name="refiner")],
        )

    @classmethod
    def execute(
        cls,
        method: str,
        passes: int,
        strength: float,
        members: int,
        vote: str,
        wider_chunks: int,
    ) -> io.NodeOutput:
        return io.NodeOutput(Refine(method, passes, strength, members, vote, wider_chunks))


NODES = [StreamT1NoisePropagation, StreamT1RewardPruner, StreamT1MemorySink, StreamT1Refiner]
