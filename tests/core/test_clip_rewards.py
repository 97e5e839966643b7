"""Learned rewards on tiny random checkpoints in the released file layouts.

Every score is compared with what the models' own classes in transformers and Pillow make of the
same files, every file that is missing or wrong with what a user should be told.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stream_t1_core.rewards.aesthetic import Aesthetic
from stream_t1_core.rewards.base import Clips, Reward
from stream_t1_core.rewards.clip import ClipScore, PickScore
from stream_t1_core.rewards.dino import SubjectConsistency
from stream_t1_core.rewards.image_reward import ImageReward
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

safetensors = pytest.importorskip("safetensors.torch", reason="hub folders hold safetensors")
load_file, save_file = safetensors.load_file, safetensors.save_file

START, END = "<|startoftext|>", "<|endoftext|>"
PROMPT = "A red fox walks on snow, it's 7 o'clock"
SIZE, LENGTH = 32, 48  # pixels, tokens of the tiny CLIP


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


def write_clip(folder: Path, *, act: str = "quick_gelu") -> Path:
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
    model = transformers.CLIPModel(config)
    shake(model, 0.25)
    model.save_pretrained(folder)
    preprocessor = {
        "size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE},
        "resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return folder


def write_vit(folder: Path, *, epsilon: float = 1e-6) -> Path:
    """A tiny vision transformer as transformers saves it: the layout of facebook/dino-vitb16."""
    config = transformers.ViTConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIZE, patch_size=8, layer_norm_eps=epsilon,
    )  # fmt: skip
    model = transformers.ViTModel(config)
    shake(model, 0.1)
    model.save_pretrained(folder)
    return folder


def dino_names(folder: Path) -> dict[str, Tensor]:
    """The weights of a hub folder, laid out as in DINO's own file."""
    hub = load_file(folder / "model.safetensors")
    embeddings, patches = "embeddings.", "embeddings.patch_embeddings.projection."
    found = {
        "cls_token": hub[embeddings + "cls_token"],
        "pos_embed": hub[embeddings + "position_embeddings"],
    }
    for kind in ("weight", "bias"):
        found[f"patch_embed.proj.{kind}"] = hub[patches + kind]
        found[f"norm.{kind}"] = hub[f"layernorm.{kind}"]
        for n in range(2):
            old, new = f"encoder.layer.{n}.", f"blocks.{n}."
            qkv = [hub[f"{old}attention.attention.{x}.{kind}"] for x in ("query", "key", "value")]
            found[f"{new}attn.qkv.{kind}"] = torch.cat(qkv)
            found[f"{new}attn.proj.{kind}"] = hub[f"{old}attention.output.dense.{kind}"]
            found[f"{new}mlp.fc1.{kind}"] = hub[f"{old}intermediate.dense.{kind}"]
            found[f"{new}mlp.fc2.{kind}"] = hub[f"{old}output.dense.{kind}"]
            found[f"{new}norm1.{kind}"] = hub[f"{old}layernorm_before.{kind}"]
            found[f"{new}norm2.{kind}"] = hub[f"{old}layernorm_after.{kind}"]
    return {key: value.clone() for key, value in found.items()}


def head_layers(width: int) -> dict[str, Tensor]:
    """The five linear layers of an aesthetic predictor, narrower than the released ones."""
    generator = torch.Generator().manual_seed(6)
    widths, found = [width, 24, 12, 8, 6, 1], {}
    for n, into, out in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        found[f"layers.{n}.weight"] = torch.randn(out, into, generator=generator) / into**0.5
        found[f"layers.{n}.bias"] = torch.randn(out, generator=generator)
    return found


def through_layers(layers: dict[str, Tensor], x: Tensor) -> Tensor:
    for n in (0, 2, 4, 6, 7):
        x = x @ layers[f"layers.{n}.weight"].T + layers[f"layers.{n}.bias"]
    return x[:, 0]


MED = {
    "hidden_act": "gelu", "hidden_size": 64, "intermediate_size": 96, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40, "num_attention_heads": 2, "num_hidden_layers": 2,
    "vocab_size": 30, "add_cross_attention": True, "encoder_width": 32,
}  # fmt: skip
WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a red fox walks on snow , it ' s 7 o clock ##s [ ] sep ##x in"
)


