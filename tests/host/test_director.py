"""Choosing by hand over HTTP: the run waits, takes one answer, and goes on without one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable

from graphs import Prompt, id_of, small

from devtools.client import Run, interrupt
from devtools.server import ComfyServer

RunPrompt = Callable[..., Run]
OnRecord = Callable[[str, dict], None]
MESSAGE = "stream_t1.run"


def directed(seed: int, frames: int = 9, timeout_seconds: float = 60, **settings: object) -> Prompt:
    prompt = small(frames, seed=seed)
    inputs = {"ask": "every chunk", "margin": 0.05, "timeout_seconds": timeout_seconds, **settings}
    prompt["director"] = {"class_type": "StreamT1Director", "inputs": inputs}
    prompt[id_of(prompt, "StreamT1ChunkBeamSampler")]["inputs"]["director"] = ["director", 0]
    return prompt


def choose(server: ComfyServer, run: str, body: object, kind: str = "application/json") -> int:
    """The status of the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{server.url}/stream_t1/runs/{run}/choice"
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        print(refused.code, refused.read().decode())
        return refused.code


def when_asked(act: OnRecord) -> Callable[[dict], None]:
    def on_message(message: dict) -> None:
        if message["type"] == MESSAGE and message["data"]["record"]["event"] == "choice_asked":
            act(message["data"]["run"], message["data"]["record"])

    return on_message


def done(run: Run) -> list[dict]:
    records = [message["record"] for message in run.of_type(MESSAGE)]
    return [record for record in records if record["event"] == "chunk_done"]


def test_the_chosen_go_on_and_no_others(run: RunPrompt, server: ComfyServer) -> None:
    choices: list[list[int]] = []

    def answer(run_id: str, record: dict) -> None:
        (state,) = [r["state"] for r in server.get("/stream_t1/runs") if r["run"] == run_id]
        assert state == "asking"
        told = server.get(f"/stream_t1/runs/{run_id}")
        assert told["messages"][-1]["record"] == record
        assert 0 <= told["now"] - told["messages"][-1]["asked"] < record["seconds"]
        assert told["messages"][-1]["strips"] == [6] * len(record["candidates"])
        losers = [i for i, c in enumerate(record["candidates"]) if c["rank"] is None]
        choices.append(losers[:: -1 if record["chunk"] else 1][: 2 - record["chunk"]])
        choice = {"chunk": record["chunk"], "candidates": choices[-1]}
        assert choose(server, run_id, choice) == 200
        assert choose(server, run_id, choice) == 409  # the first answer counts

    result = run(directed(601, frames=21), when_asked(answer))
    assert result.error is None
    first, second = done(result)
    for record, choice in zip((first, second), choices, strict=True):
        assert record["chosen"] == "artist"
        ranks = {c["rank"]: i for i, c in enumerate(record["candidates"]) if c["kept"]}
        assert [ranks[rank] for rank in sorted(ranks)] == choice
    assert len(choices[0]) == 2 and len(choices[1]) == 1
    run_id = result.of_type(MESSAGE)[0]["run"]
    assert choose(server, run_id, {"chunk": 0, "candidates": [0]}) == 409


def test_without_an_answer_in_time_the_score_decides(run: RunPrompt) -> None:
    result = run(directed(602, timeout_seconds=0.3))
    records = [message["record"] for message in result.of_type(MESSAGE)]
    assert [r["event"] for r in records] == [
        "run_started",
        "choice_asked",
        "chunk_done",
        "run_done",
    ]
    assert records[2]["chosen"] == "timeout"
    assert records[2]["candidates"] == records[1]["candidates"]


def test_a_clear_lead_is_not_asked_about(run: RunPrompt) -> None:
    result = run(directed(603, ask="close calls", margin=0.0))
    (record,) = done(result)
    assert record["chosen"] is None
    assert "choice_asked" not in [m["record"]["event"] for m in result.of_type(MESSAGE)]


def test_a_bad_request_is_refused_and_the_run_waits_on(run: RunPrompt, server: ComfyServer) -> None:
    def answer(run_id: str, record: dict) -> None:
        for body in (
            b"",
            b"{",
            b"\xff\xfe\x00",
            b"[" * 4000,
            [],
            "text",
            {},
            {"chunk": 0},
            {"chunk": "0", "candidates": [0]},
            {"chunk": True, "candidates": [0]},
            {"chunk": 0, "candidates": 0},
            {"chunk": 0, "candidates": [False]},
            {"chunk": 0, "candidates": [0.5]},
            {"chunk": 0, "candidates": []},
            {"chunk": 0, "candidates": [0, 1, 2]},
            {"chunk": 0, "candidates": [4]},
            {"chunk": 0, "candidates": [-1]},
            {"chunk": 0, "candidates": [1, 1]},
        ):
            assert choose(server, run_id, body) == 400, body
        assert choose(server, run_id, b" " * 5000) == 413
        assert choose(server, run_id, {"chunk": 0, "candidates": [0]}, "text/plain") == 415
        assert choose(server, run_id, {"chunk": 1, "candidates": [0]}) == 409
        assert choose(server, "unknown", {"chunk": 0, "candidates": [0]}) == 404
        assert choose(server, run_id, {"chunk": 0, "candidates": [3]}) == 200

    (record,) = done(run(directed(604), when_asked(answer)))
    assert [c["rank"] for c in record["candidates"]] == [None, None, None, 0]


def test_cancel_and_queue_answer_while_it_waits(run: RunPrompt, server: ComfyServer) -> None:
    """It would wait for an hour; the test's own patience is shorter."""

    def answer(run_id: str, record: dict) -> None:
        assert len(server.get("/queue")["queue_running"]) == 1
        interrupt(server.url)

    result = run(directed(605, timeout_seconds=3600), when_asked(answer))
    assert result.interrupted
    assert result.of_type(MESSAGE)[-1]["record"]["event"] == "run_stopped"
