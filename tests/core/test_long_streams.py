"""Long streams: prompt switches, given footage, positions, what settles, what is forgotten."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import LATENT_HW, SHAPE, search_config, search_tools, toy_tools

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import Memory, Search, StreamConfig
from stream_t1_core.events import ChunkDone, Event, FramesSettled, RunDone
from stream_t1_core.finish import finish
from stream_t1_core.generate import generate, stream
from stream_t1_core.kv import ChunkKV, KVPlace
from stream_t1_core.recache import recache
from stream_t1_core.state import Chunk, Start, StreamState
from stream_t1_core.tools import PromptSwitch, Tools

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


def other_rows() -> Tensor:
    return torch.randn(1, 4, SHAPE.text_dim, generator=torch.Generator().manual_seed(9))


def settled_frames(events: list[Event]) -> tuple[Tensor, Tensor]:
    parts = [event for event in events if isinstance(event, FramesSettled)]
    firsts = [part.first for part in parts]
    lengths = [part.latent.shape[1] for part in parts]
    assert firsts == [sum(lengths[:i]) for i in range(len(parts))]
    return torch.cat([p.latent for p in parts], dim=1), torch.cat([p.frames for p in parts])


# -- prompt switch


def test_a_prompt_holds_from_its_chunk_on_and_is_told() -> None:
    tools = search_tools()
    config = search_config(latent_frames=12)
    switched = replace(tools, switches=(PromptSwitch(2, other_rows(), "something else"),))
    events: list[Event] = []
    plain, changed = generate(tools, config, LATENT_HW), None
    changed = generate(switched, config, LATENT_HW, events.append)
    same = 2 * config.frames_per_chunk
    assert torch.equal(plain.latent[:, :, :same], changed.latent[:, :, :same])
    assert not torch.allclose(plain.latent[:, :, same:], changed.latent[:, :, same:])
    told = [event.prompt for event in events if isinstance(event, ChunkDone)]
    assert told == [None, None, "something else", None]


def test_rewards_read_the_prompt_that_holds() -> None:
    read = []

    class Reader:
        name = "reader"

        def __call__(self, clips: object) -> Tensor:
            read.append(clips.prompt)
            return torch.zeros(len(clips.frames))

    tools = toy_tools(Reader())
    switch = PromptSwitch(1, other_rows(), "later")
    tools = replace(tools, critic=replace(tools.critic, prompt="first"), switches=(switch,))
    generate(tools, StreamConfig(latent_frames=6), LATENT_HW)
    assert read == ["first", "later"]


def test_a_switch_does_not_take_a_route_twice() -> None:
    """The recomputed pass reaches back to a chunk that was appended already; it must not be
    appended again."""
    tools = search_tools()
    memory = Memory(short_gate=-1e9, long_gate=-1e9)  # every chunk is appended
    config = search_config(latent_frames=18, memory=memory)
    *_, state = stream(tools, config, LATENT_HW)
    for beam in state.beams:
        for keep in (True, False):
            text = tools.model.encode_text(other_rows())
            again = recache(beam, tools.model, text, config, keep)
            places = [chunk.first_frame for chunk in again.kv]
            assert len(set(places)) == len(places)
            assert len(again.window) == len(beam.window)
            if keep:
                assert again.sinks is beam.sinks


# -- given footage


def given(tools: Tools, frames: int, seed: int = 5) -> Start:
    latent = torch.randn(16, frames, *LATENT_HW, generator=torch.Generator().manual_seed(seed))
    pictures, _ = tools.critic.decoder.decode(latent[None], None)
    return Start(latent, torch.rand_like(pictures[0]))


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7])
def test_the_video_begins_with_the_given_frames(frames: int) -> None:
    tools = search_tools()
    start = given(tools, frames)
    config = search_config(latent_frames=frames + 8, given_frames=frames)
    events: list[Event] = []
    video = generate(replace(tools, start=start), config, LATENT_HW, events.append)
    assert video.latent.shape[2] == frames + 8
    assert torch.equal(video.latent[0, :, :frames], start.latent)
    shown = len(start.frames)
    assert shown == 4 * frames - 3 and len(video.frames) == 4 * (frames + 8) - 3
    assert torch.equal(video.frames[:shown], start.frames)
    latent, pictures = settled_frames(events)
    assert torch.equal(latent[None], video.latent) and torch.equal(pictures, video.frames)
    assert sum(isinstance(event, ChunkDone) for event in events) == 3


@pytest.mark.parametrize("frames", [1, 5, 6])
def test_chunks_are_remembered_as_sinks_beside_given_footage(frames: int) -> None:
    """Whatever its length: its first piece, a sink too, may be shorter than a chunk."""
    tools = search_tools()
    memory = Memory(9, max_sink_frames=9, short_gate=-1.0, long_gate=1.0)  # blends all it can
    config = search_config(latent_frames=frames + 21, given_frames=frames, memory=memory)
    *_, state = stream(replace(tools, start=given(tools, frames)), config, LATENT_HW)
    for beam in state.beams:
        pieces = [sink.tokens for sink in beam.sinks]
        chunk = beam.window[0].tokens
        assert pieces == ([chunk] if frames % 3 == 0 else [frames % 3 * chunk // 3, chunk])


def test_continuing_a_stream_from_its_own_latents_is_going_on() -> None:
    """Given the first chunks' latents, the context is what the stream itself had."""
    tools, config = toy_tools(), StreamConfig(latent_frames=15)
    states = list(stream(tools, config, LATENT_HW))
    latent = torch.cat([c.latent for c in states[2].beams[0].chunk.path()], dim=1)
    again = StreamConfig(latent_frames=15, given_frames=9)
    *_, first, _ = stream(replace(tools, start=Start(latent)), again, LATENT_HW)
    ours, theirs = first.beams[0], states[3].beams[0]
    for a, b in zip(ours.kv[:2], theirs.kv[:2], strict=True):  # the new chunk has another seed
        assert a.first_frame == b.first_frame
        assert all(torch.equal(x, y) for x, y in zip(a.keys, b.keys, strict=True))
    assert torch.allclose(
        torch.cat([c.frames for c in ours.chunk.path()[:3]]),
        torch.cat([c.frames for c in states[2].beams[0].chunk.path()]),
    )


