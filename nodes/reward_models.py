"""Rewards with weights of their own as nodes: files in ``models/stream_t1``, memory by the host."""

from collections.abc import Callable
from pathlib import Path

import comfy.text_encoders
from comfy_api.latest import io

from ..stream_t1_core.rewards.aesthetic import HEAD, Aesthetic
from ..stream_t1_core.rewards.aesthetic_quality import WEIGHTS as AESTHETIC_V1
from ..stream_t1_core.rewards.aesthetic_quality import AestheticQuality
from ..stream_t1_core.rewards.amt import WEIGHTS as AMT
from ..stream_t1_core.rewards.background import BackgroundConsistency
from ..stream_t1_core.rewards.base import Reward
from ..stream_t1_core.rewards.catalogue import known_reward
from ..stream_t1_core.rewards.clip import ClipScore, PickScore
from ..stream_t1_core.rewards.dino import SubjectConsistency
from ..stream_t1_core.rewards.dynamic import DynamicDegree
from ..stream_t1_core.rewards.hpsv3 import HPSv3
from ..stream_t1_core.rewards.image_reward import ImageReward
from ..stream_t1_core.rewards.imaging import ImagingQuality
from ..stream_t1_core.rewards.musiq import WEIGHTS as MUSIQ
from ..stream_t1_core.rewards.raft import WEIGHTS as RAFT
from ..stream_t1_core.rewards.smoothness import MotionSmoothness
from ..stream_t1_core.rewards.videoalign import VideoAlign
from .host import rewards as host
from .host.tiny import FOLDER as TINY_FOLDER
from .sockets import RewardSocket, advanced

TINY_CLIP = "tiny (ships with the pack)"
# The host ships Qwen2.5's tokenizer; its vocabulary and merges are Qwen2's too.
QWEN_VOCABULARY = Path(comfy.text_encoders.__path__[0]) / "qwen25_tokenizer"


PRECISION = advanced(
    io.Combo.Input(
        "precision",
        options=list(host.PRECISIONS),
        default="default",
        tooltip="Number format of the weights. Default: bfloat16 on cards that are "
        "good at it, else float32.",
    )
)


def _schema(
    node_id: str,
    reward_id: str,
    description: str,
    extra: list[io.Input] | None = None,
    shipped: list[str] | None = None,
    measures: bool = False,
) -> io.Schema:
    """A loader's schema: which folder, what else the reward has, number format and device.

    What ``measures`` is always of float32: its numbers are to compare with published ones.
    """
    known = known_reward(reward_id)
    return io.Schema(
        node_id=node_id,
        display_name=known.name,
        category="Stream-T1/rewards",
        description=description,
        inputs=[
            io.Combo.Input(
                "model",
                options=[*(shipped or []), *host.choices(known.folder)],
                tooltip=f"Folder in models/{host.FOLDER} with the files of {known.source}. The "
                "Doctor node lists what is needed and what is missing.",
            ),
            *(extra or []),
            *([] if measures else [PRECISION]),
            advanced(
                io.Combo.Input(
                    "device",
                    options=list(host.DEVICES),
                    default="default",
                    tooltip="Where it runs. 'cpu' keeps it off the graphics card: slower, but "
                    "the video model need not make room.",
                )
            ),
        ],
        outputs=[RewardSocket.Output("reward_out", display_name="reward")],
    )


def _clip_folder() -> io.Combo.Input:
    known = known_reward("clip_score")
    return io.Combo.Input(
        "clip",
        options=host.choices(known.folder),
        tooltip=f"Folder in models/{host.FOLDER} with the files of {known.source}, which the "
        "predictor stands on.",
    )


def _load(
    reward_id: str, model: str, device: str, build: Callable[[Path], Reward]
) -> io.NodeOutput:
    """Build a reward from its folder; an error names the node."""
    known = known_reward(reward_id)
    try:
        folder = TINY_FOLDER / "clip_tiny" if model == TINY_CLIP else host.find(model, known.source)
        return io.NodeOutput(host.hosted(build(folder), device))
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise ValueError(f"{known.name}: {error}") from error


