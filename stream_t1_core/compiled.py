"""Functions run as they are or through torch.compile; where that fails, as they are, loudly.

Knows nothing of models. A stream's batches change in size, so the first axis of every tensor is
told to be dynamic: one compilation for a single row, and one for any more of them.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Function = Callable[..., Any]


class Runner:
    """Calls functions whose tensors have the batch, or 1, as their first axis.

    ``options`` are torch.compile's arguments; None: nothing is compiled. ``switch`` is what a user
    would turn off, for the warning.
    """

    def __init__(
        self, options: Mapping[str, Any] | None = None, switch: str = "torch.compile"
    ) -> None:
        self.options = options
        self.switch = switch
        self.compiled: dict[Function, Function] = {}

    def __call__(self, function: Function, *args: Any) -> Any:
        """``function(*args)``, once more if compiling it failed."""
        if self.options is None:
            return function(*args)
        from torch._dynamo import maybe_mark_dynamic  # takes seconds; for those who compile
        from torch._dynamo.exc import TorchDynamoException

        for tensor in args:
            if isinstance(tensor, Tensor):
                maybe_mark_dynamic(tensor, 0)
        try:
            if function not in self.compiled:
                self.compiled[function] = self._compile(function, TorchDynamoException)
            return self.compiled[function](*args)
        except TorchDynamoException as error:
            self.options = None
            reason = str(error).strip().partition("\n\n")[0]  # hints for developers follow
            log.warning(
                "Stream-T1: %s: compiling failed, the run goes on uncompiled (%s: %s)",
                self.switch,
                type(error).__name__,
                " ".join(reason.split()),
            )
        return function(*args)

    def _compile(self, function: Function, failed: type[RuntimeError]) -> Function:
        try:
            return torch.compile(function, **self.options)
        except RuntimeError as error:  # not on this Python, or not with these options
            raise failed(str(error)) from error
