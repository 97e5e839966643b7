"""A report read back: who won, which path it is, and what is wrong with a line."""

from __future__ import annotations

import json

import pytest
from told import candidate, chunk, line_of, report, searched

from stream_t1_core.events import Refinement
from stream_t1_core.run_record import RunRecord, read_report

TWO = report(
    chunk(0, candidate(1.0, 1), candidate(3.0, 0), candidate(0.5)),
    chunk(1, candidate(2.0, 1, parent=0), candidate(1.5, parent=0), candidate(2.5, 0, parent=1)),
    best=1,
    final=[0.5, 0.75],
)


def test_the_final_path_is_followed_back_by_rank() -> None:
    run = read_report(TWO)
    assert (run.status, run.prompt, run.planned, run.first_sinks) == ("done", "a red circle", 2, 1)
    assert run.chunks[0].survivors == [1, 0]
    assert run.path == [1, 0]  # the second survivor, whose parent was the best
    assert (run.best_beam, run.final_scores) == (1, (0.5, 0.75))
    assert (run.chunks[0].seconds, run.chunks[0].kv_bytes) == (2.0, 2_000_000)


def test_until_the_end_the_best_of_the_latest_chunk_leads() -> None:
    going = "\n".join(TWO.splitlines()[:-1])
    assert read_report(going).path == [0, 2]
    assert read_report(going).status == "running"
    stopped = read_report(going + '\n{"event": "run_stopped", "reason": "cancelled"}\n\n')
    assert (stopped.status, stopped.stopped, stopped.path) == ("stopped", "cancelled", [0, 2])


def test_a_run_may_end_before_its_first_chunk() -> None:
    run = read_report(report(best=None, stopped="out of memory"))
    assert (run.chunks, run.path, run.status) == ((), [], "stopped")


def test_a_chunk_that_all_lost_ends_the_path() -> None:
    lost = [candidate(None, failure="latent not finite")] * 2
    run = read_report(report(chunk(0, candidate(rank=0)), chunk(1, *lost), best=None))
    assert run.path == [0]


def test_without_rewards_nobody_has_a_score() -> None:
    """A run without rewards tells a fused score of 0, which is none."""
    run = read_report(report(chunk(0, candidate(0.0, 0, short=None, long=None))))
    assert run.chunks[0].candidates[0].score is None


def test_the_first_reports_have_fewer_fields() -> None:
    started, done = map(json.loads, report(chunk(0, candidate(rank=0)), best=None).splitlines())
    del started["prompt"], done["left_out"], done["candidates"][0]["refined"]
    del done["pruned_early"]
    run = read_report(f"{json.dumps(started)}\n{json.dumps(done)}")
    assert (run.prompt, run.chunks[0].left_out) == ("", {})
    assert run.chunks[0].candidates[0].refined is None


def test_a_refined_candidate_was_compared_as_it_was_and_went_on_as_it_is() -> None:
    refined = Refinement(3, 2, short=2.0, long=1.5, fused=1.75, parts={}, standard=None)
    text = report(chunk(0, candidate(1.0, 0, refined=refined), candidate(0.5)))
    better, other = read_report(text).chunks[0].candidates
    assert (better.score, better.went_on.fused, better.went_on.short) == (1.0, 1.75, 2.0)
    assert (better.refined.passes, better.refined.accepted) == (3, 2)
    assert other.went_on is other
    for wrong in (3, {}, {"passes": 1, "accepted": -1}, {"passes": 1, "accepted": 1, "long": "x"}):
        line = json.loads(text.splitlines()[1])
        line["candidates"][0]["refined"] = wrong
        with pytest.raises(ValueError, match="report line 2: "):
            read_report(line_of(text, 2, **line))


def test_every_report_that_can_be_written_can_be_read() -> None:
    run = read_report(searched(9, 3, 2))
    assert len(run.chunks) == len(run.path) == 9
    assert isinstance(run, RunRecord) and hash(run.chunks[0].candidates)


def test_who_chose_and_a_new_prompt_are_told() -> None:
    first, second = read_report(
        report(
            chunk(0, candidate(1.0, 0), chosen="artist"),
            chunk(1, candidate(1.0, 0), prompt="a blue square"),
        )
    ).chunks
    assert (first.chosen, first.prompt) == ("artist", None)
    assert (second.chosen, second.prompt) == (None, "a blue square")


@pytest.mark.parametrize("event", ["choice_asked", "of a later version"])
def test_lines_that_are_not_used_are_passed_over(event: str) -> None:
    started, *rest = TWO.splitlines()
    told = "\n".join([started, json.dumps({"event": event, "chunk": "?"}), *rest])
    assert read_report(told) == read_report(TWO)


def candidates(**changed: object) -> list[dict]:
    (item,) = json.loads(report(chunk(0, candidate(rank=0))).splitlines()[1])["candidates"]
    return [{**item, **changed}]


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        (1, {"event": "chunk_done"}, 'line 1: begins with "chunk_done"'),
        (1, {"version": 2}, "line 1: version 2 is newer than 1"),
        (1, {"prompt": 7}, "line 1: prompt 7"),
        (2, {"event": "run_started"}, "line 2: a second run starts here"),
        (2, {"prompt": ["a"]}, "line 2: prompt a list: it is text or null"),
        (2, {"chunk": 4}, "line 2: chunk 4 where chunk 0 is next"),
        (2, {"candidates": {}}, "line 2: candidates an object: it is a list"),
        (2, {"candidates": ["x"]}, 'line 2: candidate "x" is no object'),
        (2, {"candidates": candidates(parent=1)}, "line 2: parent 1: there are only 1"),
        (2, {"candidates": candidates(parent=True)}, "line 2: parent true"),
        (2, {"candidates": candidates(rank=1)}, "line 2: the survivors' ranks"),
        (2, {"candidates": candidates(fused="1")}, 'line 2: fused "1": it is a number'),
        (2, {"candidates": candidates(short=10**400)}, "line 2: short"),
        (2, {"candidates": candidates(route="away")}, 'line 2: route "away": it is one of drop'),
        (2, {"pruned_early": 3}, "line 2: pruned_early 3: it is a list"),
        (2, {"pruned_early": [{"parent": 1, "score": 1.0}]}, "line 2: parent 1: there are only 1"),
        (2, {"pruned_early": [{"parent": 0, "score": "1"}]}, 'line 2: score "1": it is a number'),
        (2, {"sinks": []}, "line 2: 0 numbers of sinks for 1 survivors"),
        (2, {"kv_bytes": 10**300}, "line 2: kv_bytes is a number of 301 digits"),
        (2, {"seconds": {"denoise": "long"}}, "line 2: denoise"),
        (3, {"best_beam": 1}, "line 3: best_beam 1: there are only 1"),
        (3, {"best_beam": -1}, "line 3: best_beam -1: it is a whole number from 0"),
    ],
)
def test_a_wrong_value_is_told_with_its_line(line: int, changed: dict, message: str) -> None:
    text = line_of(report(chunk(0, candidate(rank=0))), line, **changed)
    with pytest.raises(ValueError, match="report " + message.replace("(", r"\(")):
        read_report(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the report is empty"),
        ("\n \n", "the report is empty"),
        ("a red circle", "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ("\n[]", "line 2 is no JSON object, but a list"),
        ('{"event": "run_started", "version": 1, "chunks": NaN}', "NaN is no JSON number"),
    ],
)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_report(text)
