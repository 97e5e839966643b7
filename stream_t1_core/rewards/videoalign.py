"""VideoAlign (VideoReward): visual quality, motion quality and text alignment of a video.

A Qwen2-VL of 2B parameters reads sampled frames and the prompt; three tokens of its instruction are
where the three scores are read. Stream-T1's long reward is their sum. This file knows VideoAlign's
files, settings and scores; the model is ``qwen2vl``.

Source: VideoAlign (Liu et al. 2025), https://github.com/KlingAIResearch/VideoAlign.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..batching import in_batches
from .base import Clips, Needs
from .qwen2vl import QWEN2_VL_2B, Batch, Qwen2VL
from .qwen2vl_files import (
    INDEX,
    LoraScale,
    build,
    find_weights,
    merge_lora,
    read_base,
    read_reward,
    read_shape,
)
from .qwen2vl_pixels import patches, resize_video, to_bytes
from .qwen2vl_prompt import VIDEO, Chat, load_tokenizer
from .upstream_text import VIDEOALIGN_TEXT, read_constants
from .weights import find_file, read_json

DIMENSIONS = ("VQ", "MQ", "TA")
TOKENS = tuple(f"<|{dimension}_reward|>" for dimension in DIMENSIONS)
MIN_PIXELS = 128 * 28 * 28  # a frame; the most is in model_config.json
HUB = "https://huggingface.co/KlingTeam/VideoReward"
BASE_HUB = "https://huggingface.co/Qwen/Qwen2-VL-2B-Instruct"
SETTINGS_FILE = "model_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_REST = "non_lora_state_dict.pth"  # vision tower and head
ADAPTER_SETTINGS = "adapter_config.json"
CHECKPOINT_FILES = ("model.safetensors", "model.pth", ADAPTER_FILE)
BASE_FILES = ("model.safetensors", INDEX)  # the second where it is in several files


@dataclass(frozen=True)
class VideoAlignSettings:
    """What ``model_config.json`` says of frames and scores."""

    fps: float  # sampled
    max_pixels: int  # of a frame
    means: tuple[float, ...] = (0.0, 0.0, 0.0)  # VQ, MQ, TA
    deviations: tuple[float, ...] = (1.0, 1.0, 1.0)
    standardised: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "VideoAlignSettings":
        """Without an ``inference_config``, scores stay raw."""
        data, scores = config["data_config"], config.get("inference_config")
        if data.get("num_frames") is not None:
            raise ValueError(
                f"data_config.num_frames is {data['num_frames']}: only models that sample by "
                "frame rate (num_frames null, as released) can be used"
            )
        if scores is None:
            return cls(data["fps"], data["max_frame_pixels"])
        return cls(
            data["fps"],
            data["max_frame_pixels"],
            tuple(scores[f"{dimension}_mean"] for dimension in DIMENSIONS),
            tuple(scores[f"{dimension}_std"] for dimension in DIMENSIONS),
            standardised=True,
        )


@dataclass(frozen=True, eq=False)
class VideoAlign:
    """Weighted sum of VQ, MQ and TA; the default is upstream's Overall, about -3 to 3.

    Unit: standard deviations of upstream's training set, where the settings have them. VQ and MQ do
    not depend on the prompt. The backbone runs in its own dtype, the head in float32 (upstream's
    runs in bfloat16, whose steps of 1/64 make ties). ``dataclasses.replace(reward, weights=...)``
    is another reward on the same weights in memory.
    """

    module: Qwen2VL = field(repr=False)
    chat: Chat = field(repr=False)
    settings: VideoAlignSettings
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of VQ, MQ, TA
    name: str = "videoalign"

    def __post_init__(self) -> None:
        if len(self.weights) != 3 or not all(map(math.isfinite, self.weights)):
            raise ValueError(
                f"VideoAlign's weights are {self.weights}: give three finite numbers, for VQ, MQ, "
                "TA"
            )
        if not any(self.weights):
            raise ValueError(
                "VideoAlign's weights are all zero: give one of VQ, MQ, TA another weight"
            )

    @property
    def needs(self) -> Needs:
        spread = sum(map(abs, self.weights))
        return Needs(
            video=True,
            fps=self.settings.fps,
            pixels=self.settings.max_pixels,
            prompt=True,
            scale=(-spread, spread) if self.settings.standardised else None,
        )

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        base: str | Path | None = None,
        vocabulary: str | Path | None = None,
        template: str | None = None,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        dtype: torch.dtype = torch.bfloat16,
    ) -> "VideoAlign":
        """Build from upstream's folder: ``model_config.json``, ``checkpoint-N`` (the highest N).

        A single file of weights beside the settings will do instead of a checkpoint folder.
        ``base``: folder of the Qwen2-VL that was trained, default ``base`` inside the folder; only
        the adapter layout needs its weights. ``vocabulary``: a folder with Qwen2's ``vocab.json``
        and ``merges.txt``, for a checkpoint without tokenizer. ``template``: the prompt template;
        None reads upstream's from ``prompt_template.py`` in the folder.
        """
        folder = Path(folder)
        base = Path(base) if base else folder / "base"
        config_path = find_file(folder, [SETTINGS_FILE], HUB)
        config = read_json(config_path)
        if template is None:
            (template,) = read_constants(folder, VIDEOALIGN_TEXT)
        try:
            settings = VideoAlignSettings.of(config)
            scale = _lora_scale(config["peft_lora_config"])
        except KeyError as error:
            raise ValueError(f"{config_path} lacks {error}: copy it from {HUB} again") from error
        path = _checkpoint(folder)
        tensors = _read(path, base, scale, dtype)
        module = build(
            read_shape([base, folder], QWEN2_VL_2B), _head(tensors, path), tensors, dtype, path
        )
        places = [
            path.parent / "tokenizer",
            base,
            folder,
            *([Path(vocabulary)] if vocabulary else []),
        ]
        tokenizer = load_tokenizer(places, TOKENS, module.vocabulary)
        return cls(module, Chat(tokenizer, template, VIDEO, TOKENS), settings, weights)

    def __call__(self, clips: Clips) -> Tensor:
        videos = list(to_bytes(clips.frames))
        scores = in_batches(
            videos, lambda some: list(self.scores(some, [clips.prompt] * len(some)))
        )
        scores = torch.stack(scores)
        return scores @ scores.new_tensor(self.weights)

    @torch.inference_mode()
    def scores(self, videos: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        """VQ, MQ, TA of videos, uint8 [T, H, W, 3] each, already sampled: [B, 3]."""
        batch = self.batch(videos, prompts)
        raw = self.raw(self.module(batch, self.chat.id_of(VIDEO)), batch)
        means, deviations = map(raw.new_tensor, (self.settings.means, self.settings.deviations))
        return (raw - means) / deviations

    def batch(self, videos: Sequence[Tensor], prompts: Sequence[str]) -> Batch:
        limits = (MIN_PIXELS, self.settings.max_pixels)
        return self.chat.batch(prompts, [patches(resize_video(v, *limits)) for v in videos])

    def raw(self, hidden: Tensor, batch: Batch) -> Tensor:
        """The head's answers at the three tokens: [B, L, D] -> [B, 3]."""
        at = self.chat.read_at(batch.ids).to(hidden.device)  # [B, 3]
        row = torch.arange(len(at), device=at.device)[:, None]
        answers = self.module.rm_head(hidden[row, at].float())  # [B, 3, 1] or [B, 3, 3]
        # a head of three outputs has one for each token
        return answers.diagonal(dim1=1, dim2=2) if answers.shape[-1] == 3 else answers[..., 0]


