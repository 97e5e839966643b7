"""Kill ComfyUI in the middle of a run, many times: does its reel give the same video in the end?

Boots a real server, queues the quickstart with a Reel, and kills the server's process (SIGKILL: no
handler runs, nothing is flushed) at a random moment: while chunks are made again from the reel, in
a denoiser call, in a context pass, in the write of a chunk. Then the next server, the same prompt.
After the last kill a run goes to its end, and is compared with one that nobody stopped: latent,
pictures, report (seconds apart), and in the reel every candidate's latent and the survivors' noise
must be equal bit for bit. What was written once must not be made or written again.

Run ``python -m benchmarks.kill --comfyui PATH`` with ComfyUI's interpreter; it prints a line a kill
and writes ``benchmarks/results/kill.json``. It knows prompts, files and processes, and nothing of
the pack's inside. Seeded, but a moment is as exact as the machine is quiet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file

from devtools.client import Prompt, run_prompt
from devtools.server import PACK_ROOT, ComfyServer, start_server

SIDE = 64  # pixels
STEPS = 2
TRIED, BEAMS = 4, 2  # candidates a chunk and survivors
CALLS = TRIED * STEPS + BEAMS  # denoiser calls a chunk, as the progress bar counts them
REEL, WHOLE = "killed", "whole"  # reels, and folders of what comes out
PHASES = ("replay", "denoise", "context pass", "write")
SHORT = {"context pass": 0.02, "write": 0.002}  # phases that are over after so many seconds
PRUNER, BUDGET, SAMPLER, REPORT = "13", "11", "14", "17"  # nodes of the quickstart
MOST_WAIT = 60.0  # seconds for a write that must come


@dataclass
class Moment:
    """When to kill, and what was seen on the way there. Callable for ``on_message``.

    At the first progress of ``call`` or more, ``wait`` seconds later; with ``part``, so long after
    this file appeared, in which the next chunk is being written.
    """

    server: ComfyServer
    call: float
    wait: float
    part: Path | None = None
    calls: list[int] = field(default_factory=list)  # progress, as far as it went
    times: list[float] = field(default_factory=list)

    def __call__(self, message: dict) -> None:
        if message["type"] != "progress" or message["data"]["node"] != SAMPLER:
            return
        self.calls.append(message["data"]["value"])
        self.times.append(time.monotonic())
        if self.calls[-1] < self.call or self.server.process.poll() is not None:
            return
        if self.part is not None:
            _until_there(self.part)
        time.sleep(self.wait)
        self.server.process.kill()
        self.server.process.wait()

    def seconds_to(self, call: int) -> float:
        """From the first progress to the first of ``call`` or more."""
        times = zip(self.calls, self.times, strict=True)
        return next(when for value, when in times if value >= call) - self.times[0]


def survive(
    python: str | Path,
    host: Path,
    folder: Path,
    kills: int,
    chunks: int,
    seed: int,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Kill ``kills`` servers on the way through a video of ``chunks`` chunks, and compare.

    The kills are spread over the video. The servers' base and log are in ``folder``.
    """
    rng = random.Random(seed)
    base = folder / "base"
    place = (python, host, base, folder / "server.log")
    server, boot = _booted(*place)
    told, killed = [], {}
    try:
        versions = server.get("/system_stats")["system"]
        never = Moment(server, float("inf"), 0)
        _run(server, prompt(chunks, WHOLE, WHOLE), never)
        pause = never.seconds_to(chunks * CALLS) / len(never.calls)
        for number in range(kills):
            stored = len(_chunks(base))
            chunk = max(number * chunks // kills, stored)
            able = [p for p in PHASES if (stored if p == "replay" else stored < chunks)]
            phase = rng.choice(able)
            moment = _moment(server, phase, chunk, stored, rng, pause)
            try:
                _run(server, prompt(chunks, f"attempt_{number}", REEL), moment)
            except ConnectionError:
                pass
            else:
                raise RuntimeError(f"kill {number + 1} came too late: the run had ended")
            killed = _unchanged(base, killed)
            told.append(_told(moment, base, phase, stored) | {"boot_seconds": boot})
            tell(f"kill {number + 1} of {kills}: {json.dumps(told[-1])}")
            server, boot = _booted(*place)
        last = Moment(server, float("inf"), 0)
        stored = len(killed)
        _run(server, prompt(chunks, REEL, REEL), last)
        _unchanged(base, killed)
        _check_replayed(last.calls, stored)
    finally:
        server.stop()
    whole, resumed = made(base, WHOLE), made(base, REEL)
    return {
        "machine": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        **{name: versions[name] for name in ("comfyui_version", "pytorch_version")},
        "python": platform.python_version(),
        "chunks": chunks,
        "candidates": TRIED,
        "beams": BEAMS,
        "steps": STEPS,
        "seed": seed,
        "uninterrupted_seconds": round(never.seconds_to(chunks * CALLS), 2),
        "kills": told,
        "last_run": {
            "replayed": stored,
            "boot_seconds": boot,
            "replay_seconds": round(last.seconds_to(stored * CALLS), 2),
        },
        "sha256": whole,
        "equal": {name: whole[name] == resumed[name] for name in whole},
    }


def prompt(chunks: int, name: str, reel: str) -> Prompt:
    """The quickstart (Noise Propagation, Reward Pruner, Memory Sink); results saved as ``name``.

    Without its Budget, which tells seconds that are not the same again.
    """
    path = PACK_ROOT / "workflows" / "api" / "quickstart.json"
    nodes = json.loads(path.read_text(encoding="utf-8"))
    for node in list(nodes):
        if nodes[node]["class_type"] in ("CreateVideo", "SaveVideo"):
            del nodes[node]
        elif nodes[node]["class_type"] == "EmptyHunyuanLatentVideo":
            length = 4 * (3 * chunks - 1) + 1  # pixel frames of whole chunks
            nodes[node]["inputs"] |= {"width": SIDE, "height": SIDE, "length": length}
    del nodes[BUDGET], nodes[SAMPLER]["inputs"]["budget"]
    nodes[PRUNER]["inputs"] |= {"beam_width": BEAMS, "branch_factor": TRIED // BEAMS}
    nodes[SAMPLER]["inputs"]["steps"] = STEPS
    nodes[REPORT]["inputs"]["filename_prefix"] = f"{name}/report"
    nodes["90"] = _node("SaveLatent", samples=[SAMPLER, 0], filename_prefix=f"{name}/latent")
    nodes["91"] = _node("SaveImage", images=[SAMPLER, 1], filename_prefix=f"{name}/frame")
    asked = {"action": "continue", "chunk": 1, "candidate": 1, "lock": 0, "take": 0}
    nodes["92"] = _node("StreamT1Reel", name=reel, snapshot=False, **asked)
    nodes[SAMPLER]["inputs"]["reel"] = ["92", 0]
    return nodes


def made(base: Path, name: str) -> dict[str, str]:
    """SHA-256 of what the run to its end has saved as ``name``, and of the reel's tensors."""
    folder = base / "output" / name
    (latent,) = folder.glob("latent_*.latent")
    (report,) = folder.glob("report_*.jsonl")
    records = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    timeless = [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    stored = [tensor for path in _chunks(base, name) for tensor in _tensors(path)]
    content = {
        "latent": _tensors(latent),
        "images": [Image.open(path).tobytes() for path in sorted(folder.glob("frame_*.png"))],
        "report": [json.dumps(timeless).encode()],
        "candidates": stored,
    }
    return {kind: hashlib.sha256(b"".join(parts)).hexdigest() for kind, parts in content.items()}


def _tensors(path: Path) -> list[bytes]:
    """The tensors of a safetensors file, by name."""
    return [tensor.numpy().tobytes() for _, tensor in sorted(load_file(path).items())]


def _booted(*place: str | Path) -> tuple[ComfyServer, float]:
    """A server, and the seconds until it answered."""
    started = time.monotonic()
    server = start_server(*place)
    return server, round(time.monotonic() - started, 2)


def _moment(
    server: ComfyServer, phase: str, chunk: int, stored: int, rng: random.Random, pause: float
) -> Moment:
    """``pause``: seconds from one progress to the next, about."""
    part = None
    if phase == "replay":
        call = rng.randrange(stored) * CALLS
    elif phase == "denoise":
        call = chunk * CALLS + rng.randrange(TRIED * STEPS)
    else:
        call = chunk * CALLS + TRIED * STEPS
    if phase in SHORT:
        pause = SHORT[phase]
    if phase == "write":
        part = _take(server.base) / f"chunk_{chunk:05}.safetensors.part"
    return Moment(server, call, rng.uniform(0, pause), part)


def _run(server: ComfyServer, nodes: Prompt, moment: Moment) -> None:
    done = run_prompt(server.url, nodes, moment)
    if done.error is not None:
        raise RuntimeError(done.error["exception_message"])


def _told(moment: Moment, base: Path, aim: str, stored: int) -> dict[str, Any]:
    """What the kill hit, by what it left behind; chunks count from 0."""
    after, last = len(_chunks(base)), moment.calls[-1]
    _check_replayed(moment.calls, stored)
    if list(_take(base).glob("*.part")):
        hit = "write"
    elif last < stored * CALLS:
        hit = "replay"
    elif last < after * CALLS:
        hit = "after the write"
    else:
        hit = "context pass" if last % CALLS >= TRIED * STEPS else "denoise, decode or score"
    replayed = stored if last >= stored * CALLS else last // CALLS
    seconds = round(moment.seconds_to(stored * CALLS), 2) if replayed == stored else None
    hit_chunk = last // CALLS
    told = {"aim": aim, "hit": hit, "chunk": hit_chunk, "call": last, "chunks_on_disk": after}
    return {**told, "replayed": replayed, "replay_seconds": seconds}


def _check_replayed(calls: list[int], stored: int) -> None:
    """A chunk that is made again from the reel has no calls but the survivors' context passes."""
    again = {call // CALLS for call in calls if call % CALLS >= BEAMS and call < stored * CALLS}
    if again:
        raise RuntimeError(f"chunks {sorted(again)} were denoised again")


def _unchanged(base: Path, before: dict[str, int]) -> dict[str, int]:
    """The reel's chunks by name, with the time they were written; none of ``before`` was again."""
    now = {path.name: path.stat().st_mtime_ns for path in _chunks(base)}
    if before.items() - now.items():
        raise RuntimeError("a finished chunk's file has gone or was written again")
    return now


def _until_there(path: Path) -> None:
    """Wait for a file that is about to be written, or that was written just now."""
    written, deadline = path.with_suffix(""), time.monotonic() + MOST_WAIT
    while not path.exists() and not written.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was not written")


def _take(base: Path, reel: str = REEL) -> Path:
    return base / "output" / "stream_t1" / "reels" / reel / "take_001"


def _chunks(base: Path, reel: str = REEL) -> list[Path]:
    return sorted(_take(base, reel).glob("chunk_*.safetensors"))


def _node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill ComfyUI in mid-run; compare the video.")
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.comfyui is None:
        parser.error("say where ComfyUI is: --comfyui PATH, or COMFYUI_PATH")
    with tempfile.TemporaryDirectory() as folder:
        result = survive(
            sys.executable,
            options.comfyui,
            Path(folder),
            options.kills,
            options.chunks,
            options.seed,
        )
    path = PACK_ROOT / "benchmarks" / "results" / "kill.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"last_run": result["last_run"], "equal": result["equal"]}, indent=2))


if __name__ == "__main__":
    main()
