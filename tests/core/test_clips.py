"""The drawn clips: deterministic, endless, and named truly by their captions."""

import random

import pytest
import torch

from training import clips


def test_same_seed_same_clip_and_caption():
    scene = clips.sample_scene(7)
    assert scene == clips.sample_scene(7)
    assert torch.equal(clips.draw(scene, 9), clips.draw(scene, 9))
    assert clips.prompt(scene, random.Random(3)) == clips.prompt(scene, random.Random(3))


def test_frames_are_rgb_within_0_and_1():
    frames = clips.draw(clips.sample_scene(1), 5)
    assert frames.shape == (5, 64, 64, 3)
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() and frames.max() <= 1


def test_object_keeps_its_area_for_ever():
    """On the torus nothing leaves the picture, not even after 30 seconds."""
    for shape in clips.SHAPES:
        scene = clips.Scene("red", shape, "up and right", "dark", (3.0, 60.0), 1.1, 20.0)
        frames = clips.draw(scene, 481)
        area = (frames - clips.background("dark")).abs().sum((1, 2, 3))
        assert (area / area.mean() - 1).abs().max() < 0.05


def test_object_moves_where_its_motion_says():
    scene = clips.Scene("blue", "circle", "left", "light", (50.0, 20.0), 1.0, 20.0)
    frames = clips.draw(scene, 11)
    assert torch.allclose(frames[0].roll(-10, dims=1), frames[10], atol=1e-4)


def test_captions_name_all_four_properties():
    for index in range(200):
        scene = clips.sample_scene(clips.training_seed(index))
        words = clips.prompt(scene, random.Random(index)).lower()
        assert any(w in words for w in clips.COLOUR_WORDS[scene.colour])
        assert any(w in words for w in clips.SHAPE_WORDS[scene.shape])
        assert any(w in words for w in clips.MOTION_WORDS[scene.motion])
        assert any(w in words for w in clips.BACKGROUND_WORDS[scene.background])


def test_training_and_evaluation_seeds_never_meet():
    assert clips.training_seed(clips.EVALUATION_SEEDS - 1) < clips.evaluation_seed(0)
    with pytest.raises(ValueError, match="training clip"):
        clips.training_seed(clips.EVALUATION_SEEDS)


def test_unknown_colour_is_refused_by_name():
    with pytest.raises(ValueError, match="colour 'pink'"):
        clips.Scene("pink", "circle", "left", "dark", (0.0, 0.0), 1.0, 20.0)
