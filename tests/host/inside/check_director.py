"""A choice by hand, on the sampler's side: when it asks, whose answer counts, when it gives up."""

import threading
import time

import comfy.model_management
import pytest
from boot import Pack


def candidate(pack: Pack, fused: float | None, rank: int | None, failure: str | None = None):
    report = pack.module("stream_t1_core.events").CandidateReport
    return report(0, 42, fused, fused, fused, {}, None, rank, failure)


@pytest.fixture
def ask(pack: Pack):
    """`ask(candidates, kept, answer=[..], timeout_seconds=.., margin=..)`: result and records."""
    live, director = pack.module("nodes.host.live"), pack.module("nodes.host.director")

    def ask(candidates, kept, answer=None, timeout_seconds=0.3, margin=None):
        report = pack.module("stream_t1_core.report").Report()
        run = live.LiveRun("1", None, report)

        def emit(event) -> None:
            report(event)
            run(event)
            if answer is not None:
                question = run.question
                threading.Timer(0.05, question.answer, [answer]).start()

        directing = director.Directing(timeout_seconds, margin)
        result = director.LiveDirector(directing, run)(2, tuple(candidates), kept, emit)
        assert run.question is None
        return result, run.messages

    return ask


@pytest.fixture
def three(pack: Pack):
    return [candidate(pack, 0.5, None), candidate(pack, 0.9, 0), candidate(pack, 0.8, 1)]


def check_the_chosen_go_on_in_the_order_chosen(ask, three) -> None:
    assert ask(three, [1, 2], answer=[2, 0], timeout_seconds=20)[0] == ([2, 0], "artist")
    assert ask(three, [1, 2], answer=[0], timeout_seconds=20)[0] == ([0], "artist")


def check_without_an_answer_the_score_decides(ask, three) -> None:
    result, (message,) = ask(three, [1, 2])
    assert result == ([1, 2], "timeout")
    assert message["record"]["event"] == "choice_asked"
    assert message["record"]["chunk"] == 2 and message["record"]["seconds"] == 0.3
    assert message["strips"] == [0, 0, 0] and abs(message["asked"] - time.time()) < 5


def check_a_candidate_alone_is_not_asked_about(pack: Pack, ask) -> None:
    failed = candidate(pack, None, None, "latent not finite")
    assert ask([failed, candidate(pack, 0.1, 0)], [1]) == (([1], None), [])


def check_only_close_calls_are_asked_about(ask, three) -> None:
    assert ask(three, [1, 2], margin=0.05) == (([1, 2], None), [])
    assert ask(three, [1, 2], margin=0.2)[0] == ([1, 2], "timeout")


def check_cancel_ends_the_waiting(ask, three) -> None:
    """Without Cancel the hour would end in the score's choice, not in the host's exception."""
    threading.Timer(0.2, comfy.model_management.interrupt_current_processing).start()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        ask(three, [1, 2], timeout_seconds=3600)


def check_an_answer_counts_once_and_only_while_it_is_waited_for(pack: Pack) -> None:
    question = pack.module("nodes.host.question").Question(0, (None, None), most=1)
    assert question.answer([1]) and not question.answer([0])
    assert question.wait(0) and question.close() == [1]
    late = pack.module("nodes.host.question").Question(0, (None, None), most=1)
    assert late.close() is None and not late.answer([1])


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ([], "0 candidates: choose 1 to 2"),
        ([0, 1, 2], "3 candidates: choose 1 to 2"),
        ([4], "candidate 4: chunk 6 has 0 to 3"),
        ([-1], "candidate -1"),
        ([1, 1], "name each one once"),
        ([3], "candidate 3 failed and cannot go on: latent not finite"),
    ],
)
def check_what_cannot_go_on_is_refused(pack: Pack, candidates: list[int], words: str) -> None:
    failures = (None, None, None, "latent not finite")
    question = pack.module("nodes.host.question").Question(6, failures, most=2)
    with pytest.raises(ValueError, match=words):
        question.answer(candidates)
    assert not question.wait(0)


def check_settings_that_make_no_sense_are_named(pack: Pack) -> None:
    directing = pack.module("nodes.host.director").Directing
    with pytest.raises(ValueError, match="Director: timeout_seconds 0"):
        directing(0)
    with pytest.raises(ValueError, match="Director: margin -1"):
        directing(60, -1)
