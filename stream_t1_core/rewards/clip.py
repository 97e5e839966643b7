"""CLIP as a reward: does each frame show what the prompt says (CLIPScore), and would people
prefer it (PickScore)?

Knows hub folders in the layout of transformers' ``CLIPModel``, of any size. Only that class and a
byte-pair tokenizer are used, at arm's length from what changes between versions of transformers:
the two towers are called by hand. Knows nothing of videos: a clip's score is its frames' mean.

The text is cut at the model's context length (77 tokens in the released models): long video
prompts lose their tail.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Clips, Needs
from .vision import CLIP_MEAN, CLIP_STD, Preprocess, device_of, dtype_of, encode_frames
from .weights import HUB_WEIGHTS, fill, find_file, read_json, read_weights, require

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import CLIPConfig

TEXT_START, TEXT_END = "<|startoftext|>", "<|endoftext|>"
WORD_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLIP_L = "https://huggingface.co/openai/clip-vit-large-patch14"
CLIP_B = "https://huggingface.co/openai/clip-vit-base-patch32"
PICKSCORE = "https://huggingface.co/yuvalkirstain/PickScore_v1"
CLIP_H = "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
IMAGE_HALF = ("vision_model.", "visual_projection.")
BICUBIC = 3  # Pillow's number, as preprocessor_config.json has it


@dataclass(frozen=True)
class PromptTokenizer:
    """CLIP's lower-case byte-pair encoding: start, the prompt, end; at most ``length`` tokens."""

    tokenizer: "Tokenizer" = field(repr=False)
    length: int
    start: int
    end: int

    @classmethod
    def from_folder(cls, folder: Path, length: int, origin: str) -> "PromptTokenizer":
        """From tokenizer.json, or from vocab.json and merges.txt."""
        tokenizer = _tokenizer(folder, origin)
        start, end = (tokenizer.token_to_id(token) for token in (TEXT_START, TEXT_END))
        if start is None or end is None:
            raise ValueError(
                f"the tokenizer in {folder} has no {TEXT_START} or no {TEXT_END}: "
                f"use the files of {origin}"
            )
        return cls(tokenizer, length, start, end)

    def __call__(self, prompt: str) -> Tensor:
        """Ids [1, L]. A special token that the prompt spells out is dropped, and ends nothing."""
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        words = [i for i in ids if i not in (self.start, self.end)]
        return torch.tensor([[self.start, *words[: self.length - 2], self.end]])


@dataclass(frozen=True, eq=False)
class ClipTowers:
    """A CLIP, and what must be done to what its two towers read."""

    module: nn.Module = field(repr=False)  # transformers' CLIPModel
    tokenizer: PromptTokenizer
    preprocess: Preprocess

    @classmethod
    def from_folder(
        cls, folder: Path | str, tokenizer_folder: Path | str, origin: str
    ) -> "ClipTowers":
        import transformers

        folder = Path(folder)
        config = config_of(folder, origin)
        length = config.text_config.max_position_embeddings
        tokenizer = PromptTokenizer.from_folder(Path(tokenizer_folder), length, origin)
        path = find_file(folder, HUB_WEIGHTS, origin)
        with torch.device("meta"):
            module = transformers.CLIPModel(config)
        fill(module, without_positions(read_weights(path)), path)
        restore_positions(module.text_model.embeddings)
        restore_positions(module.vision_model.embeddings)
        return cls(module, tokenizer, preprocess_of(folder, config.vision_config.image_size))

    def embed_text(self, prompt: str) -> Tensor:
        """Unit vector [D]."""
        ids = self.tokenizer(prompt).to(device_of(self.module))
        # The text is one row without padding, so the end token, which CLIP reads, is the last.
        last = self.module.text_model(input_ids=ids).last_hidden_state[:, -1]
        return F.normalize(self.module.text_projection(last).float(), dim=-1)[0]

    def embed_frames(self, frames: Tensor) -> Tensor:
        """[B, T, H, W, 3] -> unit vectors [B, T, D]."""
        return encode_frames(frames, self._embed, self.module)

    def cosines(self, clips: Clips) -> Tensor:
        """Cosine of every frame with the prompt: [B, T]."""
        return self.embed_frames(clips.frames) @ self.embed_text(clips.prompt)

    def _embed(self, frames: Tensor) -> Tensor:
        return embed_pictures(self.module, self.preprocess(frames))


@dataclass(frozen=True, eq=False)
class ClipScore:
    """Mean over frames of 100 * max(cos(frame, prompt), 0).

    Unit: percent of a cosine; range 0..100, with CLIP ViT-L/14 mostly 15..35. Source: Hessel et al.
    2021 in the form of torchmetrics (no prefix, 100 instead of 2.5).
    Limits: words, not motion: order and time of what happens do not count.
    """

    towers: ClipTowers
    name: str = "clip_score"

    @classmethod
    def from_folder(
        cls, folder: Path | str, tokenizer_folder: Path | str | None = None
    ) -> "ClipScore":
        """From a hub folder; ``tokenizer_folder`` where the tokenizer's files are not in it."""
        return cls(ClipTowers.from_folder(folder, tokenizer_folder or folder, CLIP_L))

    @property
    def module(self) -> nn.Module:
        return self.towers.module

    @property
    def needs(self) -> Needs:
        return _needs(self.towers, scale=(0.0, 100.0))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        return 100 * self.towers.cosines(clips).clamp(min=0).mean(dim=1)


