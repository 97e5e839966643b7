"""Rewards as nodes. Each gives a core reward; Reward Mix adds several with weights."""

from comfy_api.latest import io

from ..stream_t1_core.rewards.base import Reward
from ..stream_t1_core.rewards.drift import ColourDrift
from ..stream_t1_core.rewards.flicker import Flicker, TemporalFlickering
from ..stream_t1_core.rewards.mix import RewardMix
from ..stream_t1_core.rewards.motion import MotionAmount, TemporalConsistency
from ..stream_t1_core.rewards.sharpness import Sharpness
from .sockets import RewardSocket

CATEGORY = "Stream-T1/rewards"


def _schema(
    node_id: str, name: str, description: str, inputs: list[io.Input] | None = None
) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=name,
        category=CATEGORY,
        description=description,
        inputs=inputs or [],
        outputs=[RewardSocket.Output("reward_out", display_name="reward")],
    )


class StreamT1TemporalConsistency(io.ComfyNode):
    """Minus the warping error in percent of full scale (Lai et al. 2018), flow without weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1TemporalConsistency",
            "Temporal Consistency",
            "Does each frame follow from the last? Minus the warping error, in percent of full "
            "scale (-100..0), with an optical flow that needs no weights. Source: Lai et al. 2018. "
            "A still video scores best: pair it with Motion Amount.",
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(TemporalConsistency())


class StreamT1Flicker(io.ComfyNode):
    """Minus the jumps of light and colour, in percent of full scale."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1Flicker",
            "Flicker",
            "Does the light jump to and fro? Minus the mean jump of each picture cell's colour, in "
            "percent of full scale (-100..0). Steady motion and slow fades cost next to nothing. "
            "Source: after VBench's temporal flickering.",
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(Flicker())


class StreamT1TemporalFlickering(io.ComfyNode):
    """VBench's temporal flickering, 0..1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1TemporalFlickering",
            "VBench Temporal Flickering",
            "VBench's temporal flickering: how alike neighbouring frames are, 0..1. Meant for "
            "scenes that should not move, since motion pays as flicker does. Source: Huang et al. "
            "2024.",
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(TemporalFlickering())


class StreamT1MotionAmount(io.ComfyNode):
    """Mean speed in percent of the diagonal per second, up to a target."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1MotionAmount",
            "Motion Amount",
            "Does anything move? Mean speed in percent of the picture's diagonal per second, up to "
            "the target, so that a frozen video does not win. Source: after VBench's dynamic "
            "degree.",
            [
                io.Float.Input(
                    "target",
                    default=5.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="Speed that is enough, in percent of the diagonal per second. More "
                    "motion than this gains nothing.",
                )
            ],
        )

    @classmethod
    def execute(cls, target: float) -> io.NodeOutput:
        return io.NodeOutput(MotionAmount(target))


class StreamT1Sharpness(io.ComfyNode):
    """Finest detail against all contrast, in percent (after Pech-Pacheco et al. 2000)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1Sharpness",
            "Sharpness",
            "Are the pictures sharp? Strength of the finest detail against all contrast, in "
            "percent (0..800). Noise looks sharp too, so give it a small weight. Source: variance "
            "of the Laplacian, Pech-Pacheco et al. 2000.",
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(Sharpness())


class StreamT1ColorDrift(io.ComfyNode):
    """Minus the distance of colour statistics from the first chunk's, in percent of full scale."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1ColorDrift",
            "Color Drift",
            "Do exposure and colour stay those of the first chunk? Minus the distance of colour "
            "mean and spread, in percent of full scale (-100..0). Source: colour moments, Reinhard "
            "et al. 2001.",
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(ColourDrift())


class StreamT1RewardMix(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1RewardMix",
            "Reward Mix",
            "Adds rewards with weights. For more than four, plug one mix into another. The report "
            "lists every single reward.",
            [
                entry
                for name in ("a", "b", "c", "d")
                for entry in (
                    RewardSocket.Input(
                        f"reward_{name}",
                        optional=name != "a",
                        tooltip="A reward, or another mix.",
                    ),
                    io.Float.Input(
                        f"weight_{name}",
                        default=1.0,
                        min=-1000.0,
                        max=1000.0,
                        step=0.001,
                        tooltip="Times this. Rewards keep their own units; weights make them "
                        "comparable. Negative: less of it is better.",
                    ),
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        reward_a: Reward,
        weight_a: float,
        weight_b: float,
        weight_c: float,
        weight_d: float,
        reward_b: Reward | None = None,
        reward_c: Reward | None = None,
        reward_d: Reward | None = None,
    ) -> io.NodeOutput:
        terms = (
            (weight_a, reward_a),
            (weight_b, reward_b),
            (weight_c, reward_c),
            (weight_d, reward_d),
        )
        return io.NodeOutput(RewardMix(tuple((w, r) for w, r in terms if r is not None)))


NODES = [
    StreamT1TemporalConsistency,
    StreamT1Flicker,
    StreamT1TemporalFlickering,
    StreamT1MotionAmount,
    StreamT1Sharpness,
    StreamT1ColorDrift,
    StreamT1RewardMix,
]
