"""Clips drawn by a program: one coloured shape moving in a straight line over a plain background.

The tiny model's whole world: 64x64 RGB at 16 frames a second, and a caption for each clip. The
world is a torus, so an object that leaves on the left comes back on the right and a clip of any
length keeps its object. Everything follows from a seed. Knows nothing of models, latents or files.
"""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

SIDE = 64  # pixels
FPS = 16

COLOURS = {
    "red": (0.88, 0.12, 0.12),
    "yellow": (0.95, 0.82, 0.08),
    "green": (0.12, 0.66, 0.20),
    "cyan": (0.10, 0.78, 0.84),
    "blue": (0.14, 0.28, 0.90),
    "purple": (0.62, 0.16, 0.80),
}
SHAPES = ("circle", "square", "triangle", "cross")
DIAGONAL = math.sqrt(0.5)
MOTIONS = {  # unit vectors (x to the right, y downwards)
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up and right": (DIAGONAL, -DIAGONAL),
    "down and left": (-DIAGONAL, DIAGONAL),
}
BACKGROUNDS = ("dark", "light", "striped")
SLOWEST, FASTEST = 0.8, 1.0  # pixels per frame
START_SPREAD = 1.0  # pixels; four steps from pure noise cannot choose among many places
ANYWHERE = SIDE / 2
SMALLEST, LARGEST = 19.0, 23.0  # pixels across

EVALUATION_SEEDS = 1_000_000_000  # seeds from here on are for evaluation, those below for training


@dataclass(frozen=True)
class Scene:
    """All there is to know of a clip. `start` is the centre (x, y) in pixels at frame 0."""

    colour: str
    shape: str
    motion: str
    background: str
    start: tuple[float, float]
    speed: float
    size: float

    def __post_init__(self) -> None:
        allowed = {
            "colour": COLOURS,
            "shape": SHAPES,
            "motion": MOTIONS,
            "background": BACKGROUNDS,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r}: must be one of {list(values)}")


def training_seed(index: int) -> int:
    """Seed of training clip `index`; never one that `evaluation_seed` gives."""
    if not 0 <= index < EVALUATION_SEEDS:
        raise ValueError(f"training clip {index}: must be in 0..{EVALUATION_SEEDS - 1}")
    return index


def evaluation_seed(index: int) -> int:
    """Seed of evaluation clip `index`; never one that `training_seed` gives."""
    if index < 0:
        raise ValueError(f"evaluation clip {index}: must not be negative")
    return EVALUATION_SEEDS + index


def sample_scene(seed: int, spread: float = START_SPREAD) -> Scene:
    """A scene drawn evenly; it starts within `spread` pixels of the middle, each way."""
    rng = random.Random(f"scene {seed}")
    return Scene(
        colour=rng.choice(list(COLOURS)),
        shape=rng.choice(SHAPES),
        motion=rng.choice(list(MOTIONS)),
        background=rng.choice(BACKGROUNDS),
        start=tuple(SIDE / 2 + rng.uniform(-spread, spread) for _ in range(2)),
        speed=rng.uniform(SLOWEST, FASTEST),
        size=rng.uniform(SMALLEST, LARGEST),
    )


def prototypes() -> list[Scene]:
    """Every combination of words once, all from the middle, of middle speed and size."""
    middle, speed, size = SIDE / 2, (SLOWEST + FASTEST) / 2, (SMALLEST + LARGEST) / 2
    return [
        Scene(colour, shape, motion, background, (middle, middle), speed, size)
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
        for background in BACKGROUNDS
    ]


def centres(scene: Scene, frames: int) -> Tensor:
    """The object's centre (x, y) in each frame, wrapped to 0..SIDE: [T, 2] float64, pixels."""
    start = torch.tensor(scene.start, dtype=torch.float64)
    velocity = scene.speed * torch.tensor(MOTIONS[scene.motion], dtype=torch.float64)
    time = torch.arange(frames, dtype=torch.float64)[:, None]
    return (start + velocity * time) % SIDE


def draw(scene: Scene, frames: int) -> Tensor:
    """The clip, antialiased: [T, 64, 64, 3] float32, 0..1."""
    if frames < 1:
        raise ValueError(f"{frames} frames: a clip has at least one")
    centre = centres(scene, frames).float()
    axis = torch.arange(SIDE) + 0.5
    dx = _wrapped(axis[None, :] - centre[:, :1])[:, None, :]  # [T, 1, W]
    dy = _wrapped(axis[None, :] - centre[:, 1:])[:, :, None]  # [T, H, 1]
    distance = outline_distance(scene.shape, dx, dy, scene.size)  # [T, H, W]
    cover = (0.5 - distance).clamp(0, 1)[..., None]
    colour = torch.tensor(COLOURS[scene.colour])
    return cover * colour + (1 - cover) * background(scene.background)


