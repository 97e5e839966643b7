"""The models from elsewhere that this pack can use: their files, where those lie and come from.

The one table for whoever loads, looks for or lists them. It knows names only, and whether they are
there; whether a file holds what it should is the loaders' business. Places are ComfyUI's model
folders: a reward has a folder of its own below ``models/stream_t1``, LongLive's files lie where
ComfyUI's own loaders look for their kind.

Sizes are those of the published files; see each source's own page for its licence.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

REWARDS_FOLDER = "stream_t1"  # below ComfyUI's models folder, and its key in extra_model_paths.yaml
TRANSFORMERS = (4, 45)  # has Qwen2-VL; no older one is tested
HUB = "https://huggingface.co"
GITHUB = "https://github.com"


@dataclass(frozen=True)
class NeededFile:
    """One file; ``names`` are patterns below a folder, and any one of them will do."""

    names: tuple[str, ...]
    source: str
    comfyui_has_it: bool = False  # needed only where there is no ComfyUI

    def find(self, folder: Path) -> Path | None:
        """The first file of these names directly at its place below ``folder``."""
        for name in self.names:
            found = sorted(path for path in folder.glob(name) if path.is_file())
            if found:
                return found[0]
        return None


@dataclass(frozen=True)
class KnownReward:
    """A reward with weights."""

    id: str
    name: str
    folder: str  # below REWARDS_FOLDER
    files: tuple[NeededFile, ...]
    source: str  # of the weights
    parameters: int  # numbers that stay in memory: twice as many bytes in bfloat16
    file_bytes: int  # to download
    also: tuple[str, ...] = ()  # ids of rewards whose folder it reads too
    transformers: tuple[int, int] | None = TRANSFORMERS  # the oldest; None: it needs none

    def folder_below(self, roots: Sequence[Path]) -> Path | None:
        """Its folder in the first of ``roots`` that has one; complete or not."""
        return next((r / self.folder for r in roots if (r / self.folder).is_dir()), None)


@dataclass(frozen=True)
class KnownFile:
    """A file that ComfyUI's own loaders list by kind; ``names`` are patterns in lower case."""

    kind: str  # the folder below ComfyUI's models folder
    what: str
    names: tuple[str, ...]
    source: str
    file_bytes: int

    def find(self, roots: Sequence[Path]) -> Path | None:
        """The first file of such a name at any depth below ``roots``, through links as ComfyUI."""
        for root in roots:
            for folder, _, names in os.walk(root, followlinks=True):
                for name in sorted(names):
                    if any(fnmatchcase(name.lower(), pattern) for pattern in self.names):
                        return Path(folder, name)
        return None


def _needed(source: str, *files: str) -> tuple[NeededFile, ...]:
    """One needed file each; alternatives are parted by ``|``."""
    return tuple(NeededFile(tuple(file.split("|")), source) for file in files)


def _clip(source: str, tokenizer: str) -> tuple[NeededFile, ...]:
    return (
        *_needed(source, "config.json", "model.safetensors|pytorch_model.bin"),
        *_needed(tokenizer, "tokenizer.json|vocab.json", "tokenizer.json|merges.txt"),
    )


def _qwen_tokenizer(source: str, place: str) -> tuple[NeededFile, ...]:
    return tuple(
        NeededFile(
            tuple(f"{folder}{name}" for folder in (place, "base/") for name in names), source, True
        )
        for names in (("tokenizer.json", "vocab.json"), ("tokenizer.json", "merges.txt"))
    )


