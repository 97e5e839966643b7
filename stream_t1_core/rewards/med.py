"""BLIP's text encoder: a BERT that looks at a picture's tokens in every layer ("MED").

Names are those of BLIP's and ImageReward's files. Own code, because upstream's needs helpers that
are gone from transformers. One row of text without padding, so no masks. Knows no files, no
tokenizer and no reward.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class MedShape:
    """Sizes, as ``med_config.json`` has them; ``picture_width`` is that of the picture's tokens."""

    width: int
    heads: int
    layers: int
    hidden: int
    words: int
    positions: int
    epsilon: float
    picture_width: int

    @classmethod
    def of(cls, config: Mapping[str, Any], path: Path, picture_width: int) -> "MedShape":
        act, looks = config.get("hidden_act", "gelu"), config.get("add_cross_attention")
        if act != "gelu" or not looks:
            raise ValueError(
                f"{path}: hidden_act {act}, add_cross_attention {looks}; BLIP's text encoder has "
                "gelu and true: use the med_config.json of ImageReward"
            )
        try:
            return cls(
                width=config["hidden_size"],
                heads=config["num_attention_heads"],
                layers=config["num_hidden_layers"],
                hidden=config["intermediate_size"],
                words=config["vocab_size"],
                positions=config["max_position_embeddings"],
                epsilon=config["layer_norm_eps"],
                picture_width=picture_width,
            )
        except KeyError as missing:
            raise ValueError(
                f"{path} has no {missing}: use the med_config.json of ImageReward"
            ) from missing


class Embeddings(nn.Module):
    def __init__(self, shape: MedShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.words, shape.width)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + places)


class QueryKeyValue(nn.Module):
    def __init__(self, shape: MedShape, seen_width: int) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(seen_width, shape.width)
        self.value = nn.Linear(seen_width, shape.width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, N, L, D)
            for layer, tokens in ((self.query, x), (self.key, seen), (self.value, seen))
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class AddAndNorm(nn.Module):
    def __init__(self, into: int, shape: MedShape) -> None:
        super().__init__()
        self.dense = nn.Linear(into, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, new: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(new) + x)


class Attention(nn.Module):
    def __init__(self, shape: MedShape, seen_width: int) -> None:
        super().__init__()
        self.self = QueryKeyValue(shape, seen_width)
        self.output = AddAndNorm(shape.width, shape)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return self.output(self.self(x, seen), x)


class Intermediate(nn.Module):
    def __init__(self, shape: MedShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, shape: MedShape) -> None:
        super().__init__()
        self.attention = Attention(shape, shape.width)
        self.crossattention = Attention(shape, shape.picture_width)
        self.intermediate = Intermediate(shape)
        self.output = AddAndNorm(shape.hidden, shape)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        x = self.attention(x, x)
        x = self.crossattention(x, picture)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    def __init__(self, shape: MedShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(shape) for _ in range(shape.layers))


class TextEncoder(nn.Module):
    """Ids [1, L], picture tokens [N, P, picture_width] -> text tokens [N, L, width]."""

    def __init__(self, shape: MedShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)

    def forward(self, ids: Tensor, picture: Tensor) -> Tensor:
        x = self.embeddings(ids).expand(len(picture), -1, -1)
        for layer in self.encoder.layer:
            x = layer(x, picture)
        return x
