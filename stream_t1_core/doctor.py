"""Look at this machine: does what ships work, which models are there, what is missing and where.

``python -m stream_t1_core.doctor --models ComfyUI/models`` prints it as plain text for a bug
report; exit code 0 when what ships with the pack works, else 1. Models from elsewhere are optional:
whether they are there does not count. It looks at names of files, versions and memory; of the
models it loads only the small one that ships, to make one chunk. The home folder is written ``~``.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from . import footprint
from .causal_wan import CausalWan
from .config import Memory, Schedule, Search, StreamConfig
from .generate import Tools, generate
from .rewards.catalogue import (
    LONGLIVE,
    REWARDS,
    REWARDS_FOLDER,
    KnownFile,
    KnownReward,
    known_reward,
)
from .rewards.clip import ClipScore
from .scoring import Critic
from .streaming_vae import StreamingDecoder
from .tiny import SCORING_FILE, TEXT_FILE, TRANSFORMER_FILE, VAE_FILE, load_tiny

TINY_FILES = (TRANSFORMER_FILE, VAE_FILE, SCORING_FILE, TEXT_FILE)
PACK = Path(__file__).resolve().parents[1]
PYTHON = (3, 10)
PACKAGES = {"torch": (2, 1), "safetensors": (0, 4), "Pillow": (10, 1)}  # what ships needs these
# ComfyUI looks for one kind of model in several folders.
FOLDERS = {
    REWARDS_FOLDER: (REWARDS_FOLDER,),
    "diffusion_models": ("diffusion_models", "unet"),
    "loras": ("loras",),
    "text_encoders": ("text_encoders", "clip"),
    "vae": ("vae",),
}
TINY_CLIP = "clip_tiny"  # inside the tiny model's folder
OK, ABSENT, WRONG = "ok", "--", "!!"  # as it should be; not there and optional; to be put right
GIB = 2**30
NO_FOLDER = "(no folder given: use --models)"

Places = Mapping[str, Sequence[Path]]  # folders to look in, by kind


@dataclass(frozen=True)
class Finding:
    """One line, and lines that explain it."""

    state: str
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """All findings, under headings."""

    sections: Mapping[str, Sequence[Finding]]
    healthy: bool  # what ships works

    def __str__(self) -> str:
        does = "works" if self.healthy else "DOES NOT WORK: see the lines with !!"
        lines = [f"Stream-T1 {_pack_version()} doctor: what ships with the pack {does}"]
        for heading, findings in self.sections.items():
            lines += ["", heading]
            for finding in findings:
                lines.append(f"  {finding.state:<2}  {finding.text}")
                lines += [f"        {detail}" for detail in finding.details]
        return _without_home("\n".join(lines))


@dataclass(frozen=True)
class Plan:
    """A run whose memory is asked for; ``rewards`` are bytes of weights by name."""

    config: StreamConfig
    width: int = 832
    height: int = 480
    rewards: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 16 or self.width % 16 or self.height % 16:
            raise ValueError(
                f"video of {self.width} x {self.height} pixels: both must be multiples of 16"
            )


def examine(places: Places, plan: Plan, versions: Mapping[str, str] | None = None) -> Diagnosis:
    """Look everywhere. ``versions`` are those of the host, to be told too."""
    packages = [_python(), *(check_package(name, least) for name, least in PACKAGES.items())]
    ships = [_tiny_files(PACK / "tiny_model"), _one_chunk(PACK / "tiny_model")]
    hosts = [Finding(OK, f"{name} {version}") for name, version in (versions or {}).items()]
    sections = {
        "Versions": [*packages, check_transformers(_version("transformers")), *hosts],
        "Devices": list(_devices()),
        "What ships with the pack": ships,
        "Rewards with weights (optional)": _rewards(places),
        "LongLive (optional)": [_file(known, places) for known in LONGLIVE],
        f"Memory for LongLive at {plan.width} x {plan.height} pixels": _memory(plan),
    }
    return Diagnosis(sections, all(f.state == OK for f in [*packages, *ships]))


def places_below(models: Sequence[Path]) -> dict[str, list[Path]]:
    """Where ComfyUI keeps each kind below its models folder, or several of them."""
    return {
        kind: [folder / name for folder in models for name in names]
        for kind, names in FOLDERS.items()
    }


def _python() -> Finding:
    text = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON:
        return Finding(WRONG, f"{text}: Python 3.10 or newer is needed")
    return Finding(OK, text)


def check_package(name: str, least: tuple[int, int]) -> Finding:
    wanted = f"{least[0]}.{least[1]} or newer is needed"
    version = _version(name)
    if version is None:
        return Finding(WRONG, f"{name} is not installed; {wanted}: pip install {name}")
    if not at_least(version, least):
        return Finding(WRONG, f"{name} {version} is too old; {wanted}: pip install -U {name}")
    return Finding(OK, f"{name} {version}")


def check_transformers(version: str | None) -> Finding:
    """Optional, as the rewards that need it are."""
    users = [reward for reward in REWARDS if reward.transformers]
    if version is not None:
        users = [reward for reward in users if not at_least(version, reward.transformers)]
    if not users:
        return Finding(OK, f"transformers {version}")
    state = f"{version} is too old" if version else "is not installed"
    wanted = ".".join(map(str, max(reward.transformers for reward in users)))
    names = ", ".join(reward.name for reward in users)
    how = f'{wanted} or newer is needed: pip install -U "transformers>={wanted}"'
    return Finding(ABSENT, f"transformers {state} for {names}", (how,))


def _version(name: str) -> str | None:
    if name == "torch":
        return torch.__version__  # tells the build too
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def at_least(version: str, least: tuple[int, int]) -> bool:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= least


def _devices() -> Iterator[Finding]:
    total, free = _main_memory()
    yield Finding(OK, f"cpu: {os.cpu_count()} cores, {_of(free, total)}")
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        yield Finding(OK, f"cuda:{i}: {torch.cuda.get_device_name(i)}, {_of(free, total)}")
    if torch.backends.mps.is_available():
        yield Finding(OK, f"mps: shares main memory, {_gib(torch.mps.recommended_max_memory())}")


def _main_memory() -> tuple[int | None, int | None]:
    """Total and free bytes, where this system tells."""
    if importlib.util.find_spec("psutil"):
        import psutil

        memory = psutil.virtual_memory()
        return memory.total, memory.available
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None, None
    page = os.sysconf("SC_PAGE_SIZE")
    free = os.sysconf("SC_AVPHYS_PAGES") * page if "SC_AVPHYS_PAGES" in names else None
    return os.sysconf("SC_PHYS_PAGES") * page, free


def _of(free: int | None, total: int | None) -> str:
    known = [_gib(total)] if total is not None else ["memory unknown"]
    return ", ".join([*known, *([f"{_gib(free)} free"] if free is not None else [])])


def _tiny_files(folder: Path) -> Finding:
    wanted = [folder / name for name in TINY_FILES]
    missing = [path for path in wanted if not path.is_file()]
    clip = folder / TINY_CLIP
    missing += [clip / f.names[0] for f in known_reward("clip_score").files if not f.find(clip)]
    if missing:
        looked = tuple(f"looked at {path}" for path in dict.fromkeys(missing))
        return Finding(WRONG, "tiny model: files missing; restore them from the repository", looked)
    return Finding(OK, f"tiny model: all files in {folder}")


def _one_chunk(folder: Path) -> Finding:
    """Make a chunk of 32 x 32 pixels with the tiny model on the CPU, scored by the tiny CLIP."""
    prompt = "a red circle moving left"
    config = StreamConfig(
        latent_frames=3, schedule=Schedule.evenly(1), search=Search(1, 2, strict=True)
    )
    started = time.perf_counter()
    try:
        tiny = load_tiny(folder)
        model = CausalWan(tiny.backbone)
        short = ClipScore.from_folder(folder / TINY_CLIP)
        critic = Critic(StreamingDecoder(tiny.vae), short, prompt=prompt)
        with torch.inference_mode():
            text = model.encode_text(tiny.encode_prompt(prompt))
            video = generate(Tools(model, text, critic), config, latent_hw=(4, 4))
    except Exception as error:  # whatever is wrong here is what the report is for
        return Finding(WRONG, f"tiny model: no video: {type(error).__name__}: {error}")
    if not torch.isfinite(video.latent).all():
        return Finding(WRONG, "tiny model: its video is not finite; try another build of torch")
    seconds = time.perf_counter() - started
    return Finding(
        OK, f"tiny model: {len(video.frames)} frames made, decoded and scored in {seconds:.1f} s"
    )


def _rewards(places: Places) -> list[Finding]:
    roots = places.get(REWARDS_FOLDER, ())
    looked = Finding("", "looked for below", tuple(map(str, roots)) or (NO_FOLDER,))
    return [looked, *(look_for_reward(reward, roots) for reward in REWARDS)]


def look_for_reward(reward: KnownReward, roots: Sequence[Path]) -> Finding:
    folder = reward.folder_below(roots)
    lacking = [
        f"{folder or reward.folder}/{file.names[0]}  from {file.source}"
        for file in reward.files
        if not file.comfyui_has_it and not (folder and file.find(folder))
    ]
    lacking += [
        f"all that {other.name} needs"
        for other in REWARDS
        if other.id in reward.also and look_for_reward(other, roots).state != OK
    ]
    details = tuple(dict.fromkeys(lacking))  # a name may stand for several files
    if folder is None:
        text = f"{reward.name}: not there ({_download(reward.file_bytes)}); missing"
        return Finding(ABSENT, text, details)
    if details:
        return Finding(WRONG, f"{reward.name}: incomplete; missing", details)
    return Finding(OK, f"{reward.name}: all files in {folder}")


def _file(known: KnownFile, places: Places) -> Finding:
    roots = places.get(known.kind, ())
    found = known.find(roots)
    if found:
        return Finding(OK, f"{known.what}, by its name: {found}")
    return Finding(
        ABSENT,
        f"{known.what}: not there ({_download(known.file_bytes)})",
        (
            f"no file named {' or '.join(known.names)}  from {known.source}",
            *(f"looked in {root}" for root in roots or (NO_FOLDER,)),
        ),
    )


def _memory(plan: Plan) -> list[Finding]:
    latent_hw = plan.height // footprint.DOWNSCALE, plan.width // footprint.DOWNSCALE
    parts = footprint.footprint(footprint.LONGLIVE, plan.config, latent_hw)
    parts |= {f"reward {name}": size for name, size in plan.rewards.items()}
    search, memory = plan.config.plan, plan.config.memory
    sinks = memory.max_sink_frames if memory.routing else memory.sink_frames
    second = round(plan.config.fps) * plan.width * plan.height * 3 * 4
    return [
        Finding(
            "",
            f"beam width {search.beam_width}, branch factor {search.branch_factor}, window "
            f"{memory.window_frames} latent frames, up to {sinks} of sinks, bfloat16; upper bounds "
            "without the text encoder",
        ),
        *(Finding("", f"{_gib(size):>10}  {name}") for name, size in parts.items()),
        Finding(
            "", f"{_gib(sum(parts.values())):>10}  all at once; ComfyUI swaps what does not fit"
        ),
        Finding("", f"{_gib(second):>10}  of main memory for each second of video and path"),
    ]


def _download(size: int) -> str:
    return f"{size / 1e9:.3g} GB to download" if size >= 1e8 else f"{size / 1e6:.3g} MB to download"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def _models_around() -> list[Path]:
    """The models folder of the ComfyUI whose custom_nodes this pack lies in."""
    around = PACK.parents[1] / "models"
    return [around] if around.is_dir() else []


def _pack_version() -> str:
    project = PACK / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    found = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    return found[1] if found else "(unknown version)"


def _without_home(text: str) -> str:
    """A bug report need not tell the user's name."""
    home = Path.home()
    return text.replace(str(home), "~") if len(home.parts) > 1 else text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stream_t1_core.doctor", description=__doc__)
    add = parser.add_argument
    add(
        "--models",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="ComfyUI's models folder, or another; default: the one around the pack",
    )
    add("--width", type=int, default=Plan.width, help="pixels, for the estimate of memory")
    add("--height", type=int, default=Plan.height, help="pixels")
    add("--beam-width", type=int, default=Search.beam_width)
    add("--branch-factor", type=int, default=Search.branch_factor)
    add("--max-sink-frames", type=int, default=Memory.max_sink_frames)
    add("--reward", action="append", default=[], choices=[reward.id for reward in REWARDS])
    chosen = parser.parse_args(arguments)
    config = StreamConfig(
        search=Search(chosen.beam_width, chosen.branch_factor),
        memory=Memory(max_sink_frames=chosen.max_sink_frames),
    )
    weights = {r.name: 2 * r.parameters for r in REWARDS if r.id in chosen.reward}
    plan = Plan(config, chosen.width, chosen.height, weights)
    diagnosis = examine(places_below(chosen.models or _models_around()), plan)
    print(diagnosis)
    return 0 if diagnosis.healthy else 1


if __name__ == "__main__":
    sys.exit(main())
