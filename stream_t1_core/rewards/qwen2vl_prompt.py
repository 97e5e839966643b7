"""The chat that a Qwen2-VL reward reads: tokenizer, template, the user's prompt in it, token ids.

It knows Qwen's ChatML and that a prompt is somebody's text: special tokens in it are taken out, and
it is never formatted. The templates themselves come from upstream's own files (``upstream_text``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .qwen2vl import MERGE, Batch, Grid

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING = "<|endoftext|>"
VIDEO = "<|video_pad|>"
IMAGE = "<|image_pad|>"
# Qwen2-VL's own special tokens; their ids follow the vocabulary in this order.
SPECIALS = (
    PADDING,
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    IMAGE,
    VIDEO,
)
# Qwen2's way of cutting text before byte pairs are joined.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MARKER = re.compile(r"<\|[^<>|]*\|>")
_FIELD = "text_prompt"


@dataclass(frozen=True, eq=False)
class Chat:
    """One reward's way of asking: its tokenizer, its template, the tokens where scores are read.

    The template holds ``{text_prompt}`` once and doubles other braces, as ``str.format`` wants it.
    """

    tokenizer: "Tokenizer" = field(repr=False)
    template: str = field(repr=False)
    visual: str  # VIDEO or IMAGE
    reads: tuple[str, ...]  # the reward tokens

    def __post_init__(self) -> None:
        filled = _fill(self.template, "")
        for token in self.reads:
            if filled.count(token) != 1:
                raise ValueError(
                    f"the prompt template holds {token} {filled.count(token)} times: a score is "
                    "read there, so it must stand there once"
                )
        if filled == _fill(self.template, "x"):
            raise ValueError(f"the prompt template has no {{{_FIELD}}} to put the prompt in")

    def id_of(self, token: str) -> int:
        return self.tokenizer.token_to_id(token)

    def text(self, prompt: str) -> str:
        """The whole chat, with a single visual pad."""
        turn = _fill(self.template, without_markers(prompt))
        return (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n<|vision_start|>{self.visual}<|vision_end|>{turn}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )

    def batch(self, prompts: Sequence[str], pictures: Sequence[tuple[Tensor, Grid]]) -> Batch:
        """One chat for each prompt and its picture (patch rows and grid), padded on the right."""
        rows, grids = zip(*pictures, strict=True)
        chats = [self._ids(prompt, grid) for prompt, grid in zip(prompts, grids, strict=True)]
        longest = max(map(len, chats))
        padding = self.id_of(PADDING)
        ids = torch.tensor([chat + [padding] * (longest - len(chat)) for chat in chats])
        mask = torch.tensor([[1] * len(chat) + [0] * (longest - len(chat)) for chat in chats])
        return Batch(ids, mask, rows, grids)

    def read_at(self, ids: Tensor) -> Tensor:
        """Where the reward tokens stand in ids [B, L]: [B, R]."""
        return torch.stack([(ids == self.id_of(t)).int().argmax(dim=1) for t in self.reads], dim=1)

    def _ids(self, prompt: str, grid: Grid) -> list[int]:
        time, high, wide = grid
        ids = self.tokenizer.encode(self.text(prompt), add_special_tokens=False).ids
        at = ids.index(self.id_of(self.visual))
        return ids[:at] + [ids[at]] * (time * high * wide // MERGE**2) + ids[at + 1 :]


def without_markers(prompt: str) -> str:
    """The prompt without anything that looks like a special token, ``<|...|>``."""
    while (shorter := _MARKER.sub("", prompt)) != prompt:  # what is left may join to a new one
        prompt = shorter
    return prompt


def load_tokenizer(folders: Sequence[Path], added: Sequence[str], rows: int) -> "Tokenizer":
    """Qwen2-VL's tokenizer with a reward's own tokens behind its specials.

    From the first folder that holds a ``tokenizer.json``, or a ``vocab.json`` and ``merges.txt``
    (any Qwen2 or Qwen2.5 has the same two). ``rows``: of the embedding that the ids must fit.
    """
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            tokenizer = _tokenizers().Tokenizer.from_file(str(folder / "tokenizer.json"))
            break
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            tokenizer = _from_vocabulary(folder)
            break
    else:
        raise FileNotFoundError(
            "no tokenizer: need tokenizer.json, or vocab.json and merges.txt, of "
            f"Qwen/Qwen2-VL-2B-Instruct in one of {', '.join(map(str, folders))}"
        )
    _add(tokenizer, added)
    _check_ids(tokenizer, (*SPECIALS, *added), rows, folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "the Qwen2-VL rewards need the 'tokenizers' package (ComfyUI installs it with "
            "transformers): pip install tokenizers"
        ) from error
    return tokenizers


def _from_vocabulary(folder: Path) -> "Tokenizer":
    library = _tokenizers()
    files = (str(folder / name) for name in ("vocab.json", "merges.txt"))
    tokenizer = library.Tokenizer(library.models.BPE.from_file(*files))
    tokenizer.normalizer = library.normalizers.NFC()
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Split(library.Regex(_CUT), behavior="isolated"),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    _add(tokenizer, SPECIALS)
    return tokenizer


def _add(tokenizer: "Tokenizer", tokens: Sequence[str]) -> None:
    """Append in order; those that it has already keep their ids."""
    tokenizer.add_special_tokens(
        [_tokenizers().AddedToken(token, normalized=False, special=True) for token in tokens]
    )


def _check_ids(tokenizer: "Tokenizer", needed: Sequence[str], rows: int, folder: Path) -> None:
    missing = [token for token in needed if tokenizer.token_to_id(token) is None]
    if missing:
        raise ValueError(f"{folder} holds no Qwen2-VL tokenizer: it has no {missing[0]}")
    last = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if last >= rows:
        raise ValueError(
            f"the tokenizer in {folder} goes up to id {last} ({tokenizer.id_to_token(last)}), but "
            f"the weights have {rows} embedding rows: use the files of Qwen/Qwen2-VL-2B-Instruct, "
            "not of Qwen2.5, or vocab.json and merges.txt alone"
        )


def _fill(template: str, prompt: str) -> str:
    """``template.format(text_prompt=prompt)``, but any other field is an error of its own."""
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name == _FIELD:
            parts.append(prompt)
        elif name is not None:
            raise ValueError(
                f"the prompt template has a field {{{name}}}: only {{{_FIELD}}} is filled"
            )
    return "".join(parts)
