"""The training-free rewards and their mix, on clips drawn here: a square on a plain ground."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stream_t1_core.rewards import flow
from stream_t1_core.rewards.base import Clips, Footage, Needs, Piece, Reward
from stream_t1_core.rewards.drift import ColourDrift
from stream_t1_core.rewards.flicker import Flicker
from stream_t1_core.rewards.mix import RewardMix, judge
from stream_t1_core.rewards.motion import SLICE_FRAMES, MotionAmount, TemporalConsistency
from stream_t1_core.rewards.sharpness import Sharpness
from stream_t1_core.rewards.tally import Tally

REWARDS = [TemporalConsistency(), Flicker(), MotionAmount(), Sharpness(), ColourDrift()]
each_reward = pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.name)
STEADY = [8, 10, 12, 14, 16, 18, 20, 22, 24]


def drawn(lefts: Sequence[int], ground: float = 0.2) -> Tensor:
    """A red 16-pixel square with its left edge at each of ``lefts``: [T, 64, 64, 3]."""
    clip = torch.full((len(lefts), 64, 64, 3), ground)
    for frame, left in zip(clip, lefts, strict=True):
        frame[24:40, left : left + 16] = torch.tensor([0.9, 0.3, 0.2])
    return clip


def clips(*candidates: Tensor, first: Tensor | None = None) -> Clips:
    frames = torch.stack(candidates)
    first = frames if first is None else first.expand(len(frames), *first.shape)
    return Clips(frames, first, "a red square moving right", 16.0)


def texture(height: int, width: int, dx: float = 0.0, dy: float = 0.0) -> Tensor:
    """A smooth texture moved by (dx, dy) pixels: [1, 1, H, W]."""
    draw = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    x = torch.arange(width) - dx
    y = torch.arange(height).view(-1, 1) - dy
    waves = [torch.sin(0.8 * ((a - 0.5) * x + (b - 0.5) * y) + math.tau * p) for a, b, p in draw]
    return (0.5 + sum(waves) / 24)[None, None]


@pytest.mark.parametrize(
    ("shift", "within"),
    [
        ((0.0, 0.0), 1e-6),
        ((0.3, 0.0), 0.1),
        ((1.5, -0.7), 0.1),
        ((2.0, 2.0), 0.1),
        ((-4.0, 1.0), 0.2),
        ((4.0, -2.0), 0.2),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (74, 128)])
def test_flow_finds_a_known_shift_to_a_part_of_a_pixel(
    shift: tuple[float, float], within: float, size: tuple[int, int]
) -> None:
    found = flow.flow(texture(*size), texture(*size, *shift))[0]
    error = (found - torch.tensor(shift).view(2, 1, 1)).norm(dim=0)
    assert error[10:-10, 10:-10].mean() < within


def test_warp_by_the_true_shift_gives_the_first_picture_back() -> None:
    shift = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 40, 50)
    moved_back = flow.warp(texture(40, 50, 2, -3), shift)
    inner = flow.inside(shift)
    torch.testing.assert_close(moved_back[:, 0][inner], texture(40, 50)[:, 0][inner])


def test_flat_ground_does_not_move() -> None:
    pictures = flow.grey(flow.shrink(drawn([8, 10])))
    found = flow.flow(pictures[:1], pictures[1:])
    assert found[0, :, :, 48:].abs().max() < 0.1


def test_shrink_keeps_small_frames_and_the_aspect_of_large_ones() -> None:
    assert flow.shrink(torch.rand(2, 16, 20, 3)).shape == (2, 3, 16, 20)
    assert flow.shrink(torch.rand(2, 480, 832, 3)).shape == (2, 3, 74, 128)


def test_jumping_square_is_less_consistent() -> None:
    steady, jumping = TemporalConsistency()(
        clips(drawn(STEADY), drawn([8, 40, 20, 44, 12, 36, 4, 30, 9]))
    )
    assert steady > -0.2
    assert jumping < steady - 0.5


def test_picture_that_falls_apart_cannot_hide_behind_the_occlusion_mask() -> None:
    noise = torch.rand(9, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    assert TemporalConsistency()(clips(noise)) < -10


def test_flickering_clip_pays_and_steady_motion_does_not() -> None:
    to_and_fro = 0.05 * torch.tensor([1.0, -1.0] * 5)[:9].view(-1, 1, 1, 1)
    steady, flickering = Flicker()(clips(drawn(STEADY), drawn(STEADY) + to_and_fro))
    assert steady > -0.2
    assert flickering.item() == pytest.approx(-10, abs=0.2)  # 0.05 to 0.05 is a jump of 0.1


def test_slow_fade_is_not_flicker() -> None:
    fade = torch.linspace(0.9, 0.5, 9).view(-1, 1, 1, 1).expand(9, 64, 64, 3)
    assert Flicker()(clips(fade)) > -1e-3


def test_frozen_clip_has_no_motion_and_faster_has_more_up_to_the_target() -> None:
    frozen, slow, fast = MotionAmount()(
        clips(drawn([8] * 9), drawn(range(8, 17)), drawn(range(8, 44, 4)))
    )
    assert frozen == 0
    assert 0 < slow < fast == MotionAmount().target


def test_motion_is_in_percent_of_the_diagonal_per_second() -> None:
    moving = torch.cat([texture(64, 64, 2.0 * t) for t in range(4)])  # [T, 1, 64, 64]
    clip = moving.movedim(1, -1).expand(-1, -1, -1, 3)
    expected = 100 * 2.0 * 16 / math.hypot(64, 64)
    assert MotionAmount(target=1000)(clips(clip)).item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_impossible_motion_target_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target of motion_amount"):
        MotionAmount(target)


def test_blurred_clip_is_less_sharp_and_contrast_does_not_count() -> None:
    sharp = drawn(STEADY)
    blurred = F.avg_pool2d(sharp.movedim(-1, 1), 5, 1, 2, count_include_pad=False).movedim(1, -1)
    faint = 0.3 + sharp / 2
    scores = Sharpness()(clips(sharp, blurred, faint))
    assert scores[1] < scores[0] / 2
    assert scores[2].item() == pytest.approx(scores[0].item(), rel=0.05)


def test_darkening_and_reddening_clips_drift() -> None:
    steady = drawn(STEADY)
    fade = torch.linspace(1, 0.6, 9).view(-1, 1, 1, 1)
    reddening = steady * torch.cat([torch.ones_like(fade), fade, fade], dim=-1)
    same, darker, redder = ColourDrift()(clips(steady, steady * fade, reddening, first=steady))
    assert same > -0.01
    assert darker < -1
    assert redder < -1


def test_drift_is_the_mean_distance_of_six_statistics_from_the_first_chunk() -> None:
    bright, dark = torch.full((3, 32, 32, 3), 0.8), torch.full((5, 32, 32, 3), 0.5)
    assert ColourDrift()(clips(dark, first=bright)).item() == pytest.approx(-100 * 0.3 / 6)
    assert ColourDrift()(clips(dark, first=dark)).item() == pytest.approx(0, abs=1e-4)


EDGES = {
    "one frame": torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0)),
    "two frames": torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0)),
    "identical frames": drawn([8, 8, 8, 8]),
    "constant": torch.full((5, 32, 32, 3), 0.5),
    "black": torch.zeros(5, 32, 32, 3),
    "tiny": torch.rand(5, 16, 16, 3, generator=torch.Generator().manual_seed(0)),
    "half precision": drawn(STEADY).to(torch.bfloat16),
    "wide": torch.rand(3, 24, 200, 3, generator=torch.Generator().manual_seed(0)),
}


@each_reward
@pytest.mark.parametrize("clip", EDGES.values(), ids=EDGES)
def test_edge_case_gives_a_finite_float(reward: Reward, clip: Tensor) -> None:
    scores = reward(clips(clip, clip))
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


@each_reward
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_nan_pixel_is_not_hidden(reward: Reward, frames: int) -> None:
    broken = drawn(STEADY[:frames])
    broken[-1, 30, 30, 1] = math.nan
    scores = reward(clips(drawn(STEADY[:frames]), broken))
    assert scores[0].isfinite()
    assert scores[1].isnan()


@each_reward
def test_score_does_not_depend_on_the_other_candidates(reward: Reward) -> None:
    generator = torch.Generator().manual_seed(0)
    candidates = [drawn(STEADY), torch.rand(9, 64, 64, 3, generator=generator), drawn([8] * 9)]
    together = reward(clips(*candidates))
    alone = [reward(clips(candidate))[0] for candidate in candidates]
    assert together.tolist() == [score.item() for score in alone]


@pytest.mark.parametrize("reward", [TemporalConsistency(), MotionAmount(1000.0)])
def test_long_clip_in_slices_equals_the_mean_over_its_pairs(reward: Reward) -> None:
    long = torch.rand(SLICE_FRAMES + 4, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    pairs = [reward(clips(long[t : t + 2])).item() for t in range(len(long) - 1)]
    assert reward(clips(long)).item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-3)


class Brightness:
    """Mean brightness."""

    name = "brightness"

    def __call__(self, clips: Clips) -> Tensor:
        return clips.frames.mean(dim=(1, 2, 3, 4))


def redness(clips: Clips) -> Tensor:
    return clips.frames[..., 0].mean(dim=(1, 2, 3))


PAIR = clips(drawn(STEADY), drawn(STEADY) / 2)


def footage(batch: Clips, cuts: tuple[int, ...] = ()) -> Footage:
    """The clips of a batch as a run has them: cut into chunks."""
    pieces = [list(map(Piece, torch.tensor_split(frames, cuts))) for frames in batch.frames]
    return Footage(pieces, list(batch.first), batch.prompt, batch.fps)


def test_mix_is_the_weighted_sum_and_keeps_the_parts_unweighted() -> None:
    mix = RewardMix(((2.0, Brightness()), (-0.5, redness)))
    bright, red = Brightness()(PAIR).double(), redness(PAIR).double()
    torch.testing.assert_close(mix(PAIR), 2 * bright - 0.5 * red)  # float64: scores must not tie
    parts = judge(mix, footage(PAIR), fatal=(Exception,))
    assert [(name, part.weight) for name, part in parts.items()] == [
        ("brightness", 2.0),
        ("redness", -0.5),
    ]
    torch.testing.assert_close(parts["redness"].values, red)


def test_nested_mix_is_flattened_and_its_weights_multiplied() -> None:
    inner = RewardMix(((3.0, Brightness()), (1.0, redness)))
    mix = RewardMix(((2.0, inner), (1.0, Brightness())))
    parts = judge(mix, footage(PAIR), fatal=(Exception,))
    assert [part.weight for part in parts.values()] == [6.0, 2.0, 1.0]
    assert list(parts) == ["brightness", "redness", "brightness_2"]
    torch.testing.assert_close(mix(PAIR), 2 * inner(PAIR) + Brightness()(PAIR).double())


def test_plain_function_is_a_reward() -> None:
    parts = judge(redness, footage(PAIR), fatal=(Exception,))
    assert parts["redness"].values.tolist() == redness(PAIR).double().tolist()


def test_reward_gets_the_frames_it_samples_and_no_others() -> None:
    class Sampler:
        name, needs = "sampler", Needs(fps=2.0)

        def __call__(self, clips: Clips) -> Tensor:
            self.got = clips.frames
            return clips.frames.mean(dim=(1, 2, 3, 4))

    batch = clips(drawn(range(21)), drawn(range(21)) / 2)
    for cuts in ((), (9,), (1, 5, 13)):
        reward = Sampler()
        judge(reward, footage(batch, cuts), fatal=(Exception,))
        assert torch.equal(reward.got, batch.frames[:, [0, 7, 13, 20]])


def test_nan_of_one_candidate_is_its_own() -> None:
    def undecided(clips: Clips) -> Tensor:
        return torch.tensor([math.nan, 1.0])

    parts = judge(RewardMix(((1.0, undecided), (1.0, redness))), footage(PAIR))
    assert parts["undecided"].values.isnan().tolist() == [True, False]
    assert parts["undecided"].error is None
    assert parts["redness"].values.isfinite().all()


def test_candidate_that_a_reward_fails_on_costs_no_other_its_number() -> None:
    def picky(clips: Clips) -> Tensor:
        if clips.frames.mean() < 0.9 * PAIR.frames[0].mean():
            raise RuntimeError("too dark for me")
        return redness(clips)

    part = judge(picky, footage(PAIR))["picky"]
    assert part.values.isnan().tolist() == [False, True]
    assert part.error == "RuntimeError: too dark for me"
    with pytest.raises(RuntimeError, match="too dark"):
        judge(picky, footage(PAIR), fatal=(Exception,))


@pytest.mark.parametrize(
    "answer", [1.0, torch.tensor(1.0), torch.ones(3), torch.ones(2, 1), torch.ones(2).int(), None]
)
def test_wrong_answer_is_refused_by_the_rewards_name(answer: object) -> None:
    def homemade(clips: Clips) -> object:
        return answer

    with pytest.raises(TypeError, match=r"reward 'homemade' returned .* shape \[2\]"):
        judge(homemade, footage(PAIR), fatal=(Exception,))
    with pytest.raises(TypeError, match=r"reward 'homemade' returned .* shape \[2\]"):
        RewardMix(((1.0, homemade),))(PAIR)


def test_mix_without_terms_or_with_an_endless_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="no terms"):
        RewardMix(())
    with pytest.raises(ValueError, match="weight of reward 'redness' is inf"):
        RewardMix(((math.inf, redness),))


def test_nameless_reward_is_refused() -> None:
    class Nameless:
        def __call__(self, clips: Clips) -> Tensor:
            return redness(clips)

    with pytest.raises(TypeError, match="has no name"):
        judge(Nameless(), footage(PAIR))


def test_tally_knows_mean_and_spread_and_skips_what_is_not_finite() -> None:
    values = torch.randn(50, dtype=torch.float64) * 7 + 100
    tally = Tally().add(values[:20].tolist()).add([math.nan, *values[20:].tolist()])
    expected = (values - values.mean()) / values.std(correction=0)
    found = torch.tensor([tally.standardise(value) for value in values.tolist()]).double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_one_value_or_equal_values_are_in_the_middle() -> None:
    assert Tally().add([0.3]).standardise(0.3) == 0
    assert Tally().add([0.1 + 0.2, 0.3]).standardise(0.3) == 0  # rounding is no spread


@pytest.mark.parametrize("reward", [TemporalConsistency(), MotionAmount(2.0)])
def test_a_clip_in_pieces_scores_as_in_one(reward: Reward) -> None:
    batch = clips(drawn(range(0, 40, 2)), drawn([8, 12, 9, 20] * 5))
    whole = reward(batch)
    for cuts in ((9,), (1, 9), (5, 6, 19)):
        [part] = judge(reward, footage(batch, cuts)).values()
        assert torch.allclose(part.values, whole.double(), atol=1e-4)


def test_neighbours_are_measured_once_however_many_clips_they_are_in() -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Change:
        name: str = "change"

        def of_footage(self, footage: Footage) -> Tensor:
            return footage.mean_of_pairs(change)

    def change(frames: Tensor) -> Tensor:
        asked.append(len(frames) - 1)
        return frames.diff(dim=0).abs().mean(dim=(1, 2, 3))

    first, then, other = (Piece(drawn(range(left, left + 12))) for left in (0, 12, 20))
    spans = [[first], [first, then], [first, other], [then]]
    found = [judge(Change(), Footage([span], [first.frames], "", 16.0)) for span in spans]
    assert asked == [11, 1, 11, 1, 11]
    for span, parts in zip(spans, found, strict=True):
        frames = torch.cat([piece.frames for piece in span])
        expected = frames.diff(dim=0).abs().mean(dim=(1, 2, 3)).mean()
        assert parts["change"].values.item() == pytest.approx(expected.item())


def test_frames_are_measured_once_however_many_clips_they_are_in() -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Drift:
        name: str = "drift"

        def of_footage(self, footage: Footage) -> Tensor:
            now, first = footage.marks(brightness), footage.first_marks(brightness)
            return now.mean(dim=(1, 2)) - first.mean(dim=(1, 2))

    def brightness(frames: Tensor) -> Tensor:
        asked.append(len(frames))
        return frames.mean(dim=(1, 2))

    first, then, other = (Piece(drawn(range(left, left + 12))) for left in (0, 12, 20))
    footage = Footage([[first, then], [first, other]], [first.frames] * 2, "", 16.0)
    (part,) = judge(Drift(), footage).values()
    assert asked == [12, 12, 12, 12]  # three pieces, and the videos' first chunk
    for value, last in zip(part.values, (then, other), strict=True):
        expected = torch.cat([first.frames, last.frames]).mean() - first.frames.mean()
        assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    judge(Drift(), Footage([[first, then]], [first.frames], "", 16.0))
    assert asked == [12] * 5