REWARDS = (
    KnownReward(
        id="videoalign",
        name="VideoAlign",
        folder="videoalign",
        files=(
            *_needed(
                f"{HUB}/KlingTeam/VideoReward",
                "model_config.json",
                "checkpoint-*/model.pth|checkpoint-*/*.safetensors|*.pth|*.safetensors",
            ),
            *_needed(f"{GITHUB}/KlingAIResearch/VideoAlign", "prompt_template.py"),
            *_qwen_tokenizer(f"{HUB}/KlingTeam/VideoReward", "checkpoint-*/tokenizer/"),
        ),
        source=f"{HUB}/KlingTeam/VideoReward",
        parameters=2_210_000_000,
        file_bytes=5_031_072_529,
    ),
    KnownReward(
        id="hpsv3",
        name="HPSv3",
        folder="hpsv3",
        files=(
            *_needed(f"{HUB}/MizzenAI/HPSv3", "HPSv3.safetensors|HPSv3.pth|*.safetensors|*.pth"),
            *_needed(
                f"{GITHUB}/MizzenAI/HPSv3 (hpsv3/dataset/data_collator_qwen.py)",
                "data_collator_qwen.py",
            ),
            *_qwen_tokenizer(f"{HUB}/Qwen/Qwen2-VL-7B-Instruct", ""),
        ),
        source=f"{HUB}/MizzenAI/HPSv3",
        parameters=7_750_000_000,
        file_bytes=16_590_000_000,
    ),
    KnownReward(
        id="clip_score",
        name="CLIPScore",
        folder="clip-vit-large-patch14",
        files=_clip(*2 * (f"{HUB}/openai/clip-vit-large-patch14",)),
        source=f"{HUB}/openai/clip-vit-large-patch14",
        parameters=428_000_000,
        file_bytes=1_710_000_000,
    ),
    KnownReward(
        id="pick_score",
        name="PickScore",
        folder="PickScore_v1",
        files=_clip(
            f"{HUB}/yuvalkirstain/PickScore_v1", f"{HUB}/laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
        ),
        source=f"{HUB}/yuvalkirstain/PickScore_v1",
        parameters=986_000_000,
        file_bytes=3_950_000_000,
    ),
    KnownReward(
        id="aesthetic",
        name="LAION Aesthetic",
        folder="aesthetic",
        files=_needed(
            f"{GITHUB}/christophschuhmann/improved-aesthetic-predictor",
            "sac+logos+ava1-l14-linearMSE.pth",
        ),
        source=f"{GITHUB}/christophschuhmann/improved-aesthetic-predictor",
        parameters=305_000_000,  # with the half of CLIP that sees
        file_bytes=3_700_000,
        also=("clip_score",),
    ),
    KnownReward(
        id="dino",
        name="DINO Subject Consistency",
        folder="dino-vitb16",
        files=_needed(
            f"{HUB}/facebook/dino-vitb16", "config.json", "model.safetensors|pytorch_model.bin"
        ),
        source=f"{HUB}/facebook/dino-vitb16",
        parameters=86_000_000,
        file_bytes=343_000_000,
        transformers=None,
    ),
    KnownReward(
        id="background_consistency",
        name="VBench Background Consistency",
        folder="clip-vit-base-patch32",
        files=_needed(
            f"{HUB}/openai/clip-vit-base-patch32",
            "config.json",
            "model.safetensors|pytorch_model.bin",
        ),
        source=f"{HUB}/openai/clip-vit-base-patch32",
        parameters=87_900_000,  # the half that sees
        file_bytes=605_000_000,
    ),
    KnownReward(
        id="aesthetic_quality",
        name="VBench Aesthetic Quality",
        folder="aesthetic-v1",
        files=_needed(f"{GITHUB}/LAION-AI/aesthetic-predictor", "sa_0_4_vit_l_14_linear.pth"),
        source=f"{GITHUB}/LAION-AI/aesthetic-predictor",
        parameters=304_000_000,  # with the half of CLIP that sees
        file_bytes=4_000,
        also=("clip_score",),
    ),
    KnownReward(
        id="dynamic_degree",
        name="VBench Dynamic Degree",
        folder="raft",
        files=_needed(f"{GITHUB}/princeton-vl/RAFT (in download_models.sh)", "raft-things.pth"),
        source=f"{GITHUB}/princeton-vl/RAFT",
        parameters=5_260_000,
        file_bytes=21_100_000,
        transformers=None,
    ),
    KnownReward(
        id="imaging_quality",
        name="VBench Imaging Quality",
        folder="musiq",
        files=_needed(
            f"{GITHUB}/chaofengc/IQA-PyTorch/releases/tag/v0.1-weights",
            "musiq_spaq_ckpt-358bb6af.pth",
        ),
        source=f"{GITHUB}/chaofengc/IQA-PyTorch",
        parameters=27_100_000,
        file_bytes=109_000_000,
        transformers=None,
    ),
    KnownReward(
        id="motion_smoothness",
        name="VBench Motion Smoothness",
        folder="amt",
        files=_needed(f"{HUB}/lalala125/AMT", "amt-s.pth"),
        source=f"{HUB}/lalala125/AMT",
        parameters=2_990_000,
        file_bytes=36_000_000,  # an estimate: weights, and an optimiser's two numbers for each
        transformers=None,
    ),
    KnownReward(
        id="image_reward",
        name="ImageReward",
        folder="image-reward",
        files=(
            *_needed(f"{HUB}/THUDM/ImageReward", "ImageReward.pt", "med_config.json"),
            *_needed(f"{HUB}/google-bert/bert-base-uncased", "vocab.txt"),
        ),
        source=f"{HUB}/THUDM/ImageReward",
        parameters=447_000_000,
        file_bytes=1_790_000_000,
        transformers=None,
    ),
)

LONGLIVE = (
    KnownFile(
        kind="diffusion_models",
        what="LongLive base",
        names=("*longlive*",),
        source=f"{HUB}/Efficient-Large-Model/LongLive-1.3B (models/longlive_base.pt)",
        file_bytes=5_676_334_208,
    ),
    KnownFile(
        kind="loras",
        what="LongLive LoRA",
        names=("*longlive*", "lora.pt"),
        source=f"{HUB}/Efficient-Large-Model/LongLive-1.3B (models/lora.pt)",
        file_bytes=2_800_056_690,
    ),
    KnownFile(
        kind="text_encoders",
        what="UMT5-XXL text encoder",
        names=("*umt5*xxl*",),
        source=f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged (split_files/text_encoders)",
        file_bytes=6_740_000_000,
    ),
    KnownFile(
        kind="vae",
        what="Wan 2.1 VAE",
        names=("*wan*2*1*vae*",),
        source=f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged (split_files/vae)",
        file_bytes=254_000_000,
    ),
)


def known_reward(id: str) -> KnownReward:
    """The reward of this id; ValueError names the ids there are."""
    found = {reward.id: reward for reward in REWARDS}
    if id not in found:
        raise ValueError(f"no known reward '{id}': choose one of {', '.join(found)}")
    return found[id]