def _checkpoint(folder: Path) -> Path:
    """The file of weights: in the ``checkpoint-N`` of highest N, or alone in the folder."""
    steps = {
        int(match[1]): path
        for path in folder.iterdir()
        if path.is_dir() and (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    place = steps[max(steps)] if steps else folder
    remedy = f"copy checkpoint-11352 of {HUB} to {folder / 'checkpoint-11352'}"
    return find_weights(place, CHECKPOINT_FILES, remedy)


def _read(path: Path, base: Path, scale: LoraScale, dtype: torch.dtype) -> dict[str, Tensor]:
    """All weights under the base model's names, LoRA merged."""
    tensors = read_reward(path)
    if path.name == ADAPTER_FILE:
        others = find_file(path.parent, [ADAPTER_REST], "the training run that made the adapter")
        settings = find_file(path.parent, [ADAPTER_SETTINGS], "the same training run")
        find_file(base, BASE_FILES, BASE_HUB)
        scale = _adapter_scale(read_json(settings), settings)
        tensors = {**read_base(base), **read_reward(others), **tensors}
    return merge_lora(tensors, scale, dtype, path)


def _lora_scale(config: Mapping[str, Any]) -> LoraScale:
    return LoraScale(config["lora_r"], config["lora_alpha"], config.get("use_rslora", False))


def _adapter_scale(config: Mapping[str, Any], path: Path) -> LoraScale:
    for name in ("rank_pattern", "alpha_pattern", "use_dora", "fan_in_fan_out"):
        if config.get(name):
            raise ValueError(f"{path} sets {name}: only plain LoRA of one rank can be merged")
    return LoraScale(config["r"], config["lora_alpha"], config.get("use_rslora", False))


def _head(tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """One output read at three tokens, as released, or three outputs."""
    weight = tensors.get("rm_head.weight")
    if weight is None or weight.ndim != 2 or weight.shape[0] not in (1, 3):
        found = "no rm_head.weight" if weight is None else f"an rm_head of {list(weight.shape)}"
        raise ValueError(f"{path} has {found}: VideoAlign's head is [1, D] or [3, D]")
    return nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
