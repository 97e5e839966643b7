"""A state that was saved goes on as the state itself, bit for bit, and is no larger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from toys import LATENT_HW, search_config, search_tools

from stream_t1_core import snapshot, whole_files
from stream_t1_core.config import Search
from stream_t1_core.finish import finish
from stream_t1_core.generate import run_chunk, stream
from stream_t1_core.kv import ChunkKV, Route, live_bytes
from stream_t1_core.rewards.tally import Tally
from stream_t1_core.state import Beam, Chunk, Scores, StreamState


def on_disk(state: StreamState, folder: Path) -> StreamState:
    """Through a file, as a later process finds it."""
    tensors, about = snapshot.save(state)
    path = folder / "snapshot.safetensors"
    whole_files.write_tensors(path, tensors, {"about": json.dumps(about, allow_nan=False)})
    metadata, _ = whole_files.read_header(path)
    return snapshot.load(whole_files.read_tensors(path), json.loads(metadata["about"]), "cpu")


def kv_of(state: StreamState) -> list[ChunkKV]:
    return list({id(kv): kv for beam in state.beams for kv in beam.kv}.values())


@torch.inference_mode()
def test_a_stream_goes_on_from_a_snapshot_bit_for_bit(tmp_path: Path) -> None:
    tools = search_tools()
    plan = Search(beam_width=2, branch_factor=2, span_chunks=3, standardise=True)
    config = search_config(latent_frames=18, search=plan, whole=False)
    events: list[object] = []
    for state in stream(tools, config, LATENT_HW):
        if state.chunk == 5:
            break
    found = on_disk(state, tmp_path)
    assert (found.chunk, found.settled, found.seen) == (5, state.settled, state.seen)
    assert live_bytes(kv_of(found)) == live_bytes(kv_of(state))
    assert len(kv_of(found)) == len(kv_of(state))
    for ours, theirs in zip(kv_of(state), kv_of(found), strict=True):
        for a, b in zip((*ours.keys, *ours.values), (*theirs.keys, *theirs.values), strict=True):
            assert torch.equal(a, b) and (a.numel() == 1 or a.stride() == b.stride())
    one, other = (run_chunk(s, tools, config, LATENT_HW, events.append) for s in (state, found))
    for a, b in zip(one.beams, other.beams, strict=True):
        assert a.chunk.scores == b.chunk.scores
        assert torch.equal(a.chunk.latent, b.chunk.latent) and torch.equal(a.noise, b.noise)
        assert torch.equal(a.chunk.frames, b.chunk.frames)
        assert all(map(torch.equal, a.decoder_state.history, b.decoder_state.history))
    ends = [finish(end, tools, config, events.append) for end in (one, other)]
    assert ends[0].final_scores == ends[1].final_scores


def test_what_is_hard_to_write_comes_back() -> None:
    values = {"nan": float("nan"), "inf": float("-inf"), "tiny": 5e-324, "sum": 0.1 + 0.2}
    latent = torch.randn(2, 3, 4).permute(2, 0, 1)
    scores = Scores(None, 1.5, 0.0, values, (None, 0.25))
    chunk = None
    for index in range(5000):  # deeper than Python's recursion goes
        chunk = Chunk(index, 3 * index, None, latent, None, scores, Route.BLEND, chunk, None)
    state = StreamState(5000, (Beam(chunk), Beam(chunk, 1)), {"short.x": Tally(2, 0.5, 1 / 3)}, 7)
    tensors, about = snapshot.save(state)
    assert len(tensors) == 1
    found = snapshot.load(tensors, json.loads(json.dumps(about, allow_nan=False)), "cpu")
    assert repr(found.seen) == repr(state.seen) and found.settled == 7
    tip = found.beams[0].chunk
    assert tip is found.beams[1].chunk and found.beams[1].rank == 1
    assert repr(tip.scores) == repr(scores) and tip.route is Route.BLEND
    assert len(tip.path()) == 5000 and tip.path()[0].latent is tip.latent
    assert torch.equal(tip.latent, latent) and tip.latent.stride() == latent.stride()
    assert found.beams[0].sinks == () and found.beams[0].noise is None


@pytest.mark.parametrize(
    "records",
    [
        None,
        [],
        [["Popen", {"args": "ls"}]],
        [["Beam", {"chunk": {"record": 0}}]],
        [["Beam", {}]],
        [["StreamState", {"planet": 1}]],
        [["StreamState", {"beams": {"tensor": ["x", True, 1]}}]],
        [["StreamState", {"beams": {"tensor": ["a", True, 1 << 40, 1]}}]],
        [["StreamState", {"beams": {"eval": "1"}}]],
        [["StreamState", {"beams": {"route": "home"}}]],
    ],
)
def test_what_is_no_state_is_refused(records: object) -> None:
    with pytest.raises(ValueError, match="it holds"):
        snapshot.load({"a": torch.zeros(2, 3)}, {"records": records}, "cpu")
