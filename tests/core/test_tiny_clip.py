"""The shipped tiny CLIP: it loads like any other, and sees what the tiny world's captions say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stream_t1_core.rewards.base import Clips
from stream_t1_core.rewards.clip import ClipScore
from training import clips

pytest.importorskip("transformers", reason="learned rewards need transformers")
pytest.importorskip("tokenizers", reason="learned rewards need tokenizers")
pytest.importorskip("safetensors", reason="hub folders hold safetensors")

FOLDER = Path(__file__).resolve().parents[2] / "tiny_model" / "clip_tiny"
FRAMES = 3
SCENES = [clips.sample_scene(clips.evaluation_seed(index)) for index in range(12)]


@pytest.fixture(scope="module")
def reward() -> ClipScore:
    return ClipScore.from_folder(FOLDER)


def caption(scene: clips.Scene) -> str:
    return (
        f"a {scene.colour} {scene.shape} moving {scene.motion} on a {scene.background} background"
    )


def next_value(scene: clips.Scene, attribute: str) -> clips.Scene:
    """The scene with the next colour, shape or background of the palette."""
    table = {"colour": clips.COLOURS, "shape": clips.SHAPES, "background": clips.BACKGROUNDS}
    values = list(table[attribute])
    place = values.index(getattr(scene, attribute)) + 1
    return replace(scene, **{attribute: values[place % len(values)]})


def score(reward: ClipScore, frames: torch.Tensor, text: str) -> float:
    batch = frames[None]
    return float(reward(Clips(batch, batch, text, clips.FPS)))


def test_files_are_small_and_fit_beside_the_tiny_model():
    sizes = {path: path.stat().st_size for path in FOLDER.parent.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.parent == FOLDER) <= 2_500_000
    assert sum(sizes.values()) <= 20_000_000


@pytest.mark.parametrize(("attribute", "gap"), [("colour", 15), ("shape", 10), ("background", 15)])
def test_one_wrong_word_costs_points(reward: ClipScore, attribute: str, gap: float):
    for scene in SCENES:
        frames = clips.draw(scene, FRAMES)
        wrong = caption(next_value(scene, attribute))
        assert score(reward, frames, caption(scene)) > score(reward, frames, wrong) + gap, scene


def test_an_empty_background_scores_far_below_the_object(reward: ClipScore):
    for scene in SCENES:
        empty = clips.background(scene.background).expand(FRAMES, -1, -1, -1)
        there = score(reward, clips.draw(scene, FRAMES), caption(scene))
        assert score(reward, empty, caption(scene)) < there - 30, scene


def test_motion_and_unknown_words_hardly_matter(reward: ClipScore):
    for scene in SCENES:
        frames, text = clips.draw(scene, FRAMES), caption(scene)
        plain = score(reward, frames, text)
        assert score(reward, frames, f"Breathtaking 8k: {text}!") == pytest.approx(plain, abs=3)
        other = caption(replace(scene, motion="up" if scene.motion != "up" else "left"))
        assert score(reward, frames, other) == pytest.approx(plain, abs=3)
