"""Learned rewards on tiny random checkpoints in the released file layouts.

Every score is compared with what the models' own classes in transformers and Pillow make of the
same files, every file that is missing or wrong with what a user should be told.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stream_t1_core.rewards.base import Clips
from stream_t1_core.rewards.clip import ClipScore
from stream_t1_core.rewards.vision import (
    centre_crop,
    resize_bicubic,
    shorter_side_to,
    to_bytes,
)

transformers = pytest.importorskip("transformers", reason="learned rewards need transformers")
pytest.importorskip("tokenizers", reason="learned rewards need tokenizers")
np = pytest.importorskip("numpy", reason="the reference computation needs numpy")
Image = pytest.importorskip("PIL.Image", reason="the reference computation needs Pillow")

START, END = "<|startoftext|>", "<|endoftext|>"
PROMPT = "A red fox walks on snow, it's 7 o'clock"
SIZE, LENGTH = 32, 24  # pixels, tokens of the tiny CLIP


def write_tokenizer(folder: Path) -> None:
    """vocab.json and merges.txt of a byte-pair encoding with all bytes and three merges."""
    byte_tokens = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    byte_tokens += [chr(code) for code in range(256, 256 + 68)]
    merges = [("f", "o"), ("fo", "x</w>"), ("r", "e")]
    names = [*byte_tokens, *(token + "</w>" for token in byte_tokens)]
    names += ["".join(pair) for pair in merges] + [START, END]
    vocab = {name: index for index, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_clip(folder: Path, *, act: str = "quick_gelu", safe: bool = True) -> Path:
    """A tiny CLIP as transformers saves it, with tokenizer and preprocessor files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    end = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))[END]
    sizes = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        hidden_act=act,
    )  # fmt: skip
    text = dict(
        sizes, vocab_size=end + 1, max_position_embeddings=LENGTH,
        bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    vision = dict(sizes, image_size=SIZE, patch_size=8)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    torch.manual_seed(3)
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    preprocessor = {
        "size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE},
        "resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


def make_clips(
    batch: int = 2, frames: int = 3, shape: tuple[int, int] = (40, 70), prompt: str = PROMPT
) -> Clips:
    """Smooth colour fields, so that candidates and frames differ in more than noise."""
    generator = torch.Generator().manual_seed(5)
    small = torch.rand(batch * frames, 3, 5, 7, generator=generator)
    large = torch.nn.functional.interpolate(small, shape, mode="bilinear").movedim(1, -1)
    footage = large.unflatten(0, (batch, frames))
    return Clips(footage, footage, prompt, 16.0)


def pil_pixels(frame: Tensor, size: int, mean: list[float], std: list[float]) -> Tensor:
    """CLIP's preprocessing of one frame by Pillow and numpy: [3, size, size]."""
    image = Image.fromarray(np.asarray(frame.mul(255).round(), dtype=np.uint8))
    short = min(image.size)
    image = image.resize([size * side // short for side in image.size], Image.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    values = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
    return torch.from_numpy((values - np.float32(mean)) / np.float32(std)).movedim(-1, 0).float()


def reference_logits(folder: Path, clips: Clips) -> tuple[Tensor, float]:
    """transformers' own CLIPModel and tokenizer on every frame: exp(scale) * cos [B, T], scale."""
    model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    text = tokenizer(
        [clips.prompt], return_tensors="pt", padding="max_length", truncation=True,
        max_length=LENGTH,
    )  # fmt: skip
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
    pixels = torch.stack([pil_pixels(f, SIZE, mean, std) for f in clips.frames.flatten(0, 1)])
    with torch.inference_mode():
        logits = model(pixel_values=pixels, **text).logits_per_image
        return logits.view(clips.frames.shape[:2]), model.logit_scale.exp().item()


def test_clip_score_is_that_of_transformers(clip_folder: Path) -> None:
    """5e-3 of 100: an 8-bit pixel resized here and by Pillow may differ by one step."""
    clips = make_clips()
    logits, scale = reference_logits(clip_folder, clips)
    expected = 100 * (logits / scale).clamp(min=0).mean(dim=1)
    found = ClipScore.from_folder(clip_folder)(clips)
    assert found.dtype == torch.float32
    assert expected.min() > 1
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("shape", [(48, 83), (83, 48), (20, 31), (32, 32), (32, 90), (240, 416)])
def test_resizing_is_pillow_to_one_step(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    frame = torch.rand(*shape, 3, generator=generator)
    bytes_ = to_bytes(frame[None])
    ours = centre_crop(resize_bicubic(bytes_, shorter_side_to(SIZE, bytes_)), SIZE)[0]
    pillow = 255 * pil_pixels(frame, SIZE, [0, 0, 0], [1, 1, 1])
    difference = (ours - pillow).abs()
    assert difference.max() < 1.01
    assert (difference > 0.5).float().mean() < 0.003
