"""The Qwen2-VL rewards against the published code: one test per case found in the golden sets.

``pytest tests/core/test_reward_parity.py --goldens DIR [--goldens DIR ...]``; default
``tests/goldens``. A set is a folder with ``case.json`` and ``expected.safetensors``; its cases are
the prefixes of the tensors. Names, sizes and settings come from the files.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import goldens
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stream_t1_core.rewards.base import sampled_frames
from stream_t1_core.rewards.hpsv3 import HPSv3
from stream_t1_core.rewards.qwen2vl import Batch, Qwen2VL, positions
from stream_t1_core.rewards.qwen2vl_pixels import resize_image, resize_video, smart_resize
from stream_t1_core.rewards.qwen2vl_prompt import IMAGE, PADDING, VIDEO
from stream_t1_core.rewards.videoalign import MIN_PIXELS, SETTINGS_FILE, VideoAlign

pytest.importorskip("transformers", reason="the Qwen2-VL rewards need transformers")

DEFAULT = Path(__file__).parent.parent / "goldens"
FLAT = "model_flat.safetensors"
SCORE = 2e-4
BF16 = 0.3  # a sanity check only
TOLERANCE = {
    "pixel_values": 2e-6,
    "pixel_values_videos": 2e-6,
    "pixel_rows": 2e-6,
    "visual_embeds": 1e-4,
    "last_hidden_state": 5e-4,
    "hidden_at_special": 5e-4,
    "token_logits": 5e-4,
    "raw": SCORE,
    "scores_norm": SCORE,
    "scores_raw": SCORE,
    "rewards": SCORE,
}  # every other tensor must be equal
WHERE_TOKENS = ("last_hidden_state", "token_logits")  # padding may hold anything

Check = Callable[["RewardSet", str, Path], None]


@dataclass(frozen=True, eq=False)
class RewardSet:
    """One golden folder."""

    folder: Path
    case: dict = field(repr=False)

    @property
    def is_video(self) -> bool:
        return "template" in self.case

    @property
    def template(self) -> str:
        if self.is_video:
            return self.case["template"]
        closing = self.case["prompt_with_special_token"]
        return self.case["instruction"] + closing.replace("{", "{{").replace("}", "}}")

    @property
    def expected(self) -> dict[str, Tensor]:
        return _tensors(self.folder / "expected.safetensors")

    def of(self, name: str) -> dict[str, Tensor]:
        """The tensors of one case, by what they are."""
        start = f"{name}/"
        found = self.expected.items()
        return {key.removeprefix(start): value for key, value in found if key.startswith(start)}

    def input(self, name: str) -> Tensor:
        return _tensors(self.folder / "inputs.safetensors")[name]

    def checks(self) -> dict[str, Check]:
        """A check for every case that the files hold."""
        names = dict.fromkeys(key.split("/")[0] for key in self.expected)
        special = VIDEO_CHECKS if self.is_video else {"bf16": check_bf16, "stream": check_stream}
        checks = {name: special.get(name, check_call) for name in names if name != "control"}
        for key in self.expected:
            if key.startswith("control/"):
                checks[key] = check_control
        layouts = {"adapter": check_adapter, FLAT: check_flat}
        checks |= {name: c for name, c in layouts.items() if (self.folder / name).exists()}
        return checks | {"tokens": check_tokens}


@cache
def _tensors(path: Path) -> dict[str, Tensor]:
    return load_file(path)


def find(folder: Path) -> list[RewardSet]:
    paths = sorted(folder.rglob("case.json"))
    return [RewardSet(p.parent, json.loads(p.read_text(encoding="utf-8"))) for p in paths]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folders = [Path(d) for d in metafunc.config.getoption("--goldens") or [DEFAULT]]
    if "golden" in metafunc.fixturenames:
        cases = []
        for folder in folders:
            sets = find(folder)
            cases += [(s, n) for s in sets for n in s.checks()]
            if not sets and not goldens.find(folder):
                cases.append((RewardSet(folder, {}), ""))
        ids = [f"{s.folder.name}/{name or 'no-golden-set'}" for s, name in cases]
        metafunc.parametrize(("golden", "name"), cases, ids=ids)
    if "table" in metafunc.fixturenames:
        tables = [path for folder in folders for path in sorted(folder.rglob("tables.json"))]
        metafunc.parametrize("table", tables, ids=[path.parent.name for path in tables])


def test_parity(golden: RewardSet, name: str, tmp_path: Path) -> None:
    if not golden.case:
        pytest.fail(f"{golden.folder} holds no golden set (a folder with a case.json)")
    golden.checks()[name](golden, name, tmp_path)


def test_smart_resize_table(table: Path) -> None:
    for row in json.loads(table.read_text())["smart_resize"]:
        size = smart_resize(row["h"], row["w"], row["min_pixels"], row["max_pixels"])
        assert list(size) == row["out"], row


def test_frames_table(table: Path) -> None:
    for row in json.loads(table.read_text())["frames"]:
        asked = (row["total"], row["video_fps"], row.get("fps"), row.get("nframes_arg"))
        if row["nframes"] is None:
            with pytest.raises(ValueError, match="frame"):
                sampled_frames(*asked)
        else:
            assert sampled_frames(*asked) == row["indices"], row


# What each case is held against.


def check_call(golden: RewardSet, name: str, _: Path) -> None:
    """Every tensor of the case, from token ids and pixels to scores."""
    compare(golden, name, golden.of(name), loaded(golden.folder, golden.template))


def check_stream(golden: RewardSet, name: str, _: Path) -> None:
    """And Stream-T1's short score, the mean over the chunk's frames."""
    seen = compare(golden, name, golden.of(name), loaded(golden.folder, golden.template))
    wanted = golden.case["calls"][name]["short_score"]
    assert seen["rewards"][:, 0].mean().item() == pytest.approx(wanted, abs=SCORE)


def check_bf16(golden: RewardSet, name: str, _: Path) -> None:
    reward = loaded(golden.folder, golden.template, dtype=torch.bfloat16)
    compare(golden, "batch", golden.of(name), reward, at_least=BF16)


def check_control(golden: RewardSet, name: str, _: Path) -> None:
    """Numbers that are wrong on purpose, and that we must not reproduce."""
    right = golden.of("batch")["raw" if golden.is_video else "rewards"]
    assert (golden.expected[name] - right).abs().max() > 10 * SCORE
    media, prompts, reward = call_inputs(golden, "batch", loaded(golden.folder, golden.template))
    seen = observe(reward, media, prompts)["raw" if golden.is_video else "rewards"]
    assert (seen - golden.expected[name]).abs().max() > 10 * SCORE


def check_dim3(golden: RewardSet, name: str, tmp_path: Path) -> None:
    """A head of three outputs instead of one."""
    wanted = golden.of(name)
    head = {"base_model.model.rm_head.weight": wanted.pop("rm_head_weight")}
    copy_of(golden, tmp_path, head)
    compare(golden, "batch", wanted, loaded(tmp_path, golden.template))


def check_raw(golden: RewardSet, name: str, tmp_path: Path) -> None:
    """Without an inference_config scores stay raw."""
    copy_of(golden, tmp_path, {})
    config = json.loads((tmp_path / SETTINGS_FILE).read_text())
    del config["inference_config"]
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(config))
    compare(golden, "batch", golden.of(name), loaded(tmp_path, golden.template))


def check_flat(golden: RewardSet, name: str, tmp_path: Path) -> None:
    """The released names in one safetensors file beside the settings."""
    copy_of(golden, tmp_path, {})
    compare(golden, "batch", golden.of("batch"), loaded(tmp_path, golden.template))


def check_adapter(golden: RewardSet, name: str, _: Path) -> None:
    """LoRA, vision tower and head beside the base model's weights: the same model."""
    reward = loaded(golden.folder / name, golden.template, base=golden.folder / "base")
    compare(golden, "batch", golden.of("batch"), reward)


