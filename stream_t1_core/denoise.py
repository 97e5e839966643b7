"""Few-step denoising: predict the clean chunk, noise it again to the next level, repeat.

Source: Wan 2.1's flow-matching schedule with timestep shift; LongLive's re-noising sampler, which
never takes an Euler step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .config import TIMESTEP_COUNT, Schedule

FlowFunction = Callable[[Tensor, Tensor], Tensor]  # (noisy [B, C, F, H, W], timesteps [F]) -> flow


def shifted_sigmas(shift: float) -> Tensor:
    """Wan's 1000 noise levels, falling from 1: ``shift*u / (1 + (shift-1)*u)``; float32."""
    u = torch.linspace(1, 0, TIMESTEP_COUNT + 1)[:-1]
    return shift * u / (1 + (shift - 1) * u)


def sigma_of(timestep: Tensor, shift: float) -> Tensor:
    """Noise level of any timestep [n]: that of the nearest entry of the schedule, first on ties."""
    sigmas = shifted_sigmas(shift)
    nearest = (sigmas * TIMESTEP_COUNT - timestep[:, None]).abs().argmin(dim=1)
    return sigmas[nearest]


def warped_timesteps(schedule: Schedule) -> Tensor:
    """The schedule's steps after the shift: 1000, 750, 500, 250 become 1000, 937.5, 833.3, 625."""
    timesteps = shifted_sigmas(schedule.shift) * TIMESTEP_COUNT
    return torch.stack([timesteps[TIMESTEP_COUNT - step] for step in schedule.steps])


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """``(1 - sigma) * clean + sigma * noise``."""
    return (1 - sigma) * clean + sigma * noise


def clean_estimate(noisy: Tensor, flow: Tensor, sigma: Tensor) -> Tensor:
    """``noisy - sigma * flow``, computed in float64 and cast back."""
    return (noisy.double() - sigma.double() * flow.double()).to(noisy.dtype)


def denoise(
    flow: FlowFunction,
    start: Tensor,
    renoise: Tensor,
    schedule: Schedule,
    before_call: Callable[[], None] = lambda: None,
    steps: range | None = None,
) -> Tensor:
    """Noise [B, C, F, H, W] -> clean latents of the same shape.

    ``flow`` is one denoiser call; ``renoise`` [B, steps - 1, C, F, H, W];
    ``before_call`` runs before every denoiser call and may raise to cancel. ``steps``, some of
    the schedule's, is for a part of the way: to a clean estimate, or on from it, as ``start``.
    """
    frames, clean = start.shape[2], start
    timesteps = warped_timesteps(schedule)
    sigmas = sigma_of(timesteps, schedule.shift)
    for step in range(len(timesteps)) if steps is None else steps:
        noisy = add_noise(clean, renoise[:, step - 1], sigmas[step]) if step else start
        before_call()
        prediction = flow(noisy, timesteps[step].expand(frames)).to(noisy.device)
        clean = clean_estimate(noisy, prediction, sigmas[step])
    return clean