def blip_text_model() -> torch.nn.Module:
    """transformers' own text half of BLIP, seeing the tiny vision transformer's tokens."""
    config = transformers.BlipTextConfig(
        vocab_size=MED["vocab_size"], hidden_size=64, encoder_hidden_size=128,
        intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=40, is_decoder=True, add_cross_attention=True,
        bos_token_id=2, sep_token_id=3, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    model = BlipTextModel(config, add_pooling_layer=False)
    shake(model, 0.15)
    return model.eval()


def write_image_reward(folder: Path, vit_folder: Path) -> Path:
    """ImageReward.pt with every entry the released file may have, med_config.json, vocab.txt."""
    folder.mkdir(parents=True)
    weights = {f"blip.visual_encoder.{k}": v for k, v in dino_names(vit_folder).items()}
    text = blip_text_model().state_dict()
    weights |= {f"blip.text_encoder.{k}": v for k, v in text.items()}
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    for half, width in (("vision", 128), ("text", 64)):
        weights[f"blip.{half}_proj.weight"] = torch.zeros(8, width)
        weights[f"blip.{half}_proj.bias"] = torch.zeros(8)
    weights |= {f"mlp.{k}": v for k, v in head_layers(64).items()}
    torch.save(weights, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(WORDS.split()) + "\n", encoding="utf-8")
    return folder


def shake(model: torch.nn.Module, amount: float, seed: int = 3) -> None:
    """Numbers large enough for a wrong layer to show, the same under every transformers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim:
                noise = amount * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise + ("norm" in name.lower() and name.endswith("weight")))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vit(tmp_path_factory.mktemp("models") / "vit")


@pytest.fixture(scope="module")
def head_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(head_layers(16), path)
    return path


@pytest.fixture(scope="module")
def image_reward_folder(tmp_path_factory: pytest.TempPathFactory, vit_folder: Path) -> Path:
    return write_image_reward(tmp_path_factory.mktemp("models") / "image_reward", vit_folder)


@pytest.fixture(params=["clip_score", "pick_score", "aesthetic", "dino", "image_reward"])
def reward(
    request: pytest.FixtureRequest,
    clip_folder: Path,
    vit_folder: Path,
    head_file: Path,
    image_reward_folder: Path,
) -> Reward:
    """Each of the learned rewards, freshly loaded."""
    builders = {
        "clip_score": lambda: ClipScore.from_folder(clip_folder),
        "pick_score": lambda: PickScore.from_folder(clip_folder),
        "aesthetic": lambda: Aesthetic.from_files(clip_folder, head_file),
        "dino": lambda: SubjectConsistency.from_folder(vit_folder),
        "image_reward": lambda: ImageReward.from_folder(image_reward_folder),
    }
    return builders[request.param]()


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


CLIP_NUMBERS = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25])  # in the tiny preprocessor_config.json
OPENAI_NUMBERS = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
IMAGENET_NUMBERS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def pixels_of(clips: Clips, numbers: tuple[list[float], list[float]]) -> Tensor:
    """All frames of all clips by Pillow: [B * T, 3, SIZE, SIZE]."""
    return torch.stack([pil_pixels(f, SIZE, *numbers) for f in clips.frames.flatten(0, 1)])


@torch.inference_mode()
def reference_cosines(
    folder: Path, clips: Clips, numbers: tuple[list[float], list[float]] = CLIP_NUMBERS
) -> tuple[Tensor, float]:
    """By transformers' own CLIPModel and tokenizer: cosines [B, T], exp(logit_scale)."""
    model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    text = tokenizer(
        [clips.prompt], return_tensors="pt", padding="max_length", truncation=True,
        max_length=LENGTH,
    )  # fmt: skip
    logits = model(pixel_values=pixels_of(clips, numbers), **text).logits_per_image
    scale = model.logit_scale.exp().item()
    return logits.view(clips.frames.shape[:2]) / scale, scale


# The pictures that the references see are Pillow's, where a pixel in a thousand may differ by one
# step. Seen: 1e-5 of CLIPScore's 100; the other differences are float rounding.


def test_clip_score_is_that_of_transformers(clip_folder: Path) -> None:
    clips = make_clips()
    cosines, _ = reference_cosines(clip_folder, clips)
    assert cosines.min() < -0.01 and cosines.max() > 0.2  # both sides of the clamp
    found = ClipScore.from_folder(clip_folder)(clips)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, 100 * cosines.clamp(min=0).mean(dim=1), atol=3e-4, rtol=0)


def test_pick_score_is_that_of_transformers(tmp_path: Path) -> None:
    """Here with GELU, a pickle instead of safetensors, and no preprocessor_config.json."""
    folder = write_clip(tmp_path, act="gelu")
    clips = make_clips(shape=(70, 40))
    (folder / "preprocessor_config.json").unlink()
    cosines, scale = reference_cosines(folder, clips, OPENAI_NUMBERS)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = PickScore.from_folder(folder)(clips)
    torch.testing.assert_close(found, scale * cosines.mean(dim=1), atol=3e-4, rtol=0)


