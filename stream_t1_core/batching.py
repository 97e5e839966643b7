"""As many candidates at a time as memory allows: all together, else in halves, down to one."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def in_batches(items: list[T], run: Callable[[list[T]], list[T]]) -> list[T]:
    """``run`` on all items at once; where that is out of memory, on halves, one after the other."""
    try:
        return run(items)
    except torch.cuda.OutOfMemoryError as error:
        if len(items) == 1:
            raise torch.cuda.OutOfMemoryError(
                f"out of memory with one candidate at a time ({error}). Use a smaller video, a "
                "smaller window or fewer sinks (Memory Sink), or the host's low-memory mode"
            ) from error
    # outside the handler, so that what the failed attempt held is free
    half = len(items) // 2
    return in_batches(items[:half], run) + in_batches(items[half:], run)