def test_a_start_as_long_as_the_video_is_refused() -> None:
    with pytest.raises(ValueError, match="Start From: 81 frames are given, and the video has 81"):
        StreamConfig(latent_frames=21, given_frames=21)


# -- positions


def test_relative_positions_are_the_absolute_ones_until_a_chunk_is_evicted() -> None:
    tools = toy_tools()
    absolute = StreamConfig(latent_frames=18, positions="absolute")
    relative = replace(absolute, positions="relative")
    a, b = (generate(tools, config, LATENT_HW).latent for config in (absolute, relative))
    window = absolute.memory.window_frames
    assert torch.equal(a[:, :, :window], b[:, :, :window])
    assert not torch.equal(a[:, :, window:], b[:, :, window:])


def test_auto_positions_turn_relative_where_training_ends() -> None:
    config = StreamConfig(latent_frames=60, trained_frames=21)
    assert [config.relative(chunk) for chunk in (0, 6, 7)] == [False, False, True]
    tools = toy_tools()
    config = replace(config, latent_frames=24)
    auto = generate(tools, config, LATENT_HW).latent
    absolute = generate(tools, replace(config, positions="absolute"), LATENT_HW).latent
    assert torch.equal(auto[:, :, :21], absolute[:, :, :21])
    assert not torch.equal(auto[:, :, 21:], absolute[:, :, 21:])


def test_relative_positions_depend_on_nothing_but_the_context() -> None:
    """Ten thousand frames on, the same context and noise give the same flow."""
    model = toy_tools().model
    text = toy_tools().text
    keys = tuple(torch.randn(1, 12, 2, 16) for _ in range(2))
    near, far = (ChunkKV(first, keys, keys) for first in (6, 10_006))
    noisy, times = torch.randn(1, 16, 3, 4, 4), torch.full((3,), 500.0)
    flows = [
        model.flow(noisy, times, kv.first_frame + 3, text, model.lay_out((kv,), (4, 4), True))
        for kv in (near, far)
    ]
    assert torch.equal(*flows)


# -- where keys and values are kept


def test_keys_and_values_elsewhere_change_nothing() -> None:
    tools, config = search_tools(), search_config(latent_frames=15)
    far = replace(tools, model=tools.model.with_kv_at(KVPlace.CPU))
    a, b = (generate(t, config, LATENT_HW) for t in (tools, far))
    assert torch.equal(a.latent, b.latent) and torch.equal(a.frames, b.frames)


def test_out_of_memory_moves_keys_and_values_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    tools, config = search_tools(), search_config(latent_frames=12)
    attention, model = tools.model.attention, tools.model
    calls = []

    def short_of_memory(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) in (70, 71, 72):  # four candidates, then a pair, then one alone
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return attention(q, k, v)

    model.attention = short_of_memory
    video = generate(tools, config, LATENT_HW)
    assert "keys and values go to the CPU's memory" in caplog.text
    expected = generate(search_tools(), config, LATENT_HW)
    assert torch.equal(video.latent, expected.latent)


