"""Single pictures of the clips' world, whole or damaged, and how far each word holds for them.

What the tiny CLIP learns from: pictures as the tiny model spoils them (half-formed outlines, blobs,
smears, faded or missing objects, mixed colours), each with a number from 0 to 1 for every colour,
shape and background. The numbers follow from how a picture was made, never from looking at it.
Knows the clips and the VAE; knows nothing of CLIP.
"""

import random
import re
from dataclasses import dataclass, field, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from stream_t1_core.wan_vae import WanVAE

from . import clips

VALUES = {
    "colour": tuple(clips.COLOURS),
    "shape": clips.SHAPES,
    "background": clips.BACKGROUNDS,
}  # what a single frame can show; motion it cannot
WORDS = {
    "colour": clips.COLOUR_WORDS,
    "shape": clips.SHAPE_WORDS,
    "background": clips.BACKGROUND_WORDS,
}
WHOLE = 0.35  # share of pictures without damage
DAMAGED = 0.17  # how often each damage happens to the others
MISSING = 0.1  # how often the object is not there at all
MOST_WOBBLE = 4.0  # pixels that an outline is moved by
MOST_SOFTNESS = 9.0  # pixels over which it fades
MOST_BLUR = 4.0  # standard deviation in pixels
MOST_GRAIN = 0.05
MOST_TINT = 0.06
LEAST_SIZE = 0.3  # of its own size
BLUR_REACH = 9  # pixels each way


@dataclass(frozen=True, eq=False)
class Damage:
    """What is wrong with each of N pictures: all [N], 0 for nothing."""

    reshape: Tensor = field(repr=False)  # share of another shape in the outline
    wobble: Tensor = field(repr=False)  # pixels that the outline is moved by
    softness: Tensor = field(repr=False)  # pixels by which its edge is wider
    shrink: Tensor = field(repr=False)  # part of its size lost
    fade: Tensor = field(repr=False)  # 1: the object is missing
    recolour: Tensor = field(repr=False)  # share of another colour in the object's
    haze: Tensor = field(repr=False)  # share of another background
    tint: Tensor = field(repr=False)  # of the background; standard deviation
    blur: Tensor = field(repr=False)  # of the whole picture; pixels
    grain: Tensor = field(repr=False)  # standard deviation of noise

    @classmethod
    def none(cls, count: int) -> "Damage":
        return cls(*(torch.zeros(count) for _ in fields(cls)))

    @classmethod
    def sample(cls, count: int, rng: torch.Generator) -> "Damage":
        """A share of the pictures whole, the others with one or more kinds of damage."""
        spoiled = torch.rand(count, generator=rng) >= WHOLE

        def some(most: float) -> Tensor:
            hit = spoiled & (torch.rand(count, generator=rng) < DAMAGED)
            return hit * most * torch.rand(count, generator=rng)

        missing = spoiled & (torch.rand(count, generator=rng) < MISSING)
        return cls(
            reshape=some(1.0),
            wobble=some(MOST_WOBBLE),
            softness=some(MOST_SOFTNESS),
            shrink=some(1 - LEAST_SIZE),
            fade=torch.where(missing, 1.0, some(1.0)),
            recolour=some(1.0),
            haze=some(1.0),
            tint=some(MOST_TINT),
            blur=some(MOST_BLUR),
            grain=some(MOST_GRAIN),
        )


@dataclass(frozen=True, eq=False)
class Meaning:
    """How far each colour, shape and background holds for N pictures or captions."""

    holds: dict[str, Tensor] = field(repr=False)  # attribute -> [N, values], 0..1

    def agreement(self, scenes: list[clips.Scene]) -> Tensor:
        """Mean over attributes of how far that of each scene holds: [N, M]."""
        columns = [
            self.holds[name][:, [values.index(getattr(scene, name)) for scene in scenes]]
            for name, values in VALUES.items()
        ]
        return torch.stack(columns).mean(0)

    def part(self, indices: Tensor) -> "Meaning":
        return Meaning({name: rows[indices] for name, rows in self.holds.items()})

    def and_also(self, more: "Meaning") -> "Meaning":
        """These N and then the others."""
        both = {name: torch.cat([rows, more.holds[name]]) for name, rows in self.holds.items()}
        return Meaning(both)


def said(scenes: list[clips.Scene]) -> Meaning:
    """What captions of these scenes say: 1 for the scene's values, 0 for all others."""
    indices = {
        name: torch.tensor([values.index(getattr(scene, name)) for scene in scenes])
        for name, values in VALUES.items()
    }
    return Meaning({n: F.one_hot(rows, len(VALUES[n])).float() for n, rows in indices.items()})


def paint(
    scenes: list[clips.Scene], damage: Damage, rng: torch.Generator
) -> tuple[Tensor, Meaning]:
    """One picture of each scene, the object at its start, with the damage asked for.

    Pixels [N, 64, 64, 3], 0..1, and what they mean.
    """
    shape = _Mix.of("shape", scenes, damage.reshape, rng)
    colour = _Mix.of("colour", scenes, damage.recolour, rng)
    background = _Mix.of("background", scenes, damage.haze, rng)
    cover = _cover(scenes, shape.weights(), damage, rng)  # [N, 64, 64, 1]
    plain = torch.stack([clips.background(name) for name in clips.BACKGROUNDS])
    behind = torch.einsum("nv,vhwc->nhwc", background.weights(), plain)
    behind = behind + _each(damage.tint) * torch.randn(len(scenes), 1, 1, 3, generator=rng)
    pixels = torch.lerp(behind, _patches(colour, rng), cover)
    pixels = _blur(pixels, damage.blur)
    pixels = pixels + _each(damage.grain) * torch.randn(pixels.shape, generator=rng)
    seen = (1 - damage.fade) * (_sizes(scenes, damage) / clips.SMALLEST).clamp(max=1)
    clear = (1 - damage.wobble / 7) * (1 - damage.softness / 14) * (1 - damage.blur / 6)
    meaning = {
        "colour": colour.weights() * seen[:, None],
        "shape": shape.weights() * (seen * clear)[:, None],
        "background": background.weights(),
    }
    return pixels.clamp(0, 1), Meaning(meaning)