def background(name: str) -> Tensor:
    """The picture behind the object [64, 64, 3]: grey, so that colour is the object's alone."""
    if name == "dark":
        return torch.full((SIDE, SIDE, 3), 0.08)
    if name == "light":
        return torch.full((SIDE, SIDE, 3), 0.90)
    stripe = torch.arange(SIDE) // 8 % 2  # horizontal bars, 8 pixels each
    return (0.38 + 0.16 * stripe)[:, None, None].expand(SIDE, SIDE, 3).clone()


def _wrapped(delta: Tensor) -> Tensor:
    return (delta + SIDE / 2) % SIDE - SIDE / 2


def outline_distance(shape: str, dx: Tensor, dy: Tensor, size: float | Tensor) -> Tensor:
    """Signed distance to a shape's outline in pixels, negative inside; dx, dy from its centre."""
    half = size / 2
    if shape == "circle":
        return (dx.square() + dy.square()).sqrt() - half
    if shape == "square":
        return torch.maximum(dx.abs(), dy.abs()) - 0.9 * half
    if shape == "triangle":  # points up; its box is about the circle's
        slope = torch.maximum(dx.abs() * 0.87 - (dy + half) * 0.5, dy - 0.8 * half)
        return slope - 0.05 * half
    arm = size / 6
    upright = torch.maximum(dx.abs() - arm, dy.abs() - half)
    level = torch.maximum(dx.abs() - half, dy.abs() - arm)
    return torch.minimum(upright, level)


SHAPE_WORDS = {
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "cross", "plus sign"),
}
COLOUR_WORDS = {
    "red": ("red",),
    "yellow": ("yellow",),
    "green": ("green",),
    "cyan": ("cyan", "cyan", "turquoise"),
    "blue": ("blue",),
    "purple": ("purple", "purple", "violet"),
}
MOTION_WORDS = {
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
    "up and right": ("up and right", "up and to the right", "diagonally up and right"),
    "down and left": ("down and left", "down and to the left", "diagonally down and left"),
}
BACKGROUND_WORDS = {
    "dark": ("dark", "dark", "black"),
    "light": ("light", "light", "white"),
    "striped": ("striped", "striped", "grey striped"),
}
SIZE_WORDS = {"small": ("small", "little"), "big": ("big", "large")}
PACE_WORDS = {"slow": ("slowly",), "fast": ("quickly", "fast")}
_VERBS = (
    "moving",
    "moving",
    "sliding",
    "drifting",
    "gliding",
    "moves",
    "slides",
    "drifts",
    "floats",
)
_FREE_WORDS = (
    "",
    "",
    "",
    "",
    "shiny",
    "bright",
    "simple",
    "lonely",
    "flat",
    "soft",
    "perfect",
    "nice",
)
_OPENINGS = ("", "", "", "a video of", "an animation of", "we see", "a clip showing")
_ENDINGS = ("", "", "", "", "smooth animation", "high quality", "static camera", "minimal style")


def prompt(scene: Scene, rng: random.Random) -> str:
    """A caption of the scene: its four words always, the rest as a person might put it."""
    colour = rng.choice(COLOUR_WORDS[scene.colour])
    thing = _present(_size_word(scene, rng), rng.choice(_FREE_WORDS), colour)
    thing = f"{rng.choice(('a', 'a', 'one', 'the'))} {thing} {rng.choice(SHAPE_WORDS[scene.shape])}"
    pace = _pace_word(scene, rng)
    way = _present(rng.choice(_VERBS), pace, rng.choice(MOTION_WORDS[scene.motion]))
    place = f"{rng.choice(BACKGROUND_WORDS[scene.background])} background"
    where = f"{rng.choice(('on', 'over', 'across', 'in front of'))} a {place}"
    text = _present(rng.choice(_OPENINGS), thing, way, where)
    if rng.random() < 0.1:
        text = _present(f"{where},", thing, way)
    ending = rng.choice(_ENDINGS)
    text = f"{text}, {ending}" if ending else text
    text = text[0].upper() + text[1:] if rng.random() < 0.4 else text
    return text + "." if rng.random() < 0.3 else text


def _present(*words: str) -> str:
    return " ".join(word for word in words if word)


def _size_word(scene: Scene, rng: random.Random) -> str:
    if rng.random() < 0.6:
        return ""
    third = (LARGEST - SMALLEST) / 3
    if scene.size < SMALLEST + third:
        return rng.choice(SIZE_WORDS["small"])
    return rng.choice(SIZE_WORDS["big"]) if scene.size > LARGEST - third else ""


def _pace_word(scene: Scene, rng: random.Random) -> str:
    if rng.random() < 0.6:
        return ""
    third = (FASTEST - SLOWEST) / 3
    if scene.speed < SLOWEST + third:
        return rng.choice(PACE_WORDS["slow"])
    return rng.choice(PACE_WORDS["fast"]) if scene.speed > FASTEST - third else ""
