"""What the chunk loop promises: same seed same video, shared history, freed branches, errors."""

import gc
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import LATENT_HW, Brightness, Steadiness, search_config, search_tools, toy_tools

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.check import check
from stream_t1_core.config import (
    Memory,
    NoisePropagation,
    Schedule,
    Search,
    StreamConfig,
)
from stream_t1_core.events import CandidatesMade, ChunkDone, RunDone, RunStarted, StepDone
from stream_t1_core.finish import finish
from stream_t1_core.generate import generate, stream
from stream_t1_core.kv import ChunkKV, Route, live_bytes
from stream_t1_core.rewards.base import Clips, Needs
from stream_t1_core.rewards.mix import RewardMix
from stream_t1_core.search import fuse, short_weight

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.inference_mode():
        yield


def test_same_seed_gives_the_same_video_bit_for_bit() -> None:
    config = search_config(latent_frames=15)
    first = generate(search_tools(), config, LATENT_HW)
    second = generate(search_tools(), config, LATENT_HW)
    assert torch.equal(first.latent, second.latent)
    assert torch.equal(first.frames, second.frames)
    other = generate(search_tools(), replace(config, seed=7), LATENT_HW)
    assert not torch.equal(first.latent, other.latent)


def test_same_seed_gives_the_same_video_in_two_processes() -> None:
    script = (
        "import hashlib, torch\n"
        "torch.set_num_threads(1)\n"
        "from toys import *\n"
        "from stream_t1_core.generate import generate\n"
        "with torch.inference_mode():\n"
        "    video = generate(search_tools(), search_config(latent_frames=9), LATENT_HW)\n"
        "parts = video.latent.numpy().tobytes() + video.frames.numpy().tobytes()\n"
        "print(hashlib.sha256(parts).hexdigest())\n"
    )
    here = Path(__file__).parent
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=here,
            env={**os.environ, "PYTHONPATH": str(here.parent.parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1 and hashes != {""}


@pytest.mark.parametrize("noise", [None, NoisePropagation()])
def test_one_beam_one_branch_equals_plain_streaming(noise: NoisePropagation | None) -> None:
    plain = generate(toy_tools(), StreamConfig(latent_frames=18, noise=noise), LATENT_HW)
    config = StreamConfig(latent_frames=18, noise=noise, search=Search(1, 1))
    searched = generate(search_tools(), config, LATENT_HW)
    assert torch.equal(plain.latent, searched.latent)
    assert torch.equal(plain.frames, searched.frames)


def test_cached_streaming_equals_one_uncached_pass() -> None:
    """A chunk given its past as K/V sees what it would see beside it under a causal mask."""
    tools = toy_tools()
    model, text = tools.model, tools.text
    latent = torch.randn(1, 16, 6, *LATENT_HW, generator=torch.Generator().manual_seed(3))
    times = torch.tensor([0.0, 0.0, 0.0, 625.0, 625.0, 625.0])
    empty = model.lay_out((), LATENT_HW)
    kv = model.context_pass(latent[:, :, :3], times[:3], 0, text, empty)
    cached = model.flow(latent[:, :, 3:], times[3:], 3, text, model.lay_out((kv,), LATENT_HW))

    def causal(q, k, v):
        past = tools.model.attention(
            q[:, : q.shape[1] // 2], *(x[:, : x.shape[1] // 2] for x in (k, v))
        )
        return torch.cat([past, tools.model.attention(q[:, q.shape[1] // 2 :], k, v)], dim=1)

    tokens = 6 * LATENT_HW[0] * LATENT_HW[1] // 4

    def attention(q, k, v):
        return causal(q, k, v) if k.shape[1] == tokens else tools.model.attention(q, k, v)

    masked = CausalWan(model.backbone, attention=attention)
    whole = masked.flow(latent, times, 0, text, empty)[:, :, 3:]
    torch.testing.assert_close(cached, whole, atol=1e-5, rtol=0)


def test_candidates_in_a_batch_equal_candidates_alone() -> None:
    tools = search_tools()
    latent = torch.randn(3, 16, 3, *LATENT_HW, generator=torch.Generator().manual_seed(3))
    times = torch.full((3,), 937.5)
    past = tools.model.lay_out((), LATENT_HW)
    kv = tools.model.context_pass(latent[:1], times * 0, 0, tools.text, past)
    past = tools.model.lay_out((kv,), LATENT_HW)
    together = tools.model.flow(latent, times, 3, tools.text, past)
    alone = [tools.model.flow(x[None], times, 3, tools.text, past) for x in latent]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("relative", [False, True])
def test_candidates_of_several_beams_in_a_batch_equal_candidates_alone(relative: bool) -> None:
    """Pasts of three lengths, so that next to them three places to stand."""
    tools = search_tools()
    latent = torch.randn(4, 16, 3, *LATENT_HW, generator=torch.Generator().manual_seed(3))
    times = torch.full((3,), 937.5)
    kv: list[ChunkKV] = []
    for n in range(3):
        past = tools.model.lay_out(kv, LATENT_HW)
        kv.append(tools.model.context_pass(latent[:1], times * 0, 3 * n, tools.text, past))
    lay_out = tools.model.layout(LATENT_HW, relative)
    whole, newest, none = lay_out(kv), lay_out(kv[1:]), lay_out(())
    pasts = [whole, whole, newest, none]
    together = tools.model.flow(latent, times, 9, tools.text, pasts)
    alone = [
        tools.model.flow(x[None], times, 9, tools.text, past)
        for x, past in zip(latent, pasts, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    assert relative or whole.chunks[1] is newest.chunks[0]  # rotated once for both


def test_every_route_happens_and_sinks_stay_within_their_limit() -> None:
    memory = Memory(max_sink_frames=6, long_gate=0.0)
    config = search_config(latent_frames=27, memory=memory)
    tools = toy_tools(Script(0, 1, -1, 1, 1, 1, 1, -1, 1), Script(0, 0, 0, 1, 0, -1, -2, -2, -2))
    states = list(stream(tools, config, LATENT_HW))
    routes = {beam.chunk.route for state in states[1:] for beam in state.beams}
    assert routes == set(Route)
    assert max(len(beam.sinks) for state in states for beam in state.beams) == 2


def test_siblings_share_their_past() -> None:
    """Two beams of one parent hold the same window objects, and a blended sink once."""
    for state in stream(search_tools(), search_config(latent_frames=36), LATENT_HW):
        first, second = state.beams
        if first.chunk.parent is second.chunk.parent and first.window[:-1]:
            for a, b in zip(first.kv[:-1], second.kv[:-1], strict=True):
                assert a is b
            one = first.window[-1].nbytes
            assert live_bytes((*first.kv, *second.kv)) == (len(first.kv) + 1) * one
            return
    pytest.fail("the search never kept two children of one parent: pick another seed")


def test_pruned_branch_frees_its_kv() -> None:
    run = stream(search_tools(), search_config(), LATENT_HW)
    watched = []
    for state in run:
        watched += [(state.chunk, weakref.ref(kv)) for beam in state.beams for kv in beam.kv]
        held = {id(kv) for beam in state.beams for kv in beam.kv}
        chunk = state.chunk
    del state
    gc.collect()
    run.close()
    alive = [made for made, ref in watched if ref() is not None]
    assert chunk == 7 and watched and held and not alive


def test_kv_bytes_do_not_grow_with_the_length_of_the_video() -> None:
    events = []
    memory = Memory(max_sink_frames=6, short_gate=-100, long_gate=-100)  # append all it may
    config = search_config(latent_frames=36, memory=memory, search=Search(1, 2, span_chunks=3))
    generate(search_tools(), config, LATENT_HW, events.append)
    live = [event.kv_bytes for event in events if isinstance(event, ChunkDone)]
    chunks = [size // live[0] for size in live]
    assert chunks == [1, 2, 3] + [4] * 9  # two sinks and a window of two beside the next chunk


def test_candidate_never_writes_to_its_parents_context() -> None:
    run = stream(search_tools(), search_config(latent_frames=9), LATENT_HW)
    state = next(run)
    before = [(t, t.clone()) for beam in state.beams for kv in beam.kv for t in kv.keys + kv.values]
    decoder = [beam.decoder_state for beam in state.beams]
    next(run)
    assert decoder[0] is not None
    assert all(torch.equal(tensor, copy) for tensor, copy in before)


def test_only_survivors_get_the_context_pass() -> None:
    tools = search_tools()
    passes = []

    class Counting(CausalWan):
        def context_pass(self, *args: object, **more: object):
            passes.append(1)
            return super().context_pass(*args, **more)

    counted = replace(tools, model=Counting(tools.model.backbone))
    generate(counted, search_config(latent_frames=9), LATENT_HW)
    assert len(passes) == 3 * 2  # chunks x beam width, of 3 x 4 candidates


def test_length_is_trimmed_to_what_was_asked_for() -> None:
    for latent_frames, frames in ((1, 1), (3, 9), (4, 13), (5, 17)):
        video = generate(toy_tools(), StreamConfig(latent_frames=latent_frames), LATENT_HW)
        assert video.latent.shape == (1, 16, latent_frames, *LATENT_HW)
        assert video.frames.shape == (frames, 32, 32, 3)


@pytest.mark.parametrize("frames_per_chunk", [1, 2, 3])
def test_any_chunk_length(frames_per_chunk: int) -> None:
    memory = Memory(4 * frames_per_chunk, frames_per_chunk, 3 * frames_per_chunk, long_gate=0.0)
    config = search_config(
        latent_frames=7 * frames_per_chunk, frames_per_chunk=frames_per_chunk, memory=memory
    )
    assert generate(search_tools(), config, LATENT_HW).latent.isfinite().all()


def test_without_a_sink_the_window_is_all_there_is() -> None:
    config = StreamConfig(latent_frames=18, memory=Memory(12, 0, 0, routing=False))
    states = list(stream(toy_tools(), config, LATENT_HW))
    assert not states[-1].beams[0].sinks and len(states[-1].beams[0].window) == 3


def test_isolated_decoding_scores_chunks_alone_but_delivers_a_continuous_video() -> None:
    events = []
    config = search_config(latent_frames=9, isolated=True)
    video = generate(search_tools(), config, LATENT_HW, events.append)
    made = [event for event in events if isinstance(event, CandidatesMade)]
    assert [[len(frames) for frames in event.frames] for event in made] == [[9] * 4] * 3
    assert video.frames.shape[0] == 33
    whole, _ = search_tools().critic.decoder.decode(video.latent, None)
    torch.testing.assert_close(video.frames, whole[0])


def test_continued_decoding_equals_decoding_the_whole_path() -> None:
    video = generate(toy_tools(), StreamConfig(latent_frames=12), LATENT_HW)
    whole, _ = toy_tools().critic.decoder.decode(video.latent, None)
    torch.testing.assert_close(video.frames, whole[0], atol=1e-5, rtol=0)


def test_events_tell_the_run_in_order() -> None:
    events = []
    config = search_config(latent_frames=6)
    video = generate(search_tools(), config, LATENT_HW, events.append)
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunDone)
    assert [e.chunk for e in events if isinstance(e, ChunkDone)] == [0, 1]
    done = [e.done for e in events if isinstance(e, StepDone)]
    assert done == sorted(set(done)) and done[-1] == config.denoiser_calls - 1
    assert events[-1].best_beam == video.best_beam


def test_an_exception_from_emit_cancels_within_one_denoiser_call() -> None:
    calls = []

    class Counting(CausalWan):
        def flow(self, *args: object):
            calls.append(1)
            return super().flow(*args)

    tools = search_tools()
    tools = replace(tools, model=Counting(tools.model.backbone))

    def cancel(event: object) -> None:
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tools, search_config(), LATENT_HW, cancel)
    assert len(calls) == 3


def test_a_run_cut_short_can_be_finished() -> None:
    tools, config = search_tools(), search_config()
    run = stream(tools, config, LATENT_HW)
    next(run)
    video = finish(next(run), tools, config, lambda event: None)
    assert video.latent.shape[2] == 6 and len(video.frames) == 21


class Script:
    """The same score for all candidates of a chunk, chunk after chunk as written."""

    name = "script"

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)

    def __call__(self, clips: Clips) -> torch.Tensor:
        return torch.full((len(clips.frames),), float(self.scores.pop(0)))


class Sometimes:
    """Brightness, but not a number for the candidates of the given positions."""

    name = "sometimes"

    def __init__(self, *broken: int) -> None:
        self.broken = broken

    def __call__(self, clips: Clips) -> torch.Tensor:
        scores = Brightness()(clips)
        for index in self.broken:
            if index < len(scores) > 1:
                scores[index] = float("nan")
        return scores


def test_a_reward_that_is_not_finite_loses_and_is_reported() -> None:
    events = []
    tools = toy_tools(Brightness(), Sometimes(0, 1))
    generate(tools, search_config(latent_frames=6), LATENT_HW, events.append)
    for event in (e for e in events if isinstance(e, ChunkDone)):
        assert [c.rank is None for c in event.candidates[:2]] == [True, True]
        assert event.candidates[0].failure == "reward not finite: long.sometimes"
        assert event.candidates[0].fused is None


def test_if_all_candidates_fail_the_error_names_chunk_and_seeds() -> None:
    tools = toy_tools(Sometimes(0, 1), Sometimes(2, 3))
    reasons = r"chunk 0: no candidate.*seed 42.*short\.sometimes.*seed 44.*long\.sometimes"
    with pytest.raises(RuntimeError, match=reasons):
        generate(tools, search_config(), LATENT_HW)


def test_strict_stops_at_the_first_number_that_is_missing() -> None:
    tools = toy_tools(Brightness(), Sometimes(1, 3))
    where = r"reward 'long\.sometimes' failed on chunk 1, candidate 2, 4: not a finite number"
    with pytest.raises(RuntimeError, match=where):
        generate(tools, search_config(search=Search(strict=True)), LATENT_HW)


def test_a_reward_that_fails_for_all_is_left_out_and_reported() -> None:
    def broken(clips: Clips) -> torch.Tensor:
        raise RuntimeError("file not found")

    events = []
    tools = toy_tools(Brightness(), RewardMix(((1.0, broken), (2.0, Brightness()))))
    config = search_config(latent_frames=6)
    with_it = generate(tools, config, LATENT_HW, events.append)
    without = generate(
        toy_tools(Brightness(), RewardMix(((2.0, Brightness()),))), config, LATENT_HW
    )
    assert torch.equal(with_it.latent, without.latent)
    for event in (e for e in events if isinstance(e, ChunkDone)):
        assert event.left_out == {"long.broken": "RuntimeError: file not found"}


def test_without_any_working_reward_chunks_are_dropped_from_memory_not_blended() -> None:
    def broken(clips: Clips) -> torch.Tensor:
        raise RuntimeError("file not found")

    events = []
    generate(toy_tools(Brightness(), broken), search_config(), LATENT_HW, events.append)
    done = [e for e in events if isinstance(e, ChunkDone)]
    assert {c.route for event in done[1:] for c in event.candidates} == {"drop"}


def test_standardised_rewards_do_not_depend_on_their_scales() -> None:
    def louder(clips: Clips) -> torch.Tensor:
        return 1000 * Brightness()(clips) + 7

    config = search_config(search=Search(standardise=True))
    quiet = generate(toy_tools(Steadiness(), Brightness()), config, LATENT_HW)
    events = []
    loud = generate(toy_tools(Steadiness(), louder), config, LATENT_HW, events.append)
    assert torch.equal(quiet.latent, loud.latent)
    for event in (e for e in events if isinstance(e, ChunkDone)):
        weight = short_weight(event.chunk, config.chunks, config.search.tau)
        for candidate in event.candidates:
            assert candidate.fused == pytest.approx(fuse(*candidate.standard, weight))


def test_a_reward_that_reads_the_prompt_needs_one() -> None:
    class Reader(Brightness):
        name, needs = "reader", Needs(prompt=True)

    with pytest.raises(ValueError, match="reward 'reader' reads the prompt"):
        generate(toy_tools(Reader(), Brightness()), search_config(), LATENT_HW)


def test_latents_that_are_not_finite_lose() -> None:
    tools = search_tools()
    draw = tools.draw

    def poisoned(seed: int, steps: int, shape: tuple[int, ...]) -> torch.Tensor:
        draws = draw(seed, steps, shape)
        return draws * float("inf") if seed == 43 else draws

    events = []
    poisoned_tools = replace(tools, draw=poisoned)
    generate(poisoned_tools, search_config(latent_frames=3), LATENT_HW, events.append)
    (chunk,) = [e for e in events if isinstance(e, ChunkDone)]
    assert [c.failure for c in chunk.candidates] == [None, "latent not finite", None, None]
    assert chunk.candidates[1].rank is None


class Cramped(CausalWan):
    """Real forward pass on a card that fits ``room`` candidates at a time."""

    room = 1

    def flow(self, latent: torch.Tensor, *args: object) -> torch.Tensor:
        if latent.shape[0] > self.room:
            raise torch.cuda.OutOfMemoryError("tried to allocate 2.00 GiB")
        return super().flow(latent, *args)


def test_out_of_memory_tries_fewer_candidates_at_a_time_and_chooses_the_same() -> None:
    tools = search_tools()
    roomy = generate(tools, search_config(), LATENT_HW)
    cramped = replace(tools, model=Cramped(tools.model.backbone))
    video = generate(cramped, search_config(), LATENT_HW)
    torch.testing.assert_close(video.latent, roomy.latent, atol=1e-4, rtol=0)


def test_out_of_memory_with_one_candidate_says_what_to_do() -> None:
    tools = search_tools()
    none = replace(tools, model=Cramped(tools.model.backbone))
    none.model.room = 0
    with pytest.raises(
        torch.cuda.OutOfMemoryError, match=r"one candidate.*2\.00 GiB.*smaller video"
    ):
        generate(none, search_config(), LATENT_HW)


@pytest.mark.parametrize(
    ("tools", "changes", "latent_hw", "message"),
    [
        (toy_tools, {}, (5, 4), "5 x 4: height and width must be multiples of 2 and 2"),
        (toy_tools, {"memory": Memory(routing=False)}, LATENT_HW, "no reward to choose by"),
        (lambda: toy_tools(Brightness()), {}, LATENT_HW, "Memory Sink: routes are decided by"),
        (lambda: toy_tools(None, Steadiness()), {}, LATENT_HW, "Memory Sink: routes are decided"),
    ],
)
def test_what_cannot_work_is_found_before_the_run(tools, changes, latent_hw, message) -> None:
    with pytest.raises(ValueError, match=message):
        check(tools(), search_config(**changes), latent_hw)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoisePropagation(1.0), r"Noise Propagation: beta is 1\.0; it must lie between"),
        (lambda: Search(0, 2), "Reward Pruner: beam width 0 and branch factor 2"),
        (lambda: Search(span_chunks=0), "span is 0 chunks"),
        (lambda: Search(tau=1.5), r"tau is 1\.5; 0 to 1"),
        (lambda: Memory(window_frames=3), "leaves no room beside a sink of 3"),
        (lambda: Memory(alpha=2), "alpha is 2; 0 to 1"),
        (lambda: Memory(sink_frames=0), "need a first sink"),
        (lambda: Memory(max_sink_frames=2), "at most 2 sink frames"),
        (lambda: StreamConfig(latent_frames=0), "video length: 0 latent frames"),
        (lambda: StreamConfig(seed=-1), "seed -1"),
        (lambda: StreamConfig(memory=Memory(window_frames=10)), "window minus sink frames is 7"),
        (lambda: Schedule((250, 500)), "falling numbers"),
        (lambda: Schedule.evenly(0), "0 given, 1 to 100 allowed"),
        (lambda: Schedule(shift=0), "timestep shift 0"),
    ],
)
def test_settings_refuse_what_makes_no_sense(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_four_even_steps_are_the_released_ones() -> None:
    assert Schedule.evenly(4) == Schedule()
