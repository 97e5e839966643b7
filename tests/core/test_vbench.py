"""VBench's metrics: inputs with known answers, and parity with VBench's own code and networks.

``tests/goldens/vbench`` tells how the recorded numbers were made.
"""

import json
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import drawn
import pytest
import torch
from torch import Tensor

from stream_t1_core.rewards.aesthetic_quality import AestheticQuality
from stream_t1_core.rewards.background import BackgroundConsistency
from stream_t1_core.rewards.base import Clips, Reward, needs_of
from stream_t1_core.rewards.checkpoints import read_checkpoint
from stream_t1_core.rewards.dynamic import DynamicDegree, fastest, moves
from stream_t1_core.rewards.flicker import TemporalFlickering
from stream_t1_core.rewards.imaging import ImagingQuality
from stream_t1_core.rewards.smoothness import MotionSmoothness

ROOT = Path(__file__).parents[2]
TINY_CLIP = ROOT / "tiny_model" / "clip_tiny"
GOLDENS = ROOT / "tests" / "goldens" / "vbench" / "expected.json"
EXPECTED = json.loads(GOLDENS.read_text(encoding="utf-8"))


def clips(*candidates: Tensor, fps: float = 16.0) -> Clips:
    frames = torch.stack(candidates)
    return Clips(frames, frames, "", fps)


def waves(frames: int, height: int, width: int) -> Tensor:
    return drawn.moving_waves(frames, height, width) / 255


def grey(*levels: float, height: int = 8, width: int = 8) -> Tensor:
    """A plain frame of each level: [T, H, W, 3]."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, height, width, 3)


def test_flickering_is_one_less_the_mean_step() -> None:
    still, fading, jumping = grey(0.2, 0.2, 0.2), grey(0.2, 0.4, 0.6), grey(0.0, 1.0, 1.0)
    found = TemporalFlickering()(clips(still, fading, jumping))
    assert found.tolist() == pytest.approx([1.0, 0.8, 0.5])


def test_flickering_is_vbenchs() -> None:
    expected = EXPECTED["temporal_flickering"]["score"]
    assert TemporalFlickering()(clips(waves(5, 40, 60))).item() == pytest.approx(expected, abs=1e-6)


def test_a_background_that_stays_is_perfect_and_a_cut_counts_against_both_frames() -> None:
    metric = BackgroundConsistency.from_folder(TINY_CLIP)
    scene = waves(1, 72, 100)
    other = torch.zeros_like(scene)
    (across,) = metric(clips(torch.cat([scene, other]))).tolist()
    still, late = metric(
        clips(torch.cat([scene, scene, scene]), torch.cat([scene, scene, other]))
    ).tolist()
    assert still == pytest.approx(1.0, abs=1e-5)
    assert 0 < across < 0.9 and late == pytest.approx((1 + across) / 2, abs=1e-5)


@pytest.mark.parametrize("size", ["72x125", "125x72", "64x64"])
def test_background_consistency_is_vbenchs(size: str) -> None:
    """The crop of 72 x 125 and 125 x 72 has an odd pixel to give away: torchvision's place."""
    found = BackgroundConsistency.from_folder(TINY_CLIP)(
        clips(waves(4, *map(int, size.split("x"))))
    )
    assert found.item() == pytest.approx(EXPECTED["background_consistency"][size], abs=1e-5)


@pytest.fixture(scope="module")
def linear_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("linear") / "sa_0_4_vit_l_14_linear.pth"
    torch.save(drawn.weights(EXPECTED["aesthetic_quality"]["layout"]), path)
    return path