@torch.no_grad()
def through_vae(vae: WanVAE, pixels: Tensor, noise: Tensor) -> Tensor:
    """Pictures [N, 64, 64, 3] encoded and decoded, with ``noise`` [N, 16, 1, 8, 8] on latents."""
    latents = vae.encode(pixels.movedim(-1, 1)[:, :, None] * 2 - 1)
    decoded = vae.decode(latents + noise)[:, :, 0]  # [N, 3, 64, 64]
    return (decoded.movedim(1, -1) / 2 + 0.5).clamp(0, 1)


def other_value(attribute: str, value: str, rng: random.Random) -> str:
    """Another colour, shape or background, drawn evenly."""
    return rng.choice([other for other in VALUES[attribute] if other != value])


def with_other_word(caption: str, attribute: str, old: str, new: str, rng: random.Random) -> str:
    """The caption with only the word for this attribute changed."""
    phrases = sorted(set(WORDS[attribute][old]), key=len, reverse=True)
    word = re.compile(rf"\b({'|'.join(phrases)})\b", re.IGNORECASE)
    changed, count = word.subn(rng.choice(WORDS[attribute][new]), caption, count=1)
    if not count:
        raise ValueError(f"caption {caption!r} has no word for the {attribute} {old!r}")
    return changed


@dataclass(frozen=True, eq=False)
class _Mix:
    """What a scene says and a share, up to a half, of something else: all [N]."""

    own: Tensor
    other: Tensor
    share: Tensor
    values: int

    @classmethod
    def of(
        cls, attribute: str, scenes: list[clips.Scene], share: Tensor, rng: torch.Generator
    ) -> "_Mix":
        values = VALUES[attribute]
        own = torch.tensor([values.index(getattr(scene, attribute)) for scene in scenes])
        step = torch.randint(1, len(values), (len(scenes),), generator=rng)
        return cls(own, (own + step) % len(values), share / 2, len(values))

    def weights(self) -> Tensor:
        """[N, values], rows of sum 1."""
        own, other = (F.one_hot(index, self.values).float() for index in (self.own, self.other))
        return torch.lerp(own, other, self.share[:, None])


def _cover(
    scenes: list[clips.Scene], shapes: Tensor, damage: Damage, rng: torch.Generator
) -> Tensor:
    """How much of each pixel the object covers: [N, 64, 64, 1]."""
    centre = torch.tensor([scene.start for scene in scenes], dtype=torch.float32)
    size = _sizes(scenes, damage)
    axis = torch.arange(clips.SIDE) + 0.5
    dx = _wrapped(axis - centre[:, :1])[:, None, :]
    dy = _wrapped(axis - centre[:, 1:])[:, :, None]
    outlines = [clips.outline_distance(s, dx, dy, size[:, None, None]) for s in clips.SHAPES]
    distance = torch.einsum("nv,vnhw->nhw", shapes, torch.stack(outlines))
    distance = distance + damage.wobble[:, None, None] * _smooth(rng, len(scenes), 8)
    edge = 1 + damage.softness[:, None, None]
    return ((0.5 - distance / edge).clamp(0, 1) * (1 - damage.fade[:, None, None]))[..., None]


def _patches(colour: _Mix, rng: torch.Generator) -> Tensor:
    """The object's colour at each pixel [N, 64, 64, 3]: its own, the other's in patches."""
    palette = torch.tensor(list(clips.COLOURS.values()))
    level = 2**0.5 * torch.erfinv(1 - 2 * colour.share)  # exceeded by this share of a normal
    patch = _smooth(rng, len(level), 5) > level[:, None, None]
    own, other = (palette[index][:, None, None] for index in (colour.own, colour.other))
    return torch.where(patch[..., None], other, own)


def _blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each picture by its own sigma (pixels); 0 leaves a picture as it is."""
    reach = torch.arange(-BLUR_REACH, BLUR_REACH + 1)
    kernel = torch.exp(-(reach**2) / (2 * sigma.clamp(min=1e-2)[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]  # [3N, 1, k]
    rows = pixels.movedim(-1, 1).flatten(0, 1)[None]  # [1, 3N, 64, 64]
    rows = F.pad(rows, (BLUR_REACH,) * 4, mode="replicate")
    rows = F.conv2d(rows, kernel[..., None], groups=kernel.shape[0])
    rows = F.conv2d(rows, kernel[:, :, None], groups=kernel.shape[0])
    return rows[0].unflatten(0, (-1, 3)).movedim(1, -1)


def _smooth(rng: torch.Generator, count: int, cells: int) -> Tensor:
    """Fields of smooth noise of about unit variance [N, 64, 64], ``cells`` cells across."""
    coarse = torch.randn(count, 1, cells, cells, generator=rng)
    fine = F.interpolate(coarse, (clips.SIDE, clips.SIDE), mode="bicubic", align_corners=False)
    return fine[:, 0] / fine[:, 0].std(dim=(1, 2), keepdim=True)


def _sizes(scenes: list[clips.Scene], damage: Damage) -> Tensor:
    """Pixels across, of each object: [N]."""
    return torch.tensor([scene.size for scene in scenes]) * (1 - damage.shrink)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _wrapped(delta: Tensor) -> Tensor:
    return (delta + clips.SIDE / 2) % clips.SIDE - clips.SIDE / 2
