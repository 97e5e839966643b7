"""Where reels lie: folders below ComfyUI's output folder, by names that cannot lead elsewhere."""

import hashlib
import unicodedata
from pathlib import Path

import folder_paths

PLACE = ("stream_t1", "reels")  # below the output folder
MOST_BYTES = 100  # of a name
PUNCTUATION = " ._-"
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{p}{n}" for p in ("COM", "LPT") for n in range(10))}


def folder_of(name: str) -> Path:
    """The reel's folder, there or not; ValueError where the name is not one."""
    problem = _problem(name)
    root = Path(folder_paths.get_output_directory()).joinpath(*PLACE)
    if problem is None and (root / name).resolve().parent != root.resolve():
        problem = f"leads out of {root}"
    if problem:
        raise ValueError(
            f"Reel: name is {name!r}, which {problem}. Letters, digits, spaces and . _ - are "
            f"allowed, at most {MOST_BYTES} bytes, no folders; for example my_reel"
        )
    return root / name


def state_of(folder: Path) -> str:
    """Another text whenever a take or a chunk in the folder is another."""
    state = hashlib.sha256()
    for path in sorted(
        [*folder.glob("take_*/take.json"), *folder.glob("take_*/chunk_*.safetensors")]
    ):
        about = path.stat()
        state.update(f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _problem(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if not all(letter.isalnum() or letter in PUNCTUATION for letter in name):
        return "has other characters"
    if len(name.encode()) > MOST_BYTES:
        return "is too long"
    if name[0] in ". " or name[-1] in ". ":
        return "begins or ends with a dot or a space"
    if unicodedata.normalize("NFKC", name).split(".")[0].strip().upper() in DEVICES:
        return "is a device on Windows"
    return None
