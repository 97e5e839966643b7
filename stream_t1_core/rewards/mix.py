"""Add rewards up, and take any reward's answer apart into named, checked numbers.

It knows names, weights and the shape an answer must have. It does not know what a reward measures,
and does not judge its values: NaN goes through, for the search to reject by name.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clips, Reward


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
        return evaluate(self, clips)[0]

    def parts(self, clips: Clips) -> dict[str, Tensor]:
        """The answer [B] of each reward, before its weight, by name."""
        rewards = [reward for _, reward in self.flat_terms()]
        return {
            name: _checked(reward, name, clips)
            for name, reward in zip(_distinct(map(name_of, rewards)), rewards, strict=True)
        }

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum [B] of what ``parts`` returned."""
        weights = [weight for weight, _ in self.flat_terms()]
        weighted = [weight * part for weight, part in zip(weights, parts.values(), strict=True)]
        return torch.stack(weighted).sum(dim=0)

    def flat_terms(self) -> list[tuple[float, Reward]]:
        """(weight, reward) of every reward that is not itself a mix, in order."""
        flat = []
        for weight, reward in self.terms:
            inner = reward.flat_terms() if isinstance(reward, RewardMix) else [(1.0, reward)]
            flat += [(weight * inner_weight, part) for inner_weight, part in inner]
        return flat


def evaluate(reward: Reward, clips: Clips) -> tuple[Tensor, dict[str, Tensor]]:
    """Total [B] and parts by name, float64 on the CPU; each reward is called once."""
    if isinstance(reward, RewardMix):
        parts = reward.parts(clips)
        return reward.total(parts), parts
    name = name_of(reward)
    total = _checked(reward, name, clips)
    return total, {name: total}


def name_of(reward: Reward) -> str:
    """``name``, or a plain function's ``__name__``."""
    name = getattr(reward, "name", None) or getattr(reward, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"reward {reward!r} has no name: give it a `name` attribute (a string)")
    return name


def _checked(reward: Reward, name: str, clips: Clips) -> Tensor:
    values = reward(clips)
    count = clips.frames.shape[0]
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