def test_aesthetic_is_linear_layers_on_the_unit_embedding(
    clip_folder: Path, head_file: Path
) -> None:
    clips = make_clips()
    model = transformers.CLIPModel.from_pretrained(clip_folder, local_files_only=True).eval()
    with torch.inference_mode():
        seen = model.vision_model(pixel_values=pixels_of(clips, CLIP_NUMBERS)).pooler_output
        unit = torch.nn.functional.normalize(model.visual_projection(seen), dim=-1)
        expected = through_layers(head_layers(16), unit).view(2, 3).mean(dim=1)
    found = Aesthetic.from_files(clip_folder, head_file)(clips)
    torch.testing.assert_close(found, expected, atol=3e-4, rtol=0)


@torch.inference_mode()
def reference_consistency(folder: Path, clips: Clips) -> Tensor:
    """VBench's formula on transformers' own ViTModel, frame by frame: [B]."""
    model = transformers.ViTModel.from_pretrained(folder, local_files_only=True).eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET_NUMBERS)
    scores = []
    for clip in clips.frames:
        height, width = clip.shape[1:3]
        scale = SIZE / min(height, width)
        size = (int(height * scale + 1e-6), int(width * scale + 1e-6))
        bytes_ = clip.movedim(-1, 1).mul(255).round()
        small = torch.nn.functional.interpolate(bytes_, size, mode="bilinear", antialias=False)
        pixels = (small.round() / 255 - mean) / std
        seen = model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        pairs = [
            (torch.cosine_similarity(z, before, dim=0), torch.cosine_similarity(z, seen[0], dim=0))
            for before, z in zip(seen, seen[1:], strict=False)
        ]
        scores.append(sum(max(0, a) + max(0, b) for a, b in pairs) / (2 * len(pairs)))
    return torch.stack(scores)


@pytest.mark.parametrize("shape,tolerance", [((50, 50), 1e-5), ((40, 70), 3e-3)])
def test_subject_consistency_is_vbenchs(
    vit_folder: Path, shape: tuple[int, int], tolerance: float
) -> None:
    """Wide pictures: transformers stretches positions a little differently than DINO: 7e-4 seen."""
    clips = make_clips(frames=4, shape=shape)
    found = SubjectConsistency.from_folder(vit_folder)(clips)
    torch.testing.assert_close(
        found, reference_consistency(vit_folder, clips), atol=tolerance, rtol=0
    )
    assert found.max() < 0.95


