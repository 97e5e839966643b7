"""What a clip shows, measured from its pixels alone by classical image analysis. Nothing is
learned.

The world is known (`clips.py`): one coloured thing on a grey background, on a torus. Backgrounds
have no colour, so the chroma of a pixel says how much of it the object covers; the rest is
geometry. Made for drawn clips and for a model's blurry ones. Knows nothing of models and never
sees how a clip was made.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import clips

COLOUR_NAMES = tuple(clips.COLOURS)
FIRST_CHUNK = 9  # pixel frames of the first chunk: 3 latent frames

FAINTEST = 0.2  # chroma below this is no object (the palette's colours have 0.45 to 0.67)
AREA_LIMITS = (100.0, 900.0)  # pixels; drawn objects cover 180 to 470
LEAST_MATCH = 0.55  # overlap with the best template below which it is no shape at all
SLOWEST_MOTION = 0.25  # pixels per frame; slower counts as standing still
SHARE = 0.75  # of the frames that must agree
MOST_ERROR = 3.0  # pixels from a straight line at which motion is no longer called straight


@dataclass(frozen=True, eq=False)
class Track:
    """Per-frame measurements, T frames; where `present` is false the others mean nothing."""

    present: Tensor = field(repr=False)  # [T] bool: one object of sensible size and form
    colour: Tensor = field(repr=False)  # [T] index into COLOUR_NAMES
    shape: Tensor = field(repr=False)  # [T] index into clips.SHAPES
    background: Tensor = field(repr=False)  # [T] index into clips.BACKGROUNDS
    centre: Tensor = field(repr=False)  # [T, 2] x, y of the centre of area, 0..64 pixels
    area: Tensor = field(repr=False)  # [T] pixels
    flicker: Tensor = field(repr=False)  # [T] grey levels (of 255) changed since the frame before

    def part(self, first: int, last: int) -> "Track":
        """Frames first..last-1."""
        return Track(*(getattr(self, name)[first:last] for name in self.__dataclass_fields__))

    @property
    def length(self) -> int:
        return self.present.shape[0]


@dataclass(frozen=True)
class Verdict:
    """How a clip, or a part of one, keeps to its scene.

    `position_error`: root mean square distance to the best straight line, pixels on the torus;
    infinite when the object is seen in fewer than two frames. `flicker`: mean change per frame of
    what should not change, grey levels of 255. `speed`: pixels per frame. `survives`: still there
    in the last second.
    """

    colour: bool
    shape: bool
    motion: bool
    background: bool
    survives: bool
    straight: bool
    position_error: float
    speed: float
    flicker: float

    @property
    def all_right(self) -> bool:
        named = self.colour and self.shape and self.motion and self.background
        return named and self.survives and self.straight


def track(frames: Tensor) -> Track:
    """Measure a clip [T, 64, 64, 3], 0..1."""
    if frames.ndim != 4 or frames.shape[1:] != (clips.SIDE, clips.SIDE, 3):
        raise ValueError(f"frames {tuple(frames.shape)}: the oracle reads [T, 64, 64, 3]")
    frames = frames.float()
    grey = frames.mean(-1, keepdim=True)
    chroma = frames - grey
    hue, strength = _object_colour(chroma)
    cover = _cover(chroma, hue, strength)  # [T, H, W]
    area = cover.sum((1, 2))
    centre = _centre(cover)
    shape, match = _shape(cover, area, centre)
    low, high = AREA_LIMITS
    present = (strength > FAINTEST) & (area > low) & (area < high) & (match > LEAST_MATCH)
    return Track(
        present=present,
        colour=(hue @ _palette().T).argmax(1),
        shape=shape,
        background=_background(grey[..., 0], cover),
        centre=centre,
        area=area,
        flicker=_flicker(frames, cover),
    )


def judge(seen: Track, scene: clips.Scene) -> Verdict:
    """Compare measurements with what the scene says."""
    shown = seen.present
    colour = seen.colour == COLOUR_NAMES.index(scene.colour)
    shape = seen.shape == clips.SHAPES.index(scene.shape)
    background = seen.background == clips.BACKGROUNDS.index(scene.background)
    velocity, error = _straight_line(seen)
    speed = float(velocity.norm())
    return Verdict(
        colour=_share(shown & colour) >= SHARE,
        shape=_share(shown & shape) >= SHARE,
        motion=speed > SLOWEST_MOTION and _nearest_compass_point(velocity, scene.motion),
        background=_share(background) >= SHARE,
        survives=_share(shown[-clips.FPS :]) >= SHARE,
        straight=error < MOST_ERROR,
        position_error=error,
        speed=speed,
        flicker=float(seen.flicker[1:].mean()) if seen.length > 1 else 0.0,
    )


def judge_seconds(seen: Track, scene: clips.Scene) -> list[Verdict]:
    """One verdict per whole second (16 frames)."""
    starts = range(0, seen.length - clips.FPS + 1, clips.FPS)
    return [judge(seen.part(start, start + clips.FPS), scene) for start in starts]


def _palette() -> Tensor:
    """Unit chroma of each colour: [6, 3]."""
    rgb = torch.tensor(list(clips.COLOURS.values()))
    return torch.nn.functional.normalize(rgb - rgb.mean(1, keepdim=True), dim=1)


def _object_colour(chroma: Tensor) -> tuple[Tensor, Tensor]:
    """Direction [T, 3] and strength [T] of the object's chroma: the most coloured pixels'."""
    flat = chroma.flatten(1, 2)
    size = flat.norm(dim=-1)
    core = size.topk(80, dim=1).indices
    picked = flat.gather(1, core[..., None].expand(-1, -1, 3))
    mean = picked.mean(1)
    return torch.nn.functional.normalize(mean, dim=1), mean.norm(dim=1)


def _cover(chroma: Tensor, hue: Tensor, strength: Tensor) -> Tensor:
    """How much of each pixel the object covers [T, H, W], 0..1; faint chroma is cut off."""
    along = (chroma * hue[:, None, None]).sum(-1) / strength.clamp(min=1e-6)[:, None, None]
    return ((along - 0.2) / 0.6).clamp(0, 1)


def _centre(cover: Tensor) -> Tensor:
    """Centre of area on the torus [T, 2]: the mean as an angle around each axis."""
    turn = 2 * torch.pi * (torch.arange(clips.SIDE) + 0.5) / clips.SIDE
    profiles = torch.stack([cover.sum(1), cover.sum(2)], dim=1)  # (T, 2, 64)
    angle = torch.atan2((profiles * turn.sin()).sum(-1), (profiles * turn.cos()).sum(-1))
    return angle / (2 * torch.pi) * clips.SIDE % clips.SIDE


def _shape(cover: Tensor, area: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Best template [T] and its overlap [T]: each shape drawn with the object's area and centre."""
    overlaps = []
    for shape in clips.SHAPES:
        unit_area, rise = _template(shape)
        size = (area / unit_area).sqrt().clamp(1, clips.SIDE)[:, None, None]
        dx = _wrapped(_axis() - centre[:, :1])[:, None, :]
        dy = _wrapped(_axis() - centre[:, 1:])[:, :, None] + rise * size
        drawn = (0.5 - clips.outline_distance(shape, dx, dy, size)).clamp(0, 1)
        both = torch.minimum(drawn, cover).sum((1, 2))
        overlaps.append(both / torch.maximum(drawn, cover).sum((1, 2)).clamp(min=1e-6))
    match, shape = torch.stack(overlaps, dim=1).max(1)
    return shape, match


