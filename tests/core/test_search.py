"""The search's formulas as small tables."""

import math

import pytest
import torch

from stream_t1_core import search
from stream_t1_core.config import Memory, NoisePropagation
from stream_t1_core.kv import ChunkKV, Route
from stream_t1_core.noise import draw, propagate
from stream_t1_core.sinks import decide, make_room, remember


def test_first_chunk_tries_all_candidates_from_the_root() -> None:
    assert search.seeds(0, [None], 42, [6], True) == [(0, 42 + i) for i in range(6)]


def test_first_branch_repeats_its_parents_seed_only_with_noise_propagation() -> None:
    repeated = search.seeds(3, [44, 1043], 42, [2, 2], True)
    assert repeated == [(0, 44), (0, 3043), (1, 1043), (1, 3143)]
    fresh = search.seeds(3, [44, 1043], 42, [2, 2], False)
    assert fresh == [(0, 3042), (0, 3043), (1, 3142), (1, 3143)]


@pytest.mark.parametrize(
    ("chunk", "chunks", "tau", "weight"),
    [(0, 10, 0.4, 0), (1, 10, 0.4, 1 / 9), (9, 10, 0.4, 0.4), (9, 10, 1.0, 1.0), (0, 1, 0.4, 0)],
)
def test_short_weight_rises_to_tau(chunk: int, chunks: int, tau: float, weight: float) -> None:
    assert search.short_weight(chunk, chunks, tau) == pytest.approx(weight)


def test_fusion() -> None:
    assert search.fuse(2.0, 1.0, 0.25) == 1.25
    assert search.fuse(2.0, None, 0.25) == 2.0
    assert search.fuse(None, 1.0, 0.25) == 1.0
    assert search.fuse(None, None, 0.25) == 0.0


def test_ties_go_to_the_earlier_candidate_and_failures_cannot_win() -> None:
    assert search.keep_best([1.0, 3.0, None, 3.0, 2.0], 3) == [1, 3, 4]
    assert search.keep_best([None, None], 2) == []
    assert search.choose([1.0, 2.0, 2.0]) == 1
    assert search.choose([None, None]) == 0


@pytest.mark.parametrize(
    ("short", "long", "route"),
    [
        (1.0, 5.0, Route.DROP),  # not above the mean, 1.0
        (1.1, 5.0, Route.BLEND),  # better, and the video goes on
        (1.1, 4.8, Route.BLEND),  # falls by exactly the gate: no transition
        (1.1, 4.7, Route.APPEND),  # better, and the long score falls
        (0.9, 1.0, Route.DROP),
    ],
)
def test_routes(short: float, long: float, route: Route) -> None:
    memory = Memory(short_gate=0.0, long_gate=0.25)
    assert decide(short, long, 1.0, 5.0, memory) is route


def chunk(n: int, route: Route | None = None, tokens: int = 6) -> ChunkKV:
    keys, values = torch.full((1, tokens, 1, 2), float(n)), torch.zeros(1, tokens, 1, 2)
    return ChunkKV(3 * n, (keys,), (values,), route)


def blend(sink: ChunkKV, evicted: ChunkKV) -> ChunkKV:
    return sink.blend(evicted, 0.75)


def test_first_chunk_becomes_the_sink_and_later_ones_join_the_window() -> None:
    kept = remember((), (), chunk(0), 3, Memory())
    assert [c.first_frame for c in kept[0]] == [0] and kept[1] == ()
    kept = remember(*kept, chunk(1), 3, Memory())
    assert len(kept[0]) == 1 and [c.first_frame for c in kept[1]] == [3]


def test_window_of_twelve_has_room_for_two_chunks_beside_sink_and_own() -> None:
    sinks, window = (chunk(0),), (chunk(1), chunk(2))
    assert make_room(sinks, window, Memory(), 3, blend) == (sinks, window)
    kept, left = make_room(sinks, (*window, chunk(3)), Memory(), 3, blend)
    assert kept == sinks and [c.first_frame for c in left] == [6, 9]


def test_append_adds_a_sink_at_its_own_position() -> None:
    window = (chunk(1, Route.APPEND), chunk(2), chunk(3))
    sinks, _ = make_room((chunk(0),), window, Memory(), 3, blend)
    assert [s.first_frame for s in sinks] == [0, 3] and sinks[1] is window[0]


@pytest.mark.parametrize("route", [Route.BLEND, Route.APPEND])
def test_blend_and_append_when_full_go_into_the_newest_sink(route: Route) -> None:
    window = (chunk(5, route), chunk(6), chunk(7))
    memory = Memory(max_sink_frames=6)
    sinks, _ = make_room((chunk(0), chunk(1)), window, memory, 3, blend)
    assert [s.first_frame for s in sinks] == [0, 3]
    assert sinks[0].keys[0].mean() == 0 and sinks[1].keys[0].mean() == 0.75 * 1 + 0.25 * 5


@pytest.mark.parametrize("route", [Route.BLEND, Route.APPEND])
def test_nothing_is_blended_into_a_sink_of_another_length(route: Route) -> None:
    """Given footage may begin with a piece shorter than a chunk, such as one picture."""
    window, picture = (chunk(1, route), chunk(2), chunk(3)), chunk(0, tokens=2)
    sinks, left = make_room((picture,), window, Memory(), 3, blend)
    assert sinks == (picture, window[0]) and left == window[1:]
    sinks, left = make_room((picture,), window, Memory(max_sink_frames=3), 3, blend)
    assert sinks == (picture,) and left == window[1:]


def test_without_routing_everything_is_dropped() -> None:
    window = (chunk(1, Route.APPEND), chunk(2), chunk(3))
    sinks, _ = make_room((chunk(0),), window, Memory(routing=False), 3, blend)
    assert len(sinks) == 1


def test_propagated_noise_keeps_its_variance_for_independent_draws() -> None:
    eps, parent = torch.ones(2), torch.full((2,), 2.0)
    assert propagate(eps, parent, None) is eps
    assert propagate(eps, None, NoisePropagation(-0.1)) is eps
    mixed = propagate(eps, parent, NoisePropagation(-0.1))
    torch.testing.assert_close(mixed, torch.full((2,), -0.2 + math.sqrt(0.99)))


def test_draws_come_frame_by_frame_from_a_cpu_generator() -> None:
    draws = draw(42, 4, (16, 3, 8, 8))
    assert draws.shape == (4, 16, 3, 8, 8)
    expected = torch.tensor([1.9269153, 1.4872841, 0.9007172, -2.1055210])
    torch.testing.assert_close(draws[0, 0, 0, 0, :4], expected)
    reference = torch.randn(4, 3, 16, 8, 8, generator=torch.Generator().manual_seed(42))
    assert torch.equal(draws.transpose(1, 2), reference)