@pytest.mark.parametrize("size", ["72x125", "125x72", "64x64"])
def test_aesthetic_quality_is_vbenchs(linear_file: Path, size: str) -> None:
    metric = AestheticQuality.from_files(TINY_CLIP, linear_file)
    expected = EXPECTED["aesthetic_quality"]["scores"][size]
    found = metric(clips(waves(4, *map(int, size.split("x")))))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_aesthetic_quality_is_a_tenth_of_the_rating(linear_file: Path) -> None:
    metric = AestheticQuality.from_files(TINY_CLIP, linear_file)
    metric.module["head"].weight.zero_()
    metric.module["head"].bias.fill_(5.5)
    assert metric(clips(waves(2, 64, 72))).item() == pytest.approx(0.55)


@pytest.fixture(scope="module")
def raft_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In upstream's layout, with the names that DataParallel gives."""
    path = tmp_path_factory.mktemp("raft") / "raft-things.pth"
    torch.save(drawn.weights(EXPECTED["dynamic_degree"]["layout"]), path)
    return path


def all_moving(file: Path, pixels: float) -> DynamicDegree:
    """With weights under which every pixel goes so far to the right from frame to frame."""
    metric = DynamicDegree.from_file(file)
    head = metric.module.update_block.flow_head.conv2
    head.weight.zero_()
    head.bias.copy_(torch.tensor([pixels / (20 * 8), 0.0]))  # 20 steps, 8 pixels to a feature
    return metric


def test_rafts_flow_is_upstreams(raft_file: Path) -> None:
    pictures = drawn.moving_waves(2, 130, 141)[:, :128, :136].movedim(-1, 1).float()
    with torch.inference_mode():
        flow = DynamicDegree.from_file(raft_file).module(*pictures.split(1))
    expected = torch.tensor(EXPECTED["dynamic_degree"]["flow"])
    torch.testing.assert_close(flow[0, :, 4::24, 4::24], expected, atol=2e-3, rtol=0)


def test_the_speed_of_frames_is_vbenchs(raft_file: Path) -> None:
    """Sides of 130 and 141 are padded to multiples of 8, and the padding counts as upstream's."""
    speeds = DynamicDegree.from_file(raft_file).speeds(waves(3, 130, 141))
    assert speeds.tolist() == pytest.approx(EXPECTED["dynamic_degree"]["speeds"], abs=5e-3)


def test_a_quarter_of_the_frames_must_move_by_vbenchs_rule() -> None:
    threshold = EXPECTED["dynamic_degree"]["threshold_of_480"]
    for frames, needed in EXPECTED["dynamic_degree"]["moving_frames_needed_of"]:
        speeds = torch.full((frames - 1,), threshold)  # as fast as that is too slow
        speeds[: needed - 1] = 1.01 * threshold
        assert not moves(speeds, 480)
        speeds[needed - 1] = 1.01 * threshold
        assert moves(speeds, 480)


def test_a_frames_speed_is_that_of_its_fastest_twentieth() -> None:
    flow = torch.zeros(1, 2, 20, 20)
    flow[0, :, 0, :10] = torch.tensor([[3.0], [4.0]])  # half of the 20 that count
    assert fastest(flow).item() == pytest.approx(2.5)


@pytest.mark.parametrize(("pixels", "moving"), [(0.0, 0.0), (1.4, 0.0), (1.6, 1.0)])
def test_a_clip_moves_above_six_of_256(raft_file: Path, pixels: float, moving: float) -> None:
    """Of a shorter side of 64 pixels: 1.5."""
    found = all_moving(raft_file, pixels)(clips(waves(5, 64, 72)))
    assert found.tolist() == [moving]


@pytest.mark.parametrize(("fps", "frames"), [(8.0, 2), (16.0, 4), (24.0, 6), (30.0, 8), (5.0, 2)])
def test_about_eight_frames_a_second_are_looked_at(
    raft_file: Path, fps: float, frames: int
) -> None:
    metric = all_moving(raft_file, 9.0)
    with pytest.raises(ValueError, match="needs 3 of them"):
        metric(clips(waves(frames, 64, 64), fps=fps))
    assert metric(clips(waves(frames + 1, 64, 64), fps=fps)).tolist() == [1.0]


