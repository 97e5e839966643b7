"""The oracle against clips whose truth is known, right ones and deliberately wrong ones."""

import itertools
from dataclasses import replace

import pytest
import torch

from training import clips, oracle

SCENE = clips.Scene("red", "circle", "left", "dark", (40.0, 20.0), 0.9, 21.0)


def _verdict(frames, scene=SCENE):
    return oracle.judge(oracle.track(frames), scene)


def _blurred(frames):
    """Softer than the tiny VAE makes them: a 3x3 mean, twice, and a little noise."""
    x = frames.permute(0, 3, 1, 2)
    for _ in range(2):
        x = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1,) * 4, "circular"), 3, 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + 0.02 * noise).clamp(0, 1).permute(0, 2, 3, 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These tensors are small: threads only wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _every_scene():
    everything = itertools.product(clips.COLOURS, clips.SHAPES, clips.MOTIONS, clips.BACKGROUNDS)
    for index, (colour, shape, motion, ground) in enumerate(everything):
        sample = clips.sample_scene(clips.evaluation_seed(index), clips.ANYWHERE)
        yield replace(sample, colour=colour, shape=shape, motion=motion, background=ground)


def test_drawn_clips_of_all_combinations_are_right():
    right = [_verdict(clips.draw(scene, 9), scene).all_right for scene in _every_scene()]
    assert len(right) == 432
    assert sum(right) / len(right) >= 0.97


def test_blurred_and_noisy_clips_are_right():
    scenes = list(_every_scene())[::5]
    right = [_verdict(_blurred(clips.draw(scene, 9)), scene).all_right for scene in scenes]
    assert sum(right) / len(right) >= 0.97


@pytest.mark.parametrize("other", [c for c in clips.COLOURS if c != "red"])
def test_wrong_colour_is_seen(other):
    verdict = _verdict(clips.draw(replace(SCENE, colour=other), 17))
    assert not verdict.colour and verdict.shape and verdict.motion


@pytest.mark.parametrize("other", ["square", "triangle", "cross"])
def test_wrong_shape_is_seen(other):
    verdict = _verdict(clips.draw(replace(SCENE, shape=other), 17))
    assert not verdict.shape and verdict.colour and verdict.motion


@pytest.mark.parametrize("other", [m for m in clips.MOTIONS if m != "left"])
def test_wrong_direction_is_seen(other):
    verdict = _verdict(clips.draw(replace(SCENE, motion=other), 17))
    assert not verdict.motion and verdict.colour and verdict.shape


def test_wrong_background_is_seen():
    assert not _verdict(clips.draw(replace(SCENE, background="light"), 17)).background


def test_frozen_object_does_not_move():
    frames = clips.draw(SCENE, 1).expand(33, -1, -1, -1)
    verdict = _verdict(frames)
    assert not verdict.motion and verdict.speed < 0.01 and verdict.colour


def test_vanishing_object_does_not_survive():
    frames = clips.draw(SCENE, 49)
    frames[24:] = clips.background("dark")
    seen = oracle.track(frames)
    assert not oracle.judge(seen, SCENE).survives
    assert [v.survives for v in oracle.judge_seconds(seen, SCENE)] == [True, False, False]


def test_jumping_object_is_not_straight():
    frames = clips.draw(SCENE, 33)
    frames[16:] = frames[16:].roll(20, dims=1)
    verdict = _verdict(frames)
    assert not verdict.straight
    assert verdict.position_error > 3


def test_straight_motion_has_no_position_error_across_the_edge():
    assert _verdict(clips.draw(SCENE, 161)).position_error < 0.2


def test_flicker_is_measured_in_grey_levels():
    steady = clips.draw(SCENE, 17)
    flashing = steady.clone()
    flashing[::2] += 10 / 255
    pulsing = steady.clone()
    pulsing[::2] *= 0.8
    assert _verdict(steady).flicker < 0.5
    assert _verdict(flashing).flicker == pytest.approx(10, abs=1)
    assert _verdict(pulsing).flicker > 10


def test_two_objects_are_not_one():
    frames = clips.draw(SCENE, 17)
    frames = torch.maximum(frames, frames.roll((32, 32), dims=(1, 2)))
    assert not _verdict(frames).shape


def test_grey_noise_shows_nothing():
    frames = torch.rand(17, 64, 64, 1, generator=torch.Generator().manual_seed(1)).expand(
        -1, -1, -1, 3
    )
    verdict = _verdict(frames)
    assert not (verdict.colour or verdict.shape or verdict.motion or verdict.survives)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[T, 64, 64, 3\]"):
        oracle.track(torch.zeros(3, 32, 32, 3))
