"""The report is what was emitted, one valid JSON object a line."""

import json

import torch
from toys import LATENT_HW, Brightness, search_config, search_tools, toy_tools

from stream_t1_core.events import RunDone
from stream_t1_core.generate import generate
from stream_t1_core.report import VERSION, Report
from stream_t1_core.rewards.base import Clips


def read(report: Report) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in str(report).splitlines()]


def test_report_tells_every_candidate_of_every_chunk() -> None:
    report = Report()
    with torch.inference_mode():
        generate(search_tools(), search_config(latent_frames=15), LATENT_HW, report)
    started, *chunks, done = read(report)
    assert started["event"] == "run_started" and started["version"] == VERSION
    assert started["settings"]["noise"] == {"beta": -0.1}
    assert started["settings"]["search"]["beam_width"] == 2
    assert [c["chunk"] for c in chunks] == [0, 1, 2, 3, 4] and done["event"] == "run_done"
    for chunk in chunks:
        assert chunk["event"] == "chunk_done" and chunk["kv_bytes"] > 0
        assert set(chunk["seconds"]) == {"denoise", "decode", "score", "commit"}
        assert len(chunk["candidates"]) == 4
        assert sorted(c["rank"] for c in chunk["candidates"] if c["kept"]) == [0, 1]
        for candidate in chunk["candidates"]:
            parts = candidate["parts"]
            assert parts == {
                "short.brightness": candidate["short"],
                "long.steadiness": candidate["long"],
            }
    assert chunks[0]["candidates"][0]["route"] is None
    assert chunks[1]["candidates"][0]["route"] in ("drop", "blend", "append")
    assert len(done["seeds"]) == len(done["routes"]) == 5 and len(done["final_scores"]) == 2


class Broken:
    name = "broken"

    def __call__(self, clips: Clips) -> torch.Tensor:
        scores = Brightness()(clips)
        scores[0] = float("inf")
        return scores


def test_numbers_that_are_not_finite_become_null() -> None:
    report = Report()
    config = search_config(latent_frames=3)
    with torch.inference_mode():
        generate(toy_tools(Brightness(), Broken()), config, LATENT_HW, report)
    first = read(report)[1]["candidates"][0]
    assert first["long"] is None and first["fused"] is None and not first["kept"]
    assert "long.broken" in first["failure"]


def test_a_stopped_run_says_why() -> None:
    report = Report()
    report(RunDone((1.0,), 0, (42,), (None,)))
    report.stop("interrupted by the user")
    assert read(report)[-1] == {"event": "run_stopped", "reason": "interrupted by the user"}