@pytest.fixture(scope="module")
def musiq_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("musiq") / "musiq_spaq_ckpt-358bb6af.pth"
    torch.save(drawn.weights(EXPECTED["imaging_quality"]["layout"]), path)
    return path


@pytest.mark.parametrize("size", ["300x610", "530x250", "64x90"])
def test_imaging_quality_is_vbenchs(musiq_file: Path, size: str) -> None:
    """Two sizes are shrunk first; the patches at the borders of all are filled up."""
    found = ImagingQuality.from_file(musiq_file)(clips(waves(2, *map(int, size.split("x")))))
    expected = EXPECTED["imaging_quality"]["scores"][size]
    assert found.item() == pytest.approx(expected, abs=2e-6)  # it differs by 2e-3 between sizes


def test_imaging_quality_is_the_mean_rating_of_the_frames_in_percent(musiq_file: Path) -> None:
    metric = ImagingQuality.from_file(musiq_file)
    first, second = (metric(clips(frame[None])).item() for frame in waves(2, 64, 72))
    assert abs(first - second) > 1e-5
    together = metric(clips(waves(2, 64, 72))).item()
    assert together == pytest.approx((first + second) / 2, abs=1e-6)
    metric.module.head.weight.zero_()
    metric.module.head.bias.fill_(42.0)
    assert metric(clips(waves(2, 64, 72))).item() == pytest.approx(0.42)