def _template(shape: str) -> tuple[float, float]:
    """Area of a shape of size 1, and how far its centre of area lies below its centre."""
    axis = (_axis() - clips.SIDE / 2).double()
    inside = clips.outline_distance(shape, axis[None, :], axis[:, None], torch.tensor(32.0)) < 0
    below = float((inside * axis[:, None]).sum() / inside.sum())
    return float(inside.sum()) / 32.0**2, below / 32.0


def _background(grey: Tensor, cover: Tensor) -> Tensor:
    """Index into BACKGROUNDS [T]: the nearest by the mean of each row's uncovered pixels."""
    free = (cover < 0.02).float()
    rows = (grey * free).sum(2) / free.sum(2).clamp(min=1)  # (T, H)
    known = torch.stack([clips.background(name)[:, 0, 0] for name in clips.BACKGROUNDS])
    level = (rows[:, None] - known).abs() * (free.sum(2) > 0)[:, None]
    return level.mean(-1).argmin(1)


def _flicker(frames: Tensor, cover: Tensor) -> Tensor:
    """Grey levels changed since the frame before [T]: of the background or the object's colour.

    The larger of the two. Pixels the object touches in either frame do not count as background.
    """
    if frames.shape[0] < 2:
        return torch.zeros(frames.shape[0])
    near = torch.nn.functional.max_pool2d(cover[:, None], (5, 1), 1, (2, 0))
    near = torch.nn.functional.max_pool2d(near, (1, 5), 1, (0, 2))[:, 0] > 0.02
    free = ~(near[1:] | near[:-1])
    change = (frames[1:] - frames[:-1]).abs().mean(-1)
    behind = (change * free).sum((1, 2)) / free.sum((1, 2)).clamp(min=1)
    weight = (cover > 0.9)[..., None]
    colour = (frames * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)  # (T, 3)
    inside = (colour[1:] - colour[:-1]).abs().mean(1)
    return 255 * torch.cat([torch.zeros(1), torch.maximum(behind, inside)])


def _straight_line(seen: Track) -> tuple[Tensor, float]:
    """Least-squares velocity [2] in pixels per frame, and the distance to that line (rms, pixels).

    The path is unwrapped step by step; a frame without the object is left out.
    """
    times = seen.present.nonzero()[:, 0]
    if len(times) < 2:
        return torch.zeros(2), float("inf")
    places = seen.centre[times].double()
    steps = _wrapped(places[1:] - places[:-1])
    path = torch.cat([places[:1], places[0] + steps.cumsum(0)])
    time = times.double()[:, None]
    middle = time.mean()
    spread = (time - middle).square().sum()
    velocity = ((time - middle) * (path - path.mean(0))).sum(0) / spread
    miss = path - path.mean(0) - (time - middle) * velocity
    return velocity, float(_wrapped(miss).square().sum(1).mean().sqrt())


def _nearest_compass_point(velocity: Tensor, motion: str) -> bool:
    """Whether the named direction is the nearest of the eight compass points."""
    named = torch.tensor(clips.MOTIONS[motion], dtype=torch.float64)
    cosine = float(velocity.double() @ named / velocity.norm().clamp(min=1e-9))
    return cosine > 0.92388  # 22.5 degrees


def _share(flags: Tensor) -> float:
    return float(flags.float().mean())


def _axis() -> Tensor:
    return torch.arange(clips.SIDE) + 0.5


def _wrapped(delta: Tensor) -> Tensor:
    return (delta + clips.SIDE / 2) % clips.SIDE - clips.SIDE / 2