class StreamT1VideoAlign(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        dimensions = (
            ("vq", "visual quality"),
            ("mq", "motion quality"),
            ("ta", "text alignment, the only one that reads the prompt"),
        )
        return _schema(
            "StreamT1VideoAlign",
            "videoalign",
            "VideoAlign (VideoReward), the paper's long reward: a 2B model that judges a video's "
            "look, its motion and how it fits the prompt; about -3..3 in all. Reads 2 frames a "
            "second. Source: Liu et al. 2025.",
            [
                io.Float.Input(
                    f"weight_{name}",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip=f"Weight of {meaning}. All three at 1: the published Overall.",
                )
                for name, meaning in dimensions
            ],
        )

    @classmethod
    def execute(
        cls,
        model: str,
        weight_vq: float,
        weight_mq: float,
        weight_ta: float,
        precision: str,
        device: str,
    ) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return VideoAlign.from_folder(
                folder,
                vocabulary=QWEN_VOCABULARY,
                weights=(weight_vq, weight_mq, weight_ta),
                dtype=host.dtype_of(precision, device),
            )

        return _load("videoalign", model, device, build)


class StreamT1HPSv3(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1HPSv3",
            "hpsv3",
            "HPSv3, the paper's short reward: a 7B model that judges each frame by what people "
            "prefer; about 5..12. Source: Ma et al. 2025.",
        )

    @classmethod
    def execute(cls, model: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            dtype = host.dtype_of(precision, device)
            return HPSv3.from_folder(folder, vocabulary=QWEN_VOCABULARY, dtype=dtype)

        return _load("hpsv3", model, device, build)


class StreamT1ClipScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1ClipScore",
            "clip_score",
            "CLIPScore: how well each frame fits the prompt, 0..100, mostly 15..35. Any CLIP "
            "folder in the hub's layout. Reads the first 77 tokens. Source: Hessel et al. 2021.",
            shipped=[TINY_CLIP],
        )

    @classmethod
    def execute(cls, model: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return _converted(ClipScore.from_folder(folder), precision, device)

        return _load("clip_score", model, device, build)


class StreamT1PickScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1PickScore",
            "pick_score",
            "PickScore v1: which picture for this prompt people would pick, mostly 18..24. Reads "
            "the first 77 tokens. Source: Kirstain et al. 2023.",
        )

    @classmethod
    def execute(cls, model: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return _converted(PickScore.from_folder(folder), precision, device)

        return _load("pick_score", model, device, build)


class StreamT1Aesthetic(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1Aesthetic",
            "aesthetic",
            "LAION Aesthetic v2: how pleasing each frame is, about 1..10. Does not read the "
            "prompt. Source: Schuhmann 2022.",
            [_clip_folder()],
        )

    @classmethod
    def execute(cls, model: str, clip: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            clip_folder = host.find(clip, known_reward("clip_score").source)
            return _converted(Aesthetic.from_files(clip_folder, folder / HEAD), precision, device)

        return _load("aesthetic", model, device, build)


class StreamT1SubjectConsistency(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1SubjectConsistency",
            "dino",
            "VBench's subject consistency: does the subject stay the same from frame to frame? "
            "0..1. A still video scores best: pair it with Motion Amount. Source: Huang et al. "
            "2024, DINO ViT-B/16.",
        )

    @classmethod
    def execute(cls, model: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            load = (
                SubjectConsistency.from_folder if folder.is_dir() else SubjectConsistency.from_file
            )
            return _converted(load(folder), precision, device)

        return _load("dino", model, device, build)


class StreamT1BackgroundConsistency(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1BackgroundConsistency",
            "background_consistency",
            "VBench's background consistency: does the scene stay the same from frame to frame? "
            "0..1. A still video scores best: pair it with Motion Amount. Source: Huang et al. "
            "2024, CLIP ViT-B/32.",
        )

    @classmethod
    def execute(cls, model: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return _converted(BackgroundConsistency.from_folder(folder), precision, device)

        return _load("background_consistency", model, device, build)


class StreamT1AestheticQuality(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1AestheticQuality",
            "aesthetic_quality",
            "VBench's aesthetic quality: how pleasing each frame is, 0..1. Source: Huang et al. "
            "2024, LAION's first predictor; LAION Aesthetic has the second.",
            [_clip_folder()],
        )

    @classmethod
    def execute(cls, model: str, clip: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            clip_folder = host.find(clip, known_reward("clip_score").source)
            reward = AestheticQuality.from_files(clip_folder, _file(folder, AESTHETIC_V1))
            return _converted(reward, precision, device)

        return _load("aesthetic_quality", model, device, build)


class StreamT1DynamicDegree(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1DynamicDegree",
            "dynamic_degree",
            "VBench's dynamic degree: 1 where the video moves, 0 where it hardly does. For "
            "Evaluate; in a search, use Motion Amount. Source: Huang et al. 2024, RAFT.",
            measures=True,
        )

    @classmethod
    def execute(cls, model: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return DynamicDegree.from_file(_file(folder, RAFT))

        return _load("dynamic_degree", model, device, build)


class StreamT1ImagingQuality(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1ImagingQuality",
            "imaging_quality",
            "VBench's imaging quality: how free of blur, noise and bad exposure each frame is, "
            "0..1. Source: Huang et al. 2024, MUSIQ.",
            measures=True,
        )

    @classmethod
    def execute(cls, model: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return ImagingQuality.from_file(_file(folder, MUSIQ))

        return _load("imaging_quality", model, device, build)


class StreamT1MotionSmoothness(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1MotionSmoothness",
            "motion_smoothness",
            "VBench's motion smoothness: is every second frame where its neighbours lead? 0..1. A "
            "still video scores best: pair it with Motion Amount. Source: Huang et al. 2024, "
            "AMT-S.",
            measures=True,
        )

    @classmethod
    def execute(cls, model: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return MotionSmoothness.from_file(_file(folder, AMT))

        return _load("motion_smoothness", model, device, build)


class StreamT1ImageReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "StreamT1ImageReward",
            "image_reward",
            "ImageReward: how people would rate each frame for this prompt, about -2..2. Reads "
            "the first 35 tokens. Source: Xu et al. 2023.",
        )

    @classmethod
    def execute(cls, model: str, precision: str, device: str) -> io.NodeOutput:
        def build(folder: Path) -> Reward:
            return _converted(ImageReward.from_folder(folder), precision, device)

        return _load("image_reward", model, device, build)


def _file(chosen: Path, name: str) -> Path:
    """A folder holds the file under its usual name; a file may have any."""
    return chosen / name if chosen.is_dir() else chosen


def _converted(reward: Reward, precision: str, device: str) -> Reward:
    reward.module.to(host.dtype_of(precision, device))
    return reward


NODES = [
    StreamT1VideoAlign,
    StreamT1HPSv3,
    StreamT1ClipScore,
    StreamT1PickScore,
    StreamT1Aesthetic,
    StreamT1SubjectConsistency,
    StreamT1BackgroundConsistency,
    StreamT1AestheticQuality,
    StreamT1DynamicDegree,
    StreamT1ImagingQuality,
    StreamT1MotionSmoothness,
    StreamT1ImageReward,
]