class CrampedSwitch(CausalWan):
    """Has no room to remember the past under another prompt, as long as all lies with the model."""

    def context_pass(self, latent: Tensor, *args: Any) -> ChunkKV:
        if latent.shape[2] > 3 and self.kv_place is KVPlace.DEVICE:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().context_pass(latent, *args)


def test_out_of_memory_at_a_prompt_switch_goes_on_too(caplog: pytest.LogCaptureFixture) -> None:
    switched = replace(search_tools(), switches=(PromptSwitch(2, other_rows(), "something else"),))
    cramped = replace(switched, model=CrampedSwitch(switched.model.backbone))
    config = search_config(latent_frames=12)
    expected, video = (generate(tools, config, LATENT_HW) for tools in (switched, cramped))
    assert "keys and values go to the CPU's memory" in caplog.text
    assert torch.equal(video.latent, expected.latent)


# -- what settles


def test_settled_frames_are_the_video() -> None:
    events: list[Event] = []
    video = generate(search_tools(), search_config(latent_frames=20), LATENT_HW, events.append)
    latent, frames = settled_frames(events)
    assert torch.equal(latent[None], video.latent) and torch.equal(frames, video.frames)
    assert isinstance(events[-1], RunDone)


def test_plain_streaming_settles_every_chunk_at_once() -> None:
    events: list[Event] = []
    run = stream(toy_tools(), StreamConfig(latent_frames=9), LATENT_HW, events.append)
    for count, _ in enumerate(run, 1):
        assert sum(isinstance(event, FramesSettled) for event in events) == count


def living(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_memory_is_flat_without_the_whole_video() -> None:
    tools = search_tools()
    plan = Search(beam_width=2, branch_factor=2, span_chunks=3)
    config = search_config(latent_frames=90, search=plan, whole=False)
    counts, frames = [], []

    def emit(event: Event) -> None:
        if isinstance(event, FramesSettled):
            frames.append(len(event.frames))

    state = StreamState()
    for state in stream(tools, config, LATENT_HW, emit):
        if state.chunk in (12, 20, 30):
            counts.append((living(Chunk), living(ChunkKV)))
    video = finish(state, tools, config, emit)
    assert video.latent is None and video.frames is None
    assert sum(frames) == 4 * 90 - 3
    chunks, kvs = zip(*counts, strict=True)
    assert len(set(chunks)) == 1 and chunks[0] <= 16 and max(kvs) <= 12


def test_a_path_that_stays_alone_is_given_up_only_without_the_whole_video() -> None:
    """Two beams that never meet would keep the video open for ever."""

    class Apart:
        """Both beams' first children win, so that their paths never meet."""

        name = "apart"

        def __call__(self, clips: object) -> Tensor:
            return torch.tensor([1.0, 0.0]).repeat(len(clips.frames) // 2)

    for whole, beams in ((True, 2), (False, 1)):
        tools = toy_tools(Apart())
        plan = Search(beam_width=2, branch_factor=2, span_chunks=2)
        memory = Memory(routing=False)
        config = search_config(latent_frames=21, search=plan, whole=whole, memory=memory)
        *_, state = stream(tools, config, LATENT_HW)
        assert len({id(beam.chunk.parent) for beam in state.beams}) == beams


def test_routes_still_follow_all_earlier_scores_when_chunks_are_forgotten() -> None:
    routes = []
    for whole in (True, False):
        events: list[Event] = []
        plan = Search(beam_width=1, branch_factor=2, span_chunks=2)
        config = search_config(latent_frames=60, search=plan, whole=whole)
        generate(search_tools(), config, LATENT_HW, events.append)
        made = [event for event in events if isinstance(event, ChunkDone)]
        routes.append([candidate.route for event in made for candidate in event.candidates])
    assert routes[0] == routes[1] and len(set(routes[0])) > 2


def test_a_director_may_choose_without_rewards_but_not_without_candidates() -> None:
    def last(chunk: int, candidates: tuple, kept: list[int], emit: object) -> tuple:
        return [len(candidates) - 1], "artist"

    tools, events = replace(toy_tools(), director=last), []
    plan = Search(beam_width=1, branch_factor=3)
    config = StreamConfig(latent_frames=6, search=plan)
    generate(tools, config, LATENT_HW, events.append)
    made = [event for event in events if isinstance(event, ChunkDone)]
    assert [[c.rank for c in event.candidates] for event in made] == [[None, None, 0]] * 2
    assert [event.chosen for event in made] == ["artist"] * 2
    with pytest.raises(ValueError, match="Director: there is one candidate"):
        generate(tools, replace(config, search=None), LATENT_HW)