def check_tokens(golden: RewardSet, name: str, _: Path) -> None:
    """Chat texts, ids by name, length of the tokenizer."""
    chat = loaded(golden.folder, golden.template).chat
    assert [chat.text(prompt) for prompt in golden.case["prompts"]] == golden.case["chat_text"]
    assert chat.id_of(PADDING) == golden.case["pad_token_id"]
    assert chat.tokenizer.get_vocab_size() == golden.case["len_tokenizer"]
    single = {token: golden.case.get("special_token_id") for token in chat.reads}
    ids = golden.case.get("special_token_ids", single)
    assert {token: chat.id_of(token) for token in chat.reads} == ids


VIDEO_CHECKS: dict[str, Check] = {
    "bf16": check_bf16,
    "dim3": check_dim3,
    "no_inference_config": check_raw,
}


# Loading and running.


@cache
def loaded(
    folder: Path, template: str, base: Path | None = None, dtype: torch.dtype = torch.float32
) -> VideoAlign | HPSv3:
    made = VideoAlign if (folder / SETTINGS_FILE).exists() else HPSv3
    return made.from_folder(folder, base=base, template=template, dtype=dtype)


def copy_of(golden: RewardSet, folder: Path, changed: dict[str, Tensor]) -> None:
    """The set's model as one flat safetensors file in a folder of its own."""
    shutil.copy(golden.folder / SETTINGS_FILE, folder)
    shutil.copytree(golden.folder / "base", folder / "base")
    checkpoint = next(golden.folder.glob("checkpoint-*"))
    shutil.copytree(checkpoint / "tokenizer", folder / "tokenizer")
    flat = golden.folder / FLAT
    tensors = load_file(flat) if flat.exists() else torch.load(checkpoint / "model.pth")
    save_file({**tensors, **changed}, folder / FLAT)


