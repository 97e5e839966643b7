"""A small text encoder in UMT5's layout: prompt rows for a Wan backbone, without a host.

Holds the encoder, its tokenizer and the row layout that Wan was trained with (end token, then zero
rows up to 512). Key names and arithmetic are UMT5's, so a host loads the same file as its own text
encoder; only the sizes differ. Knows nothing of prompts' meaning, video or models.

Source: UMT5 (T5 1.1 encoder with a relative position bias in every layer), as Wan 2.1 uses it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXT_ROWS = 512
END_TOKEN = 1
TOKENIZER_KEY = "spiece_model"  # a SentencePiece model as uint8, stored among the weights
POSITION_BUCKETS = 32
FARTHEST = 128  # tokens; all distances beyond share a bucket


@dataclass(frozen=True)
class TextShape:
    """Sizes of a UMT5 encoder."""

    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    vocab_size: int

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "TextShape":
        """Read the sizes off a state dict."""
        first = "encoder.block.0.layer."
        needed = ("shared.weight", first + "0.SelfAttention.relative_attention_bias.weight")
        for key in needed:
            if key not in weights:
                raise ValueError(f"not a UMT5 text encoder: the weights have no '{key}'")
        heads = weights[needed[1]].shape[1]
        vocab_size, d_model = weights["shared.weight"].shape
        return cls(
            d_model=d_model,
            d_kv=weights[first + "0.SelfAttention.q.weight"].shape[0] // heads,
            d_ff=weights[first + "1.DenseReluDense.wo.weight"].shape[1],
            num_heads=heads,
            num_layers=1 + max(int(k.split(".")[2]) for k in weights if k.startswith("encoder.bl")),
            vocab_size=vocab_size,
        )


class SelfAttention(nn.Module):
    """T5 attention: no softmax scale, a learned bias per head and distance."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        inner = shape.num_heads * shape.d_kv
        self.heads = shape.num_heads
        self.q = nn.Linear(shape.d_model, inner, bias=False)
        self.k = nn.Linear(shape.d_model, inner, bias=False)
        self.v = nn.Linear(shape.d_model, inner, bias=False)
        self.o = nn.Linear(inner, shape.d_model, bias=False)
        self.relative_attention_bias = nn.Embedding(POSITION_BUCKETS, shape.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(1, (self.heads, -1)).transpose(0, 1)  # (N, L, D)
            for layer in (self.q, self.k, self.v)
        )
        place = torch.arange(x.shape[0])
        bias = self.relative_attention_bias(_bucket(place[None, :] - place[:, None]))  # (L, L, N)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.permute(2, 0, 1), scale=1.0)
        return self.o(out.transpose(0, 1).flatten(1))


class GatedFeedForward(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.wi_1 = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.wo = nn.Linear(shape.d_ff, shape.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class AttentionStep(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(shape)
        self.layer_norm = nn.RMSNorm(shape.d_model, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x))


class FeedForwardStep(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(shape)
        self.layer_norm = nn.RMSNorm(shape.d_model, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class Layer(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionStep(shape), FeedForwardStep(shape)])


class Stack(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.block = nn.ModuleList([Layer(shape) for _ in range(shape.num_layers)])
        self.final_layer_norm = nn.RMSNorm(shape.d_model, eps=1e-6)


class TextEncoder(nn.Module):
    """Token ids [L] -> rows [L, d_model]. One prompt at a time, so nothing needs a mask."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shared = nn.Embedding(shape.vocab_size, shape.d_model)
        self.encoder = Stack(shape)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.shared(ids)
        for layer in self.encoder.block:
            for step in layer.layer:
                x = step(x)
        return self.encoder.final_layer_norm(x)


class PromptEncoder:
    """Prompt text -> [1, 512, d_model]: what a host's text-encode node gives for the same file.

    Brackets are plain text here, while hosts may read them as weights.
    """

    def __init__(self, encoder: TextEncoder, tokenizer: bytes) -> None:
        try:
            import sentencepiece
        except ImportError as error:
            raise ImportError(
                "the tiny model's prompts need the 'sentencepiece' package (ComfyUI installs it): "
                "pip install sentencepiece"
            ) from error
        self.encoder = encoder
        self.tokenizer = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor]) -> "PromptEncoder":
        """Build from the file's tensors, up-cast to float32."""
        if TOKENIZER_KEY not in weights:
            raise ValueError(f"the text encoder's weights have no tokenizer ('{TOKENIZER_KEY}')")
        encoder = TextEncoder(TextShape.of(weights)).eval().requires_grad_(False)
        encoder.load_state_dict({k: v.float() for k, v in weights.items() if k != TOKENIZER_KEY})
        return cls(encoder, weights[TOKENIZER_KEY].numpy().tobytes())

    def tokens(self, text: str) -> Tensor:
        """Token ids [L] of a prompt; the end token is last, also when the prompt is too long."""
        return torch.tensor(self.tokenizer.encode(text)[: TEXT_ROWS - 1] + [END_TOKEN])

    @torch.no_grad()
    def __call__(self, text: str) -> Tensor:
        rows = self.encoder(self.tokens(text))
        return F.pad(rows, (0, 0, 0, TEXT_ROWS - rows.shape[0]))[None]  # (1, 512, d_model)


def _bucket(distance: Tensor) -> Tensor:
    """Bucket of a signed token distance: exact when near, logarithmic when far, each way apart."""
    each_way = POSITION_BUCKETS // 2
    exact = each_way // 2
    size = distance.abs()
    growth = torch.log(size.float().clamp(min=1) / exact) / math.log(FARTHEST / exact)
    far = (exact + (growth * (each_way - exact)).long()).clamp(max=each_way - 1)
    return torch.where(size < exact, size, far) + each_way * (distance > 0)
