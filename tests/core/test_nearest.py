"""The drawn clip nearest to a made one: found where the truth is known."""

from dataclasses import replace

import pytest
import torch

from training import clips
from training.nearest import nearest, psnr, ssim

SCENE = clips.Scene("red", "triangle", "up and right", "striped", (31.5, 32.2), 0.9, 21.0)


def test_a_drawn_clip_is_found_again_wherever_it_is() -> None:
    """The caption's own scene starts elsewhere, is slower and smaller."""
    shown = clips.draw(replace(SCENE, start=(10.0, 60.0), speed=1.0, size=22.0), 33)
    found = nearest(shown, SCENE)
    assert psnr(found, shown) > 35 and ssim(found, shown) > 0.98
    assert psnr(clips.draw(SCENE, 33), shown) < 20


def test_what_is_wrong_by_the_words_costs() -> None:
    shown = clips.draw(SCENE, 33)
    wrong = clips.draw(replace(SCENE, colour="blue", background="dark"), 33)
    assert psnr(nearest(wrong, SCENE), wrong) < psnr(nearest(shown, SCENE), shown) - 10


def test_an_empty_clip_is_compared_with_the_scene_itself() -> None:
    assert torch.equal(nearest(torch.zeros(5, 64, 64, 3), SCENE), clips.draw(SCENE, 5))


def test_similarity_falls_with_noise() -> None:
    shown = clips.draw(SCENE, 3)
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    assert ssim(shown, shown) == pytest.approx(1)
    assert ssim(shown, shown + 0.05 * noise) > ssim(shown, shown + 0.2 * noise)
    assert psnr(shown, shown + 0.1) == pytest.approx(20, abs=1e-3)
