"""Add rewards up, and take any reward's answer apart into named, checked numbers.

It knows names, weights and the shape an answer must have. It does not know what a reward measures,
and does not judge its values: what is not finite goes through, for the search to reject by name.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .base import Clips, Footage, Reward, needs_of

Errors = tuple[type[Exception], ...]


@dataclass(frozen=True)
class RewardMix:
    """Sum of weight * reward. Rewards keep their own units; the weights make them comparable.

    A mix inside a mix is flattened, its weights multiplied. Rewards of one name are told apart by a
    suffix: ``sharpness``, ``sharpness_2``.
    """

    terms: tuple[tuple[float, Reward], ...]
    name: str = "mix"

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("RewardMix has no terms: give at least one (weight, reward) pair")
        for weight, reward in self.terms:
            if not math.isfinite(weight):
                raise ValueError(
                    f"weight of reward '{name_of(reward)}' is {weight}: give a finite number"
                )

    def __call__(self, clips: Clips) -> Tensor:
        count = len(clips.frames)
        terms = [w * _checked(r(clips), name_of(r), count) for w, r in self.flat_terms()]
        return torch.stack(terms).sum(dim=0)

    def flat_terms(self) -> list[tuple[float, Reward]]:
        """(weight, reward) of every reward that is not itself a mix, in order."""
        flat = []
        for weight, reward in self.terms:
            inner = reward.flat_terms() if isinstance(reward, RewardMix) else [(1.0, reward)]
            flat += [(weight * inner_weight, part) for inner_weight, part in inner]
        return flat


@dataclass(frozen=True, eq=False)
class Part:
    """The answer of one reward in a mix; ``values`` are NaN where it has none."""

    weight: float
    values: Tensor = field(repr=False)  # [B] float64, CPU
    error: str | None = None  # the first of its errors


def named_terms(reward: Reward) -> dict[str, tuple[float, Reward]]:
    """Weight and reward of every single reward in ``reward``, by a name of its own."""
    terms = reward.flat_terms() if isinstance(reward, RewardMix) else [(1.0, reward)]
    return dict(zip(_distinct(name_of(part) for _, part in terms), terms, strict=True))


def prompt_readers(reward: Reward) -> list[str]:
    """Names of the single rewards that read the prompt."""
    return [name for name, (_, part) in named_terms(reward).items() if needs_of(part).prompt]


def judge(reward: Reward, footage: Footage, fatal: Errors = ()) -> dict[str, Part]:
    """Every single reward's answer by name; each is handed the frames that it needs.

    A reward that raises is asked for one candidate at a time, so that one bad clip costs no other
    its number. Errors of the ``fatal`` kinds go through instead.
    """
    return {
        name: _part(weight, part, name, footage, fatal)
        for name, (weight, part) in named_terms(reward).items()
    }


def _part(weight: float, reward: Reward, name: str, footage: Footage, fatal: Errors) -> Part:
    try:
        return Part(weight, _checked(_answer(reward, footage), name, len(footage.pieces)))
    except fatal:
        raise
    except Exception as error:  # rewards are other people's code: theirs must not end our run
        if len(footage.pieces) == 1:
            nothing = torch.full((1,), math.nan, dtype=torch.float64)
            return Part(weight, nothing, f"{type(error).__name__}: {error}")
    # outside the handler, so that what the failed attempt held is free
    parts = [_part(weight, reward, name, one, fatal) for one in footage.alone()]
    errors = [part.error for part in parts if part.error]
    return Part(weight, torch.cat([part.values for part in parts]), errors[0] if errors else None)


def name_of(reward: Reward) -> str:
    """``name``, or a plain function's ``__name__``."""
    name = getattr(reward, "name", None) or getattr(reward, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"reward {reward!r} has no name: give it a `name` attribute (a string)")
    return name


def _answer(reward: Reward, footage: Footage) -> Tensor:
    if hasattr(reward, "of_footage"):  # a FootageReward
        return reward.of_footage(footage)
    return reward(footage.clips(needs_of(reward)))


def _checked(values: Tensor, name: str, count: int) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(
            f"reward '{name}' returned {type(values).__name__}: "
            f"return a float tensor of shape [{count}], one number per clip"
        )
    if values.shape != (count,) or not values.is_floating_point():
        raise TypeError(
            f"reward '{name}' returned {values.dtype} of shape {list(values.shape)}: "
            f"return a float tensor of shape [{count}], one number per clip"
        )
    return values.detach().cpu().double()


def _distinct(names: Iterable[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.append(candidate)
    return taken
