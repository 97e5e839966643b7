"""A reel in a real server: killed, interrupted, copied, made longer, rerolled and picked, and what
it says when it cannot.

A prompt with a reel runs again whenever the reel on disk is another; see ``conftest.py`` for the
rest.
"""

from __future__ import annotations

import concurrent.futures
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from graphs import id_of, reports, small
from torch import Tensor

from benchmarks.kill import survive
from devtools.client import Run, interrupt
from devtools.server import ComfyServer

RunPrompt = Callable[..., Run]

CHUNKS = 4
SEED = 700


def reeled(name: str | None, saved: str, chunks: int = CHUNKS, seed: int = SEED, **asked) -> dict:
    """A small search, its latent and report saved as ``saved``; with ``name``, kept by a reel."""
    prompt = small(frames=12 * chunks - 3, steps=2, seed=seed)
    sampler, report = id_of(prompt, "StreamT1ChunkBeamSampler"), id_of(prompt, "StreamT1SaveReport")
    prompt[report]["inputs"]["filename_prefix"] = f"{saved}/report"
    kept = {"samples": [sampler, 0], "filename_prefix": f"{saved}/latent"}
    prompt["90"] = {"class_type": "SaveLatent", "inputs": kept}
    if name is not None:
        request = {"action": "continue", "chunk": 1, "candidate": 1, "lock": 0, "take": 0}
        request |= {"snapshot": False, "name": name, **asked}
        prompt["91"] = {"class_type": "StreamT1Reel", "inputs": request}
        prompt[sampler]["inputs"]["reel"] = ["91", 0]
    return prompt


def latent(server: ComfyServer, saved: str) -> Tensor:
    (path,) = (server.output / saved).glob("latent_*.latent")
    return safetensors.torch.load_file(path)["latent_tensor"]


def chunks_of(server: ComfyServer, saved: str) -> list[dict]:
    """The report's chunks, without seconds."""
    (events,) = reports(server.output / saved)
    chunks = [event for event in events if event["event"] == "chunk_done"]
    return [{k: v for k, v in chunk.items() if k != "seconds"} for chunk in chunks]


def reel_folder(server: ComfyServer, name: str) -> Path:
    return server.output / "stream_t1" / "reels" / name


@pytest.fixture(scope="module")
def whole(run: RunPrompt, server: ComfyServer) -> str:
    """A run to its end that no reel keeps; the folder of its outputs."""
    assert run(reeled(None, "reel_whole")).error is None
    return "reel_whole"


@pytest.fixture(scope="module")
def finished(run: RunPrompt, server: ComfyServer, whole: str) -> str:
    """The same, kept by the reel ``finished``."""
    assert run(reeled("finished", "reel_finished")).error is None
    assert latent(server, "reel_finished").equal(latent(server, whole))
    return "reel_finished"


def test_a_killed_server_loses_nothing_of_the_reel(comfyui_path: Path, tmp_path: Path) -> None:
    """SIGKILL three times; ``benchmarks/kill.py`` does it twenty times."""
    proof = survive(sys.executable, comfyui_path, tmp_path, kills=3, chunks=5, seed=3)
    assert proof["equal"] == {"latent": True, "images": True, "report": True, "candidates": True}
    assert len(proof["kills"]) == 3


def test_an_interrupted_run_goes_on_bit_for_bit(
    run: RunPrompt, server: ComfyServer, whole: str
) -> None:
    """In the reel and in a copy of it, as on another machine."""

    def stop_after_two_chunks(message: dict) -> None:
        if message["type"] == "stream_t1.run" and message["data"]["record"].get("chunk") == 1:
            interrupt(server.url)

    assert run(reeled("stopped", "reel_stopped"), stop_after_two_chunks).interrupted
    made = sorted(reel_folder(server, "stopped").rglob("chunk_*.safetensors"))
    assert 2 <= len(made) < CHUNKS
    shutil.copytree(reel_folder(server, "stopped"), reel_folder(server, "copy"))
    for name in ("stopped", "copy"):
        assert run(reeled(name, f"reel_{name}")).error is None
        assert latent(server, f"reel_{name}").equal(latent(server, whole))
        assert chunks_of(server, f"reel_{name}") == chunks_of(server, whole)


def test_two_prompts_on_one_reel_go_one_after_the_other(
    run: RunPrompt, server: ComfyServer
) -> None:
    """The second, queued while the first runs, asks for a longer video: it begins with the
    first one's."""
    running = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(run, reeled("shared", "reel_shorter", 2), lambda message: running.set())
        assert running.wait(60)
        second = pool.submit(run, reeled("shared", "reel_longer", 3))
    assert first.result().error is None and second.result().error is None
    shorter, longer = latent(server, "reel_shorter"), latent(server, "reel_longer")
    assert longer.shape[2] == 9 and longer[:, :, :6].equal(shorter)


def test_a_rerolled_chunk_is_another_and_the_first_take_stays(
    run: RunPrompt, server: ComfyServer, finished: str
) -> None:
    asked = {"action": "reroll", "chunk": 3, "take": 1}
    assert run(reeled("finished", "reel_rerolled", **asked)).error is None
    first, again = latent(server, finished), latent(server, "reel_rerolled")
    assert again[:, :, :6].equal(first[:, :, :6])
    assert not again[:, :, 6:9].equal(first[:, :, 6:9])
    assert run(reeled("finished", "reel_back", take=1)).error is None
    assert latent(server, "reel_back").equal(first)


def test_a_picked_candidate_takes_the_winners_place(
    run: RunPrompt, server: ComfyServer, finished: str
) -> None:
    tried = chunks_of(server, finished)[1]["candidates"]
    (loser, *_) = [i for i, candidate in enumerate(tried) if not candidate["kept"]]
    asked = {"action": "pick", "chunk": 2, "candidate": loser + 1, "take": 1}
    assert run(reeled("finished", "reel_picked", **asked)).error is None
    chunk = chunks_of(server, "reel_picked")[1]
    assert chunk["chosen"] == "artist"
    assert [candidate["kept"] for candidate in chunk["candidates"]] == [
        i == loser for i in range(4)
    ]
    assert [c["seed"] for c in chunk["candidates"]] == [c["seed"] for c in tried]


@pytest.mark.parametrize(
    "asked, told",
    [
        ({"name": "../outside"}, "Reel: name is '../outside', which has other characters"),
        ({"action": "reroll", "chunk": 9}, "has 4 chunks; choose 1 to 5, or another take"),
        ({"action": "pick", "chunk": 1, "candidate": 9}, "there are 4, choose 1 to 4"),
        ({"take": 70}, "has no take 70"),
    ],
)
def test_what_a_reel_cannot_do_is_told(
    run: RunPrompt, server: ComfyServer, finished: str, asked: dict, told: str
) -> None:
    request = {"name": "finished", "take": 1, **asked}
    done = run(reeled(request.pop("name"), "reel_refused", **request))
    assert told in done.error["exception_message"]
    assert not (server.output / "reel_refused").exists()
    assert not list(server.output.parent.rglob("outside*"))


def test_a_folder_that_is_no_reel_is_left_alone(run: RunPrompt, server: ComfyServer) -> None:
    folder = reel_folder(server, "holiday")
    folder.mkdir(parents=True)
    (folder / "beach.jpg").write_bytes(b"a picture")
    done = run(reeled("holiday", "reel_holiday"))
    assert "is no reel; it is left alone" in done.error["exception_message"]
    assert [path.name for path in folder.iterdir()] == ["beach.jpg"]
