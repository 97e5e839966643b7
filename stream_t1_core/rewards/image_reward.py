"""ImageReward v1.0: would people who asked for this prompt like this frame?

Knows the released files and the sums upstream does with them; the two halves of the BLIP inside are
``vit`` and ``med``. Knows nothing of time: a clip's score is its frames' mean.

The text is cut at 35 tokens, as upstream does: long video prompts lose their tail.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .base import Clips, Needs
from .linears import LinearHead, head_widths
from .med import MedShape, TextEncoder
from .vision import Preprocess, device_of, dtype_of, encode_frames
from .vit import VisionTransformer, VitShape
from .weights import fill, find_file, read_json, read_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ORIGIN = "https://huggingface.co/THUDM/ImageReward"
VOCABULARY = "https://huggingface.co/google-bert/bert-base-uncased"
TEXT_LENGTH = 35  # tokens, start and end among them
SCORE_MEAN, SCORE_STD = 0.16717362830052426, 1.0333394966054072
# In the file for BLIP's other uses, or the numbers 0, 1, 2, ...
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")


@dataclass(frozen=True)
class WordPieces:
    """bert-base-uncased: start, the prompt's word pieces, end; at most TEXT_LENGTH tokens.

    Special tokens that a prompt spells out, such as [SEP], are read as ordinary words.
    """

    tokenizer: "Tokenizer" = field(repr=False)
    start: int
    end: int

    @classmethod
    def from_file(cls, path: Path, words: int) -> "WordPieces":
        """From vocab.txt, for a model that knows ``words`` tokens."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        tokenizer = Tokenizer(models.WordPiece.from_file(str(path), unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        start, end = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        size = tokenizer.get_vocab_size()
        if start is None or end is None or size > words:
            raise ValueError(
                f"{path} ({size} words) is not the vocabulary of this ImageReward, which has "
                f"{words} with [CLS] and [SEP] among them: use that of {VOCABULARY}"
            )
        return cls(tokenizer, start, end)

    def __call__(self, prompt: str) -> Tensor:
        """Ids [1, L]."""
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return torch.tensor([[self.start, *ids[: TEXT_LENGTH - 2], self.end]])


class Blip(nn.Module):
    def __init__(self, vision: VitShape, text: MedShape) -> None:
        super().__init__()
        self.visual_encoder = VisionTransformer(vision)
        self.text_encoder = TextEncoder(text)


class ImageRewardModel(nn.Module):
    """Ids [1, L], pictures [N, 3, size, size] -> raw rewards [N]. Names as in ImageReward.pt."""

    def __init__(self, vision: VitShape, text: MedShape, widths: list[int]) -> None:
        super().__init__()
        self.blip = Blip(vision, text)
        self.mlp = LinearHead(widths)

    def forward(self, ids: Tensor, pictures: Tensor) -> Tensor:
        tokens = self.blip.text_encoder(ids, self.blip.visual_encoder(pictures))
        return self.mlp(tokens[:, 0])


@dataclass(frozen=True, eq=False)
class ImageReward:
    """Mean over frames of ImageReward's standardised score.

    Unit: standard deviations over its training data; mostly -2..2. Source: Xu et al. 2023,
    ImageReward v1.0 (BLIP ViT-L/16 and BERT).
    Limits: trained on single still pictures of 2022's image models.
    """

    module: ImageRewardModel = field(repr=False)
    tokenizer: WordPieces
    preprocess: Preprocess
    name: str = "image_reward"

    @classmethod
    def from_folder(
        cls, folder: Path | str, tokenizer_folder: Path | str | None = None
    ) -> "ImageReward":
        """From ImageReward.pt, med_config.json and bert-base-uncased's vocab.txt.

        ``tokenizer_folder`` where vocab.txt is not beside the others.
        """
        folder = Path(folder)
        path = find_file(folder, ["ImageReward.pt"], ORIGIN)
        config_path = find_file(folder, ["med_config.json"], ORIGIN)
        vocabulary = find_file(Path(tokenizer_folder or folder), ["vocab.txt"], VOCABULARY)
        weights = used_entries(read_weights(path))
        vision = VitShape.of(weights, path, prefix="blip.visual_encoder.")
        text = MedShape.of(read_json(config_path), config_path, vision.width)
        with torch.device("meta"):
            module = ImageRewardModel(vision, text, head_widths(weights, path, prefix="mlp."))
        fill(module, weights, path)
        return cls(module, WordPieces.from_file(vocabulary, text.words), Preprocess(vision.size))

    @property
    def needs(self) -> Needs:
        return Needs(video=False, pixels=self.preprocess.size**2, prompt=True, scale=(-2.0, 2.0))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        ids = self.tokenizer(clips.prompt).to(device_of(self.module))

        def score(frames: Tensor) -> Tensor:
            pictures = self.preprocess(frames).to(dtype_of(self.module))
            return self.module(ids, pictures)

        raw = encode_frames(clips.frames, score, self.module)  # [B, T]
        return ((raw - SCORE_MEAN) / SCORE_STD).mean(dim=1)


def used_entries(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if not key.startswith(UNUSED)}