@pytest.fixture(scope="module")
def amt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what a training script leaves in it beside the weights."""
    weights = drawn.weights(EXPECTED["motion_smoothness"]["layout"], drawn.AMT_GAIN)
    path = tmp_path_factory.mktemp("amt") / "amt-s.pth"
    rate = Decimal("2e-5")  # numpy's number in a real one
    left = {"epoch": 300, "optim": {"lr": rate, "seen": Counter([rate]), "steps": deque([1])}}
    torch.save({"state_dict": OrderedDict(weights), **left}, path)
    return path


def test_amts_halfway_picture_is_upstreams(amt_file: Path) -> None:
    pictures = waves(6, 130, 141)[:3:2, :128, :128].movedim(-1, 1)
    with torch.inference_mode():
        halfway = MotionSmoothness.from_file(amt_file).module(*pictures.split(1))
    expected = torch.tensor(EXPECTED["motion_smoothness"]["halfway"])
    torch.testing.assert_close(halfway[0, :, 4::24, 4::24], expected, atol=1e-4, rtol=0)


def test_motion_smoothness_is_vbenchs(amt_file: Path) -> None:
    """Sides of 130 and 141 are padded; of 6 frames, the last has no later neighbour."""
    found = MotionSmoothness.from_file(amt_file)(clips(waves(6, 130, 141)))
    assert found.item() == pytest.approx(EXPECTED["motion_smoothness"]["score"], abs=1e-5)


def test_smoothness_is_how_far_frames_are_from_the_halfway_picture(tmp_path: Path) -> None:
    """Weights of zero see no motion: halfway is the mean. VBench cuts off what is behind a byte."""
    layout = EXPECTED["motion_smoothness"]["layout"]
    zeros = {name: torch.zeros(shape) for name, shape in layout.items()}
    torch.save({"state_dict": zeros}, tmp_path / "amt-s.pth")
    levels = [[10, 15, 21, 26, 32], [10, 100, 21, 11, 32], [10, 15, 21, 27, 34]]
    found = MotionSmoothness.from_file(tmp_path / "amt-s.pth")(
        clips(*(grey(*(x / 255 for x in row), height=64, width=64) for row in levels))
    )
    errors = [(0 + 0) / 2, (85 + 15) / 2, (0 + 0) / 2]
    assert found.tolist() == pytest.approx([1 - error / 255 for error in errors], abs=1e-6)


def test_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    weights = {"x": torch.arange(3.0)}
    torch.save({"trap": Trap(), "state_dict": weights}, tmp_path / "trapped.pth")
    assert torch.equal(read_checkpoint(tmp_path / "trapped.pth")["x"], weights["x"])
    torch.save({"state_dict": {"x": Trap()}}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="trap.pth has no tensors under 'state_dict'"):
        read_checkpoint(tmp_path / "trap.pth")
    (tmp_path / "page.pth").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="page.pth cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "page.pth")
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "program.pth")
    with pytest.raises(ValueError, match="program.pth is a TorchScript program"):
        read_checkpoint(tmp_path / "program.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (BackgroundConsistency.from_folder, "clip-vit-base-patch32"),
        (lambda folder: AestheticQuality.from_files(TINY_CLIP, folder / "v1.pth"), "LAION-AI/aes"),
        (lambda folder: DynamicDegree.from_file(folder / "raft-things.pth"), "princeton-vl/RAFT"),
        (lambda folder: ImagingQuality.from_file(folder / "musiq.pth"), "chaofengc/IQA-PyTorch"),
        (lambda folder: MotionSmoothness.from_file(folder / "amt-s.pth"), "lalala125/AMT"),
    ],
)
def test_an_empty_folder_is_told_what_belongs_there(
    tmp_path: Path, build: Callable[[Path], Reward], words: str
) -> None:
    with pytest.raises(FileNotFoundError, match=words) as caught:
        build(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="other.pth does not fit Raft .* unexpected: conv"):
        DynamicDegree.from_file(path)


@pytest.fixture(
    params=[
        "temporal_flickering",
        "background_consistency",
        "aesthetic_quality",
        "dynamic_degree",
        "imaging_quality",
        "motion_smoothness",
    ]
)
def metric(
    request: pytest.FixtureRequest,
    linear_file: Path,
    raft_file: Path,
    musiq_file: Path,
    amt_file: Path,
) -> Reward:
    """Each of the metrics, freshly loaded."""
    builders = {
        "temporal_flickering": TemporalFlickering,
        "background_consistency": lambda: BackgroundConsistency.from_folder(TINY_CLIP),
        "aesthetic_quality": lambda: AestheticQuality.from_files(TINY_CLIP, linear_file),
        "dynamic_degree": lambda: DynamicDegree.from_file(raft_file),
        "imaging_quality": lambda: ImagingQuality.from_file(musiq_file),
        "motion_smoothness": lambda: MotionSmoothness.from_file(amt_file),
    }
    return builders[request.param]()


def frames_for(metric: Reward, frames: int) -> int:
    """One is enough for the slow metric that looks at frames one by one."""
    return frames if needs_of(metric).video else 1


def test_a_batch_scores_as_its_clips_one_by_one(metric: Reward) -> None:
    frames = frames_for(metric, 3)
    candidates = waves(frames, 64, 72), grey(*frames * [0.5], height=64, width=72)
    alone = [metric(clips(candidate, fps=8.0)) for candidate in candidates]
    found = metric(clips(*candidates, fps=8.0))
    assert found.shape == (2,) and found.dtype == torch.float32
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=0)


def test_a_broken_pixel_makes_its_clip_nan_and_no_other(metric: Reward) -> None:
    """Also in a frame that is not looked at: the sixth, by the metrics that take every second."""
    whole = waves(frames_for(metric, 6), 64, 72)
    broken = whole.clone()
    broken[-1, 0, 0, 0] = math.nan
    assert metric(clips(whole, broken)).isnan().tolist() == [False, True]


def test_one_frame_is_too_few_to_compare(metric: Reward) -> None:
    if needs_of(metric).video:
        with pytest.raises(ValueError, match=metric.name):
            metric(clips(waves(1, 64, 72)))


def test_a_video_too_small_to_match_is_refused(raft_file: Path, amt_file: Path) -> None:
    for metric in (DynamicDegree.from_file(raft_file), MotionSmoothness.from_file(amt_file)):
        with pytest.raises(ValueError, match=f"frames of 80 x 56 pixels: {metric.name}"):
            metric(clips(waves(5, 56, 80)))