def call_inputs(
    golden: RewardSet, name: str, reward: VideoAlign | HPSv3
) -> tuple[list[Tensor], list[str], VideoAlign | HPSv3]:
    """Media, prompts, and the reward with the case's settings."""
    index = name.removeprefix("single")
    only = int(index) if index.isdigit() else None
    # single items are calls with the settings of the batch
    call = golden.case["calls"]["batch" if only is not None else name]
    if golden.is_video:
        settings, videos = reward.settings, videos_of(golden, call)
        asked = {"fps": settings.fps, "num_frames": None, **call["kwargs"]}
        fps = None if asked["num_frames"] else asked["fps"]
        indices = [sampled_frames(len(v), f, fps, asked["num_frames"]) for v, f in videos]
        assert indices == call["frame_indices"]
        media = [video[at] for (video, _), at in zip(videos, indices, strict=True)]
        limit = asked.get("max_pixels", settings.max_pixels)
        reward = replace(reward, settings=replace(settings, max_pixels=limit))
    else:
        media = images_of(golden, call)
        if "max_pixels" in call:
            assert call["min_pixels"] == call["max_pixels"]
            reward = replace(reward, pixels=call["max_pixels"])
    prompts = call.get("prompts") or golden.case["prompts"]
    prompts = [call["prompt"]] * len(media) if "prompt" in call else prompts
    if only is not None:
        media, prompts = [media[only]], [prompts[only]]
    return media, prompts, reward


def videos_of(golden: RewardSet, call: dict) -> list[tuple[Tensor, float]]:
    """Frames uint8 [T, H, W, 3] and the rate of each video."""
    if "tensor" in call:
        return [(golden.input(call["tensor"]), call["fps"])]
    if "height" in call:
        clip = formula(call["frames"], call["height"], call["width"])
        assert clip.sum(dtype=torch.int64) == call["all_bytes_sum"]
        return [(clip, call["fps"])]
    return [(golden.input(video["tensor"]), video["fps"]) for video in golden.case["videos"]]


def images_of(golden: RewardSet, call: dict) -> list[Tensor]:
    if "height" in call:
        return list(formula(call["frames"], call["height"], call["width"]))
    names = call.get("images") or [f"image{i}" for i in range(len(golden.case["prompts"]))]
    return [golden.input(name) for name in names]


