"""What ``benchmarks/speed.py`` compares with decides as ours does; its phases add up."""

import torch
from toys import LATENT_HW, search_config, search_tools

from benchmarks import reference_style, speed
from benchmarks.reference_style import Decision
from stream_t1_core.config import StreamConfig
from stream_t1_core.events import ChunkDone, Event
from stream_t1_core.generate import stream
from stream_t1_core.meter import Meter
from stream_t1_core.state import StreamState

CONFIG = search_config(latent_frames=24, isolated=True)


def ours(config: StreamConfig) -> list[list[Decision]]:
    events: list[Event] = []
    [*stream(search_tools(), config, LATENT_HW, events.append)]
    done = [event.candidates for event in events if isinstance(event, ChunkDone)]
    return [[(c.parent, c.seed, c.rank, c.route) for c in candidates] for candidates in done]


@torch.inference_mode()
def test_a_search_in_the_style_of_the_reference_decides_as_ours() -> None:
    tools, state, decisions, peaks = search_tools(), StreamState(), [], []
    for _ in range(CONFIG.chunks):
        meter = Meter(tools.clock, lambda event: None, 0, 0, 0.0)
        state, decided, peak = reference_style.run_chunk(state, tools, CONFIG, LATENT_HW, meter)
        decisions.append(decided)
        peaks.append(peak)
    assert decisions == ours(CONFIG)
    routes = {route for decided in decisions for *_, route in decided}
    assert routes == {None, "drop", "blend", "append"}
    cache = sum(kv.nbytes for kv in state.beams[0].kv)
    assert peaks[-1] >= 5 * cache  # two parents, two kept, one tried: nothing shared


@torch.inference_mode()
def test_every_second_of_a_chunk_is_in_a_phase() -> None:
    found = speed.bench("tiny")
    for way in (speed.PLAIN, speed.OURS, speed.REFERENCE):
        run = found.run(way, (1, 1), 1)
        assert set(run.seconds) == set(speed.PHASES)
        assert min(run.seconds.values()) >= 0.0
        assert run.seconds["rest"] < 0.1 * run.all
