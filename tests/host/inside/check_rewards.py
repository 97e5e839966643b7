"""Rewards with weights and the host's folder paths and memory management."""

from pathlib import Path

import comfy.model_management
import folder_paths
import pytest
import torch
from boot import Pack

TINY_CLIP = Path(__file__).parents[3] / "tiny_model" / "clip_tiny"


def check_the_host_loads_a_rewards_weights_when_it_is_asked(pack: Pack) -> None:
    host, clip = pack.module("nodes.host.rewards"), pack.module("stream_t1_core.rewards.clip")
    base = pack.module("stream_t1_core.rewards.base")
    hosted = host.hosted(clip.ClipScore.from_folder(TINY_CLIP), "default")
    frames = torch.rand(3, 5, 64, 64, 3)
    clips = base.Clips(frames, frames, "a red circle", 16.0)
    comfy.model_management.unload_all_models()
    scores = hosted(clips)
    assert hosted.patcher in [x.model for x in comfy.model_management.current_loaded_models]
    assert torch.equal(scores, clip.ClipScore.from_folder(TINY_CLIP)(clips))
    assert hosted.needs.prompt and not hosted.needs.video
    weights = sum(p.nbytes for p in hosted.reward.module.parameters())
    assert hosted.patcher.model_size() >= weights


def check_a_frame_that_was_measured_is_not_measured_again(pack: Pack) -> None:
    host, base = pack.module("nodes.host.rewards"), pack.module("stream_t1_core.rewards.base")
    background = pack.module("stream_t1_core.rewards.background")
    reward = background.BackgroundConsistency.from_folder(TINY_CLIP)
    seen = []
    projection = reward.module.visual_projection
    projection.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    hosted = host.hosted(reward, "default")
    first, then = (base.Piece(torch.rand(4, 64, 64, 3)) for _ in range(2))
    hosted.of_footage(base.Footage([[first]], [first.frames], "", 16.0))
    score = hosted.of_footage(base.Footage([[first, then]], [first.frames], "", 16.0))
    assert seen == [4, 4]
    whole = torch.cat([first.frames, then.frames])[None]
    assert torch.allclose(score, reward(base.Clips(whole, whole, "", 16.0)), atol=1e-6)


def check_extra_model_paths_are_looked_at_too(pack: Pack, tmp_path: Path) -> None:
    host = pack.module("nodes.host.rewards")
    (tmp_path / "elsewhere" / "my_clip").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="'my_clip' is not there"):
        host.find("my_clip", "somewhere")
    folder_paths.add_model_folder_path("stream_t1", str(tmp_path / "elsewhere"))
    assert host.find("my_clip", "somewhere") == tmp_path / "elsewhere" / "my_clip"
    assert host.choices("usual")[0] == "usual" and "my_clip" in host.choices("usual")


def check_the_number_format_follows_the_device(pack: Pack) -> None:
    host = pack.module("nodes.host.rewards")
    assert host.dtype_of("default", "cpu") == torch.float32
    assert host.dtype_of("float16", "cpu") == torch.float16


def check_a_metrics_file_may_lie_in_its_folder_or_beside_it(pack: Pack, tmp_path: Path) -> None:
    nodes, amt = pack.module("nodes.reward_models"), pack.module("stream_t1_core.rewards.amt")
    base = pack.module("stream_t1_core.rewards.base")
    zeros = {name: torch.zeros_like(value) for name, value in amt.Amt().state_dict().items()}
    for name in ("amt/amt-s.pth", "mine.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({"state_dict": zeros}, tmp_path / name)
    folder_paths.add_model_folder_path("stream_t1", str(tmp_path))
    frames = torch.tensor([10, 100, 21]).view(1, 3, 1, 1, 1).expand(1, 3, 64, 64, 3) / 255
    for model in ("amt", "mine.pth"):
        (metric,) = nodes.StreamT1MotionSmoothness.execute(model, "default").args
        assert metric(base.Clips(frames, frames, "", 16.0)).item() == pytest.approx(1 - 85 / 255)
    with pytest.raises(ValueError, match="VBench Motion Smoothness: 'other' is not there"):
        nodes.StreamT1MotionSmoothness.execute("other", "default")