def formula(frames: int, height: int, width: int) -> Tensor:
    """The clip that the goldens describe instead of storing it: uint8 [T, H, W, 3]."""
    t = torch.arange(frames).view(-1, 1, 1, 1)
    y = torch.arange(height).view(-1, 1, 1)
    x = torch.arange(width).view(-1, 1)
    c = torch.arange(3)
    return ((3 * x + 5 * y + 11 * t + 67 * c + x * y // 97) % 256).to(torch.uint8)


@torch.inference_mode()
def observe(
    reward: VideoAlign | HPSv3, media: Sequence[Tensor], prompts: Sequence[str]
) -> dict[str, Tensor]:
    """What our code computes, under the names of the goldens."""
    batch = reward.batch(media, prompts)
    module, video = reward.module, isinstance(reward, VideoAlign)
    hidden = module(batch, reward.chat.id_of(VIDEO if video else IMAGE))
    at = reward.chat.read_at(batch.ids)
    seen = {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        "pixel_values_videos" if video else "pixel_values": torch.cat(batch.rows),
        "video_grid_thw" if video else "image_grid_thw": torch.tensor(batch.grids),
        "position_ids": positions(batch.ids),
        "visual_embeds": visual_embeds(module, batch),
        "last_hidden_state": hidden,
        "token_logits": module.rm_head(hidden.float()),
        "special_positions": at,
        "hidden_at_special": torch.stack([row[i] for row, i in zip(hidden, at, strict=True)]),
    }
    if not video:
        seen["hidden_at_special"] = seen["hidden_at_special"][:, 0]
        seen["rewards"] = reward.answers(media, prompts)
        sizes = (reward.pixels, reward.pixels)
        resized = [resize_image(image, *sizes).movedim(0, -1) for image in media]
        return seen | {f"image_resized{i}": image for i, image in enumerate(resized)}
    limits = (MIN_PIXELS, reward.settings.max_pixels)
    resized = [resize_video(frames, *limits) for frames in media]
    raw = reward.raw(hidden, batch)
    seen |= {"raw": raw, "scores_raw": with_overall(raw)}
    seen["scores_norm"] = with_overall(reward.scores(media, prompts))
    return seen | {f"frames_resized{i}": frames for i, frames in enumerate(resized)}


def visual_embeds(module: Qwen2VL, batch: Batch) -> Tensor:
    pictures = zip(batch.rows, batch.grids, strict=True)
    return torch.cat([module.visual_embeds(rows, grid) for rows, grid in pictures])


def with_overall(scores: Tensor) -> Tensor:
    return torch.cat([scores, scores.sum(dim=1, keepdim=True)], dim=1).double()


def compare(
    golden: RewardSet,
    name: str,
    wanted: dict[str, Tensor],
    reward: VideoAlign | HPSv3,
    at_least: float = 0.0,
) -> dict[str, Tensor]:
    """Run the case ``name``, hold everything in ``wanted`` against it, and hand it on."""
    media, prompts, reward = call_inputs(golden, name, reward)
    seen = observe(reward, media, prompts)
    call = golden.case["calls"].get(name, {})
    pixels = seen["pixel_values_videos" if golden.is_video else "pixel_values"]
    if "n_rows" in call:
        seen["pixel_rows"] = pixels[:: call["pixel_row_step"]]
        assert len(pixels) == call["n_rows"]
        assert pixels.double().sum().item() == pytest.approx(call["pixel_sum"], abs=1)
        assert pixels.double().abs().sum().item() == pytest.approx(call["pixel_abs_sum"], abs=1)
    assert wanted, "the golden set holds nothing for this case"
    for key, value in wanted.items():
        found = seen[key]
        assert found.shape == value.shape, key
        if key in WHERE_TOKENS:
            found, value = (t[seen["attention_mask"] == 1] for t in (found, value))
        worst = (found.double() - value.double()).abs().max().item()
        tolerance = max(TOLERANCE.get(key, 0.0), at_least)
        assert worst <= tolerance, f"{key} is off by {worst:.2g}, tolerance {tolerance:.2g}"
    return seen
