"""The drawn clip nearest to a made one, and how far it is: PSNR and SSIM.

A caption leaves open where exactly the object starts, how fast it goes and how big it is. So the
truth that a made clip is compared with has the caption's words and, within what the world allows
(`clips.py`), the place, speed and size that the made clip itself shows. What is left is blur,
flicker, wrong colours, shapes and backgrounds, and paths that are not straight.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from . import clips, oracle

SPEEDS, SIZES = 9, 5  # tried, from the slowest to the fastest and the smallest to the largest
WINDOW, SIGMA = 11, 1.5  # pixels, of SSIM (Wang et al. 2004)
C1, C2 = 0.01**2, 0.03**2


def nearest(frames: Tensor, scene: clips.Scene) -> Tensor:
    """The drawn clip of the scene's words that is nearest to `frames` [T, 64, 64, 3]."""
    seen = oracle.track(frames)
    times = seen.present.nonzero()[:, 0]
    if not len(times):
        return clips.draw(scene, len(frames))
    way = torch.tensor(clips.MOTIONS[scene.motion])
    best, least = frames, math.inf
    speeds = torch.linspace(clips.SLOWEST, clips.FASTEST, SPEEDS).tolist()
    sizes = torch.linspace(clips.SMALLEST, clips.LARGEST, SIZES).tolist()
    for size in sizes:
        low = _lowered(replace(scene, size=size))
        for speed in speeds:
            back = seen.centre[times] - speed * times[:, None] * way  # where each says it began
            start = tuple(((_mean_on_the_torus(back) - low) % clips.SIDE).tolist())
            drawn = clips.draw(replace(scene, start=start, speed=speed, size=size), len(frames))
            error = float((drawn - frames).square().mean())
            if error < least:
                best, least = drawn, error
    return best


def psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of clips in 0..1."""
    return -10 * math.log10(max(1e-10, float((one - other).square().mean())))


def ssim(one: Tensor, other: Tensor) -> float:
    """Structural similarity of the grey pictures of clips [T, H, W, 3], mean over all frames."""
    x, y = (clip.mean(-1)[:, None] for clip in (one, other))  # (T, 1, H, W)
    axis = torch.arange(WINDOW) - WINDOW // 2
    weight = torch.exp(-axis.square() / (2 * SIGMA**2))
    kernel = torch.outer(weight, weight)[None, None] / weight.sum().square()

    def blur(picture: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(picture, kernel)

    mx, my = blur(x), blur(y)
    vx, vy = blur(x * x) - mx * mx, blur(y * y) - my * my
    both = blur(x * y) - mx * my
    top = (2 * mx * my + C1) * (2 * both + C2)
    return float((top / ((mx * mx + my * my + C1) * (vx + vy + C2))).mean())


def _lowered(scene: clips.Scene) -> Tensor:
    """How far the oracle sees the object's centre of area from where it is drawn: [2] pixels."""
    middle = (clips.SIDE / 2, clips.SIDE / 2)
    seen = oracle.track(clips.draw(replace(scene, start=middle), 1))
    return seen.centre[0] - clips.SIDE / 2


def _mean_on_the_torus(places: Tensor) -> Tensor:
    """[n, 2] -> [2]."""
    angle = places * 2 * math.pi / clips.SIDE
    return torch.atan2(angle.sin().mean(0), angle.cos().mean(0)) * clips.SIDE / (2 * math.pi)
