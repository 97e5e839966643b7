"""A GPU that is not there: tensors sent to it are marked, and it is as strict as one.

Numbers stay on the CPU, so results can be held against a run without it bit for bit. What is made
of marked tensors is marked; marked and unmarked ones do not mix, but as single numbers in
arithmetic, and as indices on the CPU; numpy takes none. It sees what passes through PyTorch's
Python functions.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DEVICE, CPU = torch.device("cuda"), torch.device("cpu")
GETTERS = {
    Tensor.device.__get__: lambda marked: DEVICE if marked else CPU,
    Tensor.is_cpu.__get__: lambda marked: not marked,
    Tensor.is_cuda.__get__: lambda marked: marked,
}
INDEXES = (Tensor.__getitem__, Tensor.__setitem__)
JOINS = (torch.stack, torch.cat)  # do not take single numbers of another device either
# the CPU reads a number before it goes on
WAITS = (Tensor.cpu, Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__)


class SecondDevice(TorchFunctionMode):
    """``sent``: how many numbers were moved to it, tensor by tensor; ``waits``: names of what read
    from it, for which the CPU waits."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []
        self.waits: list[str] = []

    def __enter__(self) -> "SecondDevice":
        self._synchronize = torch.cuda.synchronize
        torch.cuda.synchronize = lambda device: self.waits.append("synchronize")
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        torch.cuda.synchronize = self._synchronize
        super().__exit__(*raised)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = [*_tensors((args, kwargs))]
        if func in GETTERS:
            return GETTERS[func](_marked(args[0]))
        if func is Tensor.numpy and _marked(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in WAITS and _marked(args[0]):
            self.waits.append(func.__name__)
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(func, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = CPU
        there = [x for x in given if _marked(x)]
        here = [x for x in given if not _marked(x) and (x.dim() > 0 or func in JOINS)]
        mixes = func is Tensor.copy_ or func in INDEXES and _marked(args[0])
        if there and here and not mixes:
            raise RuntimeError(f"{func}: tensors on cuda:0 and on the CPU")
        made = func(*args, **kwargs)
        if wanted is not None:
            there = torch.device(wanted).type == DEVICE.type
        elif func is Tensor.copy_:
            there = _marked(args[0])
        return _mark(made) if there else made

    def _moved(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        named = [x for x in (*rest, *kwargs.values()) if isinstance(x, torch.device | str)]
        other = [x for x in rest if isinstance(x, Tensor)]
        marked = _marked(other[0]) if other else _marked(tensor)
        if func is Tensor.cpu:
            marked = False
        elif named:
            marked = torch.device(named[0]).type == DEVICE.type
        rest = [x for x in rest if not isinstance(x, torch.device | str)]
        kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
        made = tensor.to(*rest, **kwargs) if rest or kwargs else tensor
        if marked != _marked(tensor):
            made = made.clone()  # inside a mode's handler the mode is off: nothing is marked by it
        if marked and not _marked(tensor):
            self.sent.append(tensor.numel())
        if _marked(tensor) and not marked and func is Tensor.to:
            self.waits.append("to")
        return _mark(made) if marked else made


def placed_there(module: nn.Module) -> nn.Module:
    """The module, its weights marked."""
    _mark([*module.parameters(), *module.buffers()])
    return module


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for item in found:
            yield from _tensors(item)
    elif isinstance(found, Mapping):
        yield from _tensors([*found.values()])


def _marked(tensor: Tensor) -> bool:
    return hasattr(tensor, "on_second_device")


def _mark(made: Any) -> Any:
    for tensor in _tensors(made):
        tensor.on_second_device = True
    return made