@dataclass(frozen=True, eq=False)
class PickScore:
    """Mean over frames of exp(logit_scale) * cos(frame, prompt), by a CLIP trained on preferences.

    Unit: none; mostly 18..24. Source: Kirstain et al. 2023, PickScore v1 (CLIP ViT-H/14).
    Limits: trained on single still pictures of 2023's image models.
    """

    towers: ClipTowers
    name: str = "pick_score"

    @classmethod
    def from_folder(
        cls, folder: Path | str, tokenizer_folder: Path | str | None = None
    ) -> "PickScore":
        """From a hub folder; ``tokenizer_folder`` where the tokenizer's files are not in it."""
        origin = f"{PICKSCORE} (tokenizer and preprocessor: {CLIP_H})"
        return cls(ClipTowers.from_folder(folder, tokenizer_folder or folder, origin))

    @property
    def module(self) -> nn.Module:
        return self.towers.module

    @property
    def needs(self) -> Needs:
        return _needs(self.towers, scale=(18.0, 24.0))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        scale = self.module.logit_scale.float().exp()
        return (scale * self.towers.cosines(clips)).mean(dim=1)


def image_tower(folder: Path, origin: str) -> nn.Module:
    """The half of a CLIP that sees: transformers' ``CLIPVisionModelWithProjection``."""
    import transformers

    config = config_of(folder, origin).vision_config
    path = find_file(folder, HUB_WEIGHTS, origin)
    weights = without_positions(read_weights(path))
    config.projection_dim = len(require(weights, "visual_projection.weight", path))
    with torch.device("meta"):
        tower = transformers.CLIPVisionModelWithProjection(config)
    fill(tower, {k: v for k, v in weights.items() if k.startswith(IMAGE_HALF)}, path)
    restore_positions(tower.vision_model.embeddings)
    return tower


def embed_pictures(module: nn.Module, pictures: Tensor) -> Tensor:
    """Preprocessed pictures [N, 3, size, size] -> unit vectors [N, D]."""
    pooled = module.vision_model(pixel_values=pictures.to(dtype_of(module))).pooler_output
    return F.normalize(module.visual_projection(pooled).float(), dim=-1)


def config_of(folder: Path, origin: str) -> "CLIPConfig":
    import transformers

    path = find_file(folder, ["config.json"], origin)
    config = read_json(path)
    if not {"text_config", "vision_config"} <= config.keys():
        raise ValueError(
            f"{path} is the config of a '{config.get('model_type')}' model without text_config or "
            f"vision_config, not of a whole CLIP: use the folder of {origin}"
        )
    return transformers.CLIPConfig.from_dict(config)


def preprocess_of(folder: Path, size: int) -> Preprocess:
    """What preprocessor_config.json says, or CLIP's values where there is none."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return Preprocess(size)
    config = read_json(path)
    sizes = [_side(config.get(key), key, path) for key in ("size", "crop_size") if key in config]
    if any(side != size for side in sizes) or config.get("resample", BICUBIC) != BICUBIC:
        raise ValueError(
            f"{path} wants size and crop_size {sizes}, resample {config.get('resample')}; the "
            f"model in config.json takes {size} pixels and bicubic ({BICUBIC}): use the file that "
            "belongs to the model, or remove it"
        )
    mean, std = config.get("image_mean", CLIP_MEAN), config.get("image_std", CLIP_STD)
    return Preprocess(size, tuple(mean), tuple(std))


def without_positions(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Older files also hold the numbers 0, 1, 2, ..., which newer modules make themselves."""
    return {k: v for k, v in weights.items() if not k.endswith(".embeddings.position_ids")}


def restore_positions(embeddings: nn.Module) -> None:
    """Give a module built on the meta device its row 0, 1, 2, ... back: no file holds it."""
    embeddings.position_ids = torch.arange(embeddings.position_ids.shape[-1])[None]


def _needs(towers: ClipTowers, scale: tuple[float, float]) -> Needs:
    return Needs(video=False, pixels=towers.preprocess.size**2, prompt=True, scale=scale)


def _side(value: Any, key: str, path: Path) -> int:
    """224, {"shortest_edge": 224} or {"height": 224, "width": 224} -> 224."""
    sides = set(value.values()) if isinstance(value, dict) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ValueError(f"{path}: {key} is {value}, expected one number of pixels")
    return side


def _tokenizer(folder: Path, origin: str) -> "Tokenizer":
    """The tokenizer without cutting or padding. Raises FileNotFoundError for missing files."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    vocab, merges = (str(find_file(folder, [n], origin)) for n in ("vocab.json", "merges.txt"))
    bpe = models.BPE.from_file(vocab, merges, unk_token=TEXT_END, end_of_word_suffix="</w>")
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(WORD_PIECES), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens([TEXT_START, TEXT_END])
    return tokenizer
