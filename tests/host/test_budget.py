"""A Budget in a real server: what it needs, what it tells, and moving its quality over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from graphs import Prompt, id_of, small
from test_director import MESSAGE, choose, directed, done, when_asked

from devtools.client import Run
from devtools.server import ComfyServer

RunPrompt = Callable[..., Run]
SETTINGS = {"spend": "medium", "quality": 0.5, "amount": 62.5, "hard": False, "adaptive": False}


def budgeted(prompt: Prompt, **settings: object) -> Prompt:
    prompt["budget"] = {"class_type": "StreamT1Budget", "inputs": SETTINGS | settings}
    prompt[id_of(prompt, "StreamT1ChunkBeamSampler")]["inputs"]["budget"] = ["budget", 0]
    return prompt


def move(server: ComfyServer, run: str, body: bytes, kind: str = "application/json") -> int:
    """The status of the answer."""
    return answer_to(server, run, body, kind)[0]


def answer_to(server: ComfyServer, run: str, body: bytes, kind: str) -> tuple[int, str]:
    """Status and text."""
    url = f"{server.url}/stream_t1/runs/{run}/quality"
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def refusal(server: ComfyServer, run: str) -> tuple[int, str]:
    return answer_to(server, run, b'{"quality": 0}', "application/json")


def quality_of(server: ComfyServer, run: str) -> float | None:
    return server.get(f"/stream_t1/runs/{run}")["quality"]


def test_quality_moves_while_the_run_goes(run: RunPrompt, server: ComfyServer) -> None:
    runs: list[str] = []

    def answer(run_id: str, record: dict) -> None:
        if record["chunk"] == 0:
            runs.append(run_id)
            assert quality_of(server, run_id) == 1
            for body in (b"", b"{", b"[]", b"{}", b'{"quality": "low"}', b'{"quality": true}'):
                assert move(server, run_id, body) == 400
            for body in (b'{"quality": 1.1}', b'{"quality": -0.1}', b'{"quality": NaN}'):
                assert move(server, run_id, body) == 400
            assert move(server, run_id, b'{"quality": 0}', "text/plain") == 415
            status, text = refusal(server, "unknown")
            assert status == 404 and "There is no run 'unknown'" in text
            assert "'run' of an entry of GET /stream_t1/runs, which is not the prompt_id" in text
            assert text.endswith(f"{run_id} (asking)")
            assert move(server, run_id, b'{"quality": 0}') == 200
            assert quality_of(server, run_id) == 0
        assert choose(server, run_id, {"chunk": record["chunk"], "candidates": [0]}) == 200

    prompt = budgeted(directed(701, frames=45), spend="high")
    result = run(prompt, when_asked(answer))
    assert result.error is None
    assert [len(record["candidates"]) for record in done(result)] == [4, 3, 2, 1]
    told = [message["quality"] for message in result.of_type(MESSAGE)]
    assert (told[0], told[-1]) == (1, 0)
    status, text = refusal(server, runs[0])
    assert status == 409 and f"Run {runs[0]} has ended (done)" in text
    assert "set it in the Budget node" in text and text.endswith("take a quality now: none")


def test_a_run_on_seconds_takes_no_quality(run: RunPrompt, server: ComfyServer) -> None:
    answers: list[tuple[int, str]] = []

    def answer(run_id: str, record: dict) -> None:
        answers.append(refusal(server, run_id))
        assert quality_of(server, run_id) is None
        choose(server, run_id, {"chunk": 0, "candidates": [0]})

    prompt = budgeted(directed(702), spend="seconds per chunk", amount=600.0, hard=True)
    (record,) = done(run(prompt, when_asked(answer)))
    ((status, text),) = answers
    assert status == 409 and " spends by no quality. Plug a Budget" in text
    assert len(record["candidates"]) == 4 and record["budget"]["seconds"] < 600


def test_a_real_time_budget_tells_what_it_predicted(run: RunPrompt) -> None:
    result = run(budgeted(small(33, seed=703), spend="milliseconds per frame", hard=True))
    budgets = [record["budget"] for record in done(result)]
    assert budgets[0]["allotted"]["predicted"] is None
    assert all(budget["allotted"]["predicted"] > 0 for budget in budgets[1:])
    assert [budget["allotted"]["share"] for budget in budgets] == [0.5625, 0.75, 0.75]


@pytest.mark.parametrize(("spend", "as_shown"), [("high", True), ("low", False)])
def test_a_budget_tells_which_vae_candidates_are_judged_by(
    run: RunPrompt, spend: str, as_shown: bool
) -> None:
    prompt = budgeted(small(21, seed=705, scoring_vae=["1", 3]), spend=spend)
    result = run(prompt)
    assert result.error is None
    assert [record["budget"]["allotted"]["as_shown"] for record in done(result)] == [as_shown] * 2


@pytest.mark.parametrize(
    ("settings", "unplugged", "told"),
    [
        ({}, "pruner", "Budget: plug a Reward Pruner into the sampler too"),
        ({"hard": True}, "", "Budget: a hard deadline needs a target in seconds, not in a quality"),
        ({"spend": "total denoiser calls", "amount": 1.5}, "", "Budget: 1.5 denoiser calls in all"),
    ],
)
def test_errors_say_what_to_do(run: RunPrompt, settings: dict, unplugged: str, told: str) -> None:
    prompt = budgeted(small(seed=704, **({unplugged: None} if unplugged else {})), **settings)
    assert told in json.dumps(run(prompt).error)
