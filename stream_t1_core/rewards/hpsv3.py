"""HPSv3: how much people would like a picture made for a prompt.

A Qwen2-VL of 7B parameters reads one frame and the prompt; its score is read at one token of the
instruction. Stream-T1's short reward is the mean over a chunk's frames. This file knows HPSv3's
files and score; the model is ``qwen2vl``.

Source: HPSv3 (Ma et al. 2025), https://github.com/MizzenAI/HPSv3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..batching import in_batches
from .base import Clips, Needs
from .qwen2vl import FRAMES_PER_PATCH, QWEN2_VL_7B, Batch, Qwen2VL
from .qwen2vl_files import build, find_weights, read_reward, read_shape
from .qwen2vl_pixels import patches, resize_image, to_bytes
from .qwen2vl_prompt import IMAGE, Chat, load_tokenizer
from .upstream_text import HPSV3_TEXT, read_constants

TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28  # of a frame: both the least and the most
HUB = "https://huggingface.co/MizzenAI/HPSv3"
WEIGHTS_FILES = ("HPSv3.safetensors", "HPSv3.pth")
HEAD_LAYERS = (0, 3, 5)  # what lies between has no weights


@dataclass(frozen=True, eq=False)
class HPSv3:
    """The head's mu, mean over frames; about 5 to 12 for good models' pictures, not normalised.

    The backbone runs in its own dtype, the head in float32, as published.
    """

    module: Qwen2VL = field(repr=False)
    chat: Chat = field(repr=False)
    pixels: int = PIXELS
    name: str = "hpsv3"

    @property
    def needs(self) -> Needs:
        return Needs(video=False, pixels=self.pixels, prompt=True, scale=(5.0, 12.0))

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        base: str | Path | None = None,
        vocabulary: str | Path | None = None,
        template: str | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> "HPSv3":
        """Build from a folder with ``HPSv3.safetensors``, or one other file of the same weights.

        ``base``: folder with the base model's ``config.json`` and tokenizer, default ``base``
        inside the folder; its weights are not used. ``vocabulary``: a folder with Qwen2's
        ``vocab.json`` and ``merges.txt``, where the base's tokenizer is not at hand. ``template``:
        the prompt template; None reads upstream's from ``data_collator_qwen.py`` in the folder.
        """
        folder = Path(folder)
        base = Path(base) if base else folder / "base"
        if template is None:
            instruction, closing = read_constants(folder, HPSV3_TEXT)
            template = instruction + closing.replace("{", "{{").replace("}", "}}")
        remedy = f"copy {WEIGHTS_FILES[0]} of {HUB} to {folder / WEIGHTS_FILES[0]}"
        path = find_weights(folder, WEIGHTS_FILES, remedy)
        tensors = read_reward(path)
        module = build(
            read_shape([base, folder], QWEN2_VL_7B), _head(tensors, path), tensors, dtype, path
        )
        places = [base, folder, *([Path(vocabulary)] if vocabulary else [])]
        tokenizer = load_tokenizer(places, (TOKEN,), module.vocabulary)
        return cls(module, Chat(tokenizer, template, IMAGE, (TOKEN,)))

    def __call__(self, clips: Clips) -> Tensor:
        candidates, frames = clips.frames.shape[:2]
        images = list(to_bytes(clips.frames).flatten(0, 1))
        scores = in_batches(
            images, lambda some: list(self.scores(some, [clips.prompt] * len(some)))
        )
        return torch.stack(scores).view(candidates, frames).mean(dim=1)

    def scores(self, images: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        """mu of images, uint8 [H, W, 3] each: [B]."""
        return self.answers(images, prompts)[:, 0]

    @torch.inference_mode()
    def answers(self, images: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        """The head's two outputs, mu and the logarithm of sigma: [B, 2]."""
        batch = self.batch(images, prompts)
        hidden = self.module(batch, self.chat.id_of(IMAGE))
        at = self.chat.read_at(batch.ids)[:, 0].to(hidden.device)
        return self.module.rm_head(hidden[torch.arange(len(at), device=at.device), at].float())

    def batch(self, images: Sequence[Tensor], prompts: Sequence[str]) -> Batch:
        resized = (resize_image(image, self.pixels, self.pixels) for image in images)
        pictures = [patches(image.expand(FRAMES_PER_PATCH, -1, -1, -1)) for image in resized]
        return self.chat.batch(prompts, pictures)


def _head(tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Three linear layers with ReLU between, and dropout after the first, which is off here."""
    shapes = [tensors.get(f"rm_head.{layer}.weight", torch.empty(0)).shape for layer in HEAD_LAYERS]
    if any(len(shape) != 2 for shape in shapes) or shapes[-1][0] != 2:
        raise ValueError(
            f"{path} has no head of HPSv3 (rm_head.{HEAD_LAYERS} with two outputs): "
            f"copy {WEIGHTS_FILES[0]} of {HUB} again"
        )
    first, second, last = (nn.Linear(wide, out, device="meta") for out, wide in shapes)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), last)
