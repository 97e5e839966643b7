"""Files that are whole or not there: written beside their place, synced, then moved into it.

Knows JSON, safetensors and a lock held by one process; not what they are about. A process killed
at any moment leaves the old file, the new one, or a ``.part`` beside it that ``sweep`` removes.
What is read may be damaged or made by somebody else: a ``ValueError`` says what is wrong with it.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

if os.name == "nt":
    import msvcrt
else:
    import fcntl

PART = ".part"
MOST_JSON_BYTES = 64 * 1024 * 1024
LOCKED_BYTE = 1 << 30  # Windows: far behind what the file holds, which stays readable
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, [json.dumps(content, allow_nan=False, indent=1).encode()])


def read_json(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return parse_json(file.read(MOST_JSON_BYTES + 1), path)


def parse_json(text: bytes | str, path: Path) -> dict[str, Any]:
    """An object of plain values; ``path`` is where it came from."""
    if len(text) > MOST_JSON_BYTES:
        raise ValueError(f"{path} is damaged (more than {MOST_JSON_BYTES} bytes of JSON)")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (a {type(found).__name__}, not an object)")
    return found


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file. Written from here, not by the library, which hides the disk's errors."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, end = [], 0
    for name in sorted(tensors, key=lambda name: -tensors[name].element_size()):  # keeps alignment
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        parts.append(tensor)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    _write(path, [len(text).to_bytes(8, "little"), text, *map(_bytes, parts)])


def read_header(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Metadata of a safetensors file, and the shapes of its tensors by name."""
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        return file.metadata() or {}, shapes


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, in memory: the file is not kept open."""
    with _opened(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}


def digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """SHA-256 over names, shapes and bytes of ``tensors`` and over ``about`` as JSON."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(json.dumps([name, DTYPES[tensor.dtype], *tensor.shape]).encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def make_folder(path: Path) -> None:
    """Make it, and what is above it, last through a crash."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written in ``folder``."""
    for part in folder.glob(f"*{PART}"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` for this process; BlockingIOError names the one that does. Death releases."""
    with open(path, "a+b") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            owner = file.read(20).decode(errors="replace")
            raise BlockingIOError(error.errno, f"process {owner or 'unknown'}") from error
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        try:
            yield
        finally:
            _unlock(file)


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(file: IO[bytes]) -> None:
    if os.name == "nt":
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_UN)


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    part = path.with_name(path.name + PART)
    try:
        with open(part, "wb") as file:
            for some in parts:
                file.write(some)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # why it could not be written matters more
            part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a name in ``folder`` last through a power cut; Windows has no way to ask for it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives cannot
            raise
    finally:
        os.close(descriptor)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error})") from error