def test_dinos_own_file_scores_as_the_hub_folder(vit_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "dino_vitbase16_pretrain.pth"
    torch.save(dino_names(vit_folder), path)
    clips = make_clips()
    own, hub = SubjectConsistency.from_file(path), SubjectConsistency.from_folder(vit_folder)
    torch.testing.assert_close(own(clips), hub(clips), atol=1e-6, rtol=0)


def test_positions_are_stretched_as_dino_does(vit_folder: Path) -> None:
    """DINO hands interpolate() a factor a tenth of a patch too large, and so must we."""
    module = SubjectConsistency.from_folder(vit_folder).module
    stored = module.pos_embed
    grid = stored[:, 1:].reshape(1, 4, 4, 128).permute(0, 3, 1, 2)
    factors = (4.1 / 4, 7.1 / 4)
    stretched = torch.nn.functional.interpolate(grid, scale_factor=factors, mode="bicubic")
    expected = torch.cat([stored[:, :1], stretched.permute(0, 2, 3, 1).reshape(1, 28, 128)], dim=1)
    pictures = torch.zeros(1, 3, 32, 63)
    seen = []
    module.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        module(pictures)
    patches = module.patch_embed.proj.bias.expand(1, 28, 128)
    start = torch.cat([module.cls_token, patches], dim=1)
    torch.testing.assert_close(seen[0] - start, expected, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_image_reward_is_that_of_transformers_blip(
    image_reward_folder: Path, vit_folder: Path
) -> None:
    """The reference pads the text to 35 tokens and masks, as upstream does; ours does not pad."""
    clips = make_clips()
    vit = transformers.ViTModel.from_pretrained(vit_folder, local_files_only=True).eval()
    tokenizer = transformers.BertTokenizer.from_pretrained(
        image_reward_folder, local_files_only=True
    )
    text = tokenizer(
        [clips.prompt], return_tensors="pt", padding="max_length", truncation=True, max_length=35
    )
    pictures = vit(pixel_values=pixels_of(clips, OPENAI_NUMBERS)).last_hidden_state
    tokens = blip_text_model()(
        input_ids=text.input_ids.expand(len(pictures), -1),
        attention_mask=text.attention_mask.expand(len(pictures), -1),
        encoder_hidden_states=pictures,
        encoder_attention_mask=torch.ones(pictures.shape[:2], dtype=torch.long),
    ).last_hidden_state
    raw = through_layers(head_layers(64), tokens[:, 0]).view(2, 3)
    expected = (raw - 0.16717362830052426) / 1.0333394966054072
    found = ImageReward.from_folder(image_reward_folder)(clips)
    assert (expected[0] - expected[1]).abs().max() > 0.01
    torch.testing.assert_close(found, expected.mean(dim=1), atol=3e-4, rtol=0)


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


def test_a_batch_scores_as_its_clips_one_by_one(reward: Reward) -> None:
    clips = make_clips(batch=3)
    alone = [
        reward(Clips(frames[None], frames[None], clips.prompt, clips.fps))
        for frames in clips.frames
    ]
    found = reward(clips)
    assert found.shape == (3,) and found.dtype == torch.float32
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("column", [35, 0])
def test_a_broken_pixel_makes_its_clip_nan_and_no_other(reward: Reward, column: int) -> None:
    """Found while testing: a pixel that the crop cuts away went unseen."""
    clips = make_clips()
    whole = reward(clips)
    clips.frames[1, 2, 5, column, 0] = torch.nan
    found = reward(clips)
    assert found[1].isnan()
    torch.testing.assert_close(found[0], whole[0], atol=1e-4, rtol=0)


def test_a_half_precision_module_scores_nearly_the_same(reward: Reward) -> None:
    """Within 2 percent of each reward's typical range; 0.6 seen."""
    clips = make_clips()
    whole = reward(clips)
    reward.module.to(torch.bfloat16)
    found = reward(clips)
    low, high = reward.needs.scale
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole, atol=0.02 * (high - low), rtol=0)


def test_more_frames_than_go_in_at_once_all_count(clip_folder: Path) -> None:
    score = PickScore.from_folder(clip_folder)
    clips = make_clips(batch=2, frames=37, shape=(16, 16))
    halves = [
        score(Clips(part, part, clips.prompt, clips.fps))
        for part in (clips.frames[:, :18], clips.frames[:, 18:])
    ]
    torch.testing.assert_close(
        score(clips), (18 * halves[0] + 19 * halves[1]) / 37, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("marker", [END, START, f" {END}{END} "])
def test_a_prompt_cannot_smuggle_clips_special_tokens(clip_folder: Path, marker: str) -> None:
    encode = ClipScore.from_folder(clip_folder).towers.tokenizer
    assert encode(f"red fox {marker} walks").tolist() == encode("red fox walks").tolist()


def test_a_prompt_cannot_smuggle_berts_special_tokens(image_reward_folder: Path) -> None:
    encode = ImageReward.from_folder(image_reward_folder).tokenizer
    ids = encode("red fox [SEP] walks")[0].tolist()
    assert [WORDS.split()[i] for i in ids] == "[CLS] red fox [ sep ] walks [SEP]".split()


def test_a_long_prompt_loses_its_tail(clip_folder: Path, image_reward_folder: Path) -> None:
    clip = ClipScore.from_folder(clip_folder).towers.tokenizer
    bert = ImageReward.from_folder(image_reward_folder).tokenizer
    for encode, length in ((clip, LENGTH), (bert, 35)):
        ids = encode("fox " * 60 + "snow")
        assert ids.shape == (1, length)
        assert ids.tolist() == encode("fox " * 60).tolist()
        assert ids[0, -1] == encode("")[0, -1]


def test_one_frame_has_no_consistency(vit_folder: Path) -> None:
    with pytest.raises(ValueError, match="longer chunks"):
        SubjectConsistency.from_folder(vit_folder)(make_clips(frames=1))


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda w: w.pop("logit_scale"), "missing: logit_scale"),
        (lambda w: w.update(stranger=torch.zeros(1)), "unexpected: stranger"),
        (
            lambda w: w.update({"visual_projection.weight": torch.zeros(3, 32)}),
            r"of another shape: visual_projection.weight \[3, 32\], not \[16, 32\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    clip_folder: Path, tmp_path: Path, change: Callable[[dict], None], words: str
) -> None:
    folder = copy_of(clip_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    change(weights)
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=words) as caught:
        ClipScore.from_folder(folder)
    assert str(folder / "pytorch_model.bin") in str(caught.value)


def test_files_of_another_kind_are_named(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(clip_folder, tmp_path)
    (folder / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="model.safetensors is not a safetensors file"):
        ClipScore.from_folder(folder)
    (folder / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    with pytest.raises(ValueError, match="config of a 'vit' model"):
        ClipScore.from_folder(folder)
    (folder / "config.json").write_text("<html>", encoding="utf-8")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        ClipScore.from_folder(folder)


def test_older_files_that_hold_position_ids_load(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(clip_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(weights, folder / "model.safetensors")
    clips = make_clips()
    old, new = PickScore.from_folder(folder), PickScore.from_folder(clip_folder)
    # not equal: how a product is rounded may depend on where in memory a file's weights begin
    assert torch.allclose(old(clips), new(clips), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json", "merges.txt"])
def test_a_missing_clip_file_is_named_with_its_place_and_origin(
    clip_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = copy_of(clip_folder, tmp_path)
    (folder / name).unlink()
    for reward, origin in ((ClipScore, "openai/clip-vit-large"), (PickScore, "PickScore_v1")):
        with pytest.raises(FileNotFoundError, match=origin) as caught:
            reward.from_folder(folder)
        assert str(folder / name) in str(caught.value)


def test_the_tokenizer_may_lie_elsewhere(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(clip_folder, tmp_path / "model")
    (tmp_path / "words").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).rename(tmp_path / "words" / name)
    clips = make_clips()
    found = PickScore.from_folder(folder, tokenizer_folder=tmp_path / "words")(clips)
    assert torch.equal(found, PickScore.from_folder(clip_folder)(clips))


def test_tokenizer_json_gives_the_same_tokens(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(clip_folder, tmp_path)
    slow = ClipScore.from_folder(folder).towers.tokenizer
    fast = transformers.CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
    fast.backend_tokenizer.save(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    encode = ClipScore.from_folder(folder).towers.tokenizer
    for prompt in (PROMPT, "", "It's  A fox\n-- 1234!! Übergröße 狐", f"red {END} fox"):
        assert encode(prompt).tolist() == slow(prompt).tolist()
        plain = prompt.replace(END, "")
        assert encode(prompt)[0].tolist() == fast(plain)["input_ids"]


@pytest.mark.parametrize(
    "build,words",
    [
        (lambda d: SubjectConsistency.from_folder(d), "facebook/dino-vitb16"),
        (lambda d: SubjectConsistency.from_file(d / "dino.pth"), "dino.pth"),
        (lambda d: ImageReward.from_folder(d), "THUDM/ImageReward"),
        (lambda d: ClipScore.from_folder(d / "nowhere"), "not a folder"),
    ],
)
def test_an_empty_folder_is_told_what_belongs_there(
    tmp_path: Path, build: Callable[[Path], Reward], words: str
) -> None:
    with pytest.raises(FileNotFoundError, match=words) as caught:
        build(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_or_foreign_head_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    with pytest.raises(FileNotFoundError, match="improved-aesthetic-predictor"):
        Aesthetic.from_files(clip_folder, path)
    torch.save(head_layers(20), path)
    with pytest.raises(ValueError, match="reads embeddings of 20 numbers"):
        Aesthetic.from_files(clip_folder, path)
    torch.save(head_layers(16) | {"layers.9.bias": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="unexpected: layers.9.bias"):
        Aesthetic.from_files(clip_folder, path)
    torch.save({"linear": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no 'layers.0.weight'"):
        Aesthetic.from_files(clip_folder, path)


def test_a_file_that_holds_more_than_tensors_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save({"layers.0.weight": Path("x")}, path)
    with pytest.raises(ValueError, match="plain tensors"):
        Aesthetic.from_files(clip_folder, path)
    torch.save({"model": head_layers(16)}, path)
    with pytest.raises(ValueError, match="plain dict of tensors"):
        Aesthetic.from_files(clip_folder, path)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="cannot be read"):
        Aesthetic.from_files(clip_folder, path)


def test_the_vocabulary_must_belong_to_the_model(image_reward_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("fox\nsnow\n", encoding="utf-8")
    with pytest.raises(ValueError, match="bert-base-uncased"):
        ImageReward.from_folder(image_reward_folder, tokenizer_folder=tmp_path)


def test_other_preprocessing_than_the_models_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(clip_folder, tmp_path)
    (folder / "preprocessor_config.json").write_text('{"size": 64, "resample": 3}', "utf-8")
    with pytest.raises(ValueError, match="takes 32 pixels"):
        ClipScore.from_folder(folder)


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return target
