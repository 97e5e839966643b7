"""The Refiner node and the sampler with it, on the host's own model objects."""

import json

import pytest
import torch
from boot import Pack
from check_sampler import live, sampler_inputs

REFINER = {
    "method": "ensemble",
    "passes": 2,
    "strength": 0.3,
    "members": 2,
    "vote": "mean",
    "wider_chunks": 3,
}


def brighter_alone(clips):
    """Brightness, and a bonus for what is scored alone, as refined chunks are."""
    return clips.frames.mean(dim=(1, 2, 3, 4)) + (len(clips.frames) == 1)


def outputs(pack: Pack, reward, **refiner: object) -> tuple:
    inputs = sampler_inputs(pack, reward)
    if refiner:
        unit = pack.module("nodes.options").StreamT1Refiner.execute(**{**REFINER, **refiner})[0]
        inputs["refiner"] = unit
    return pack.module("nodes.generate").StreamT1ChunkBeamSampler.execute(**inputs).result


@pytest.mark.parametrize("method", ["iterative", "ensemble", "extended"])
def check_each_method_refines_the_hosts_model(pack: Pack, method: str) -> None:
    plain, _, before = outputs(pack, brighter_alone)
    latent, frames, report = outputs(pack, brighter_alone, method=method)
    records = [json.loads(line) for line in report.splitlines()]
    told = [c["refined"] for r in records if r["event"] == "chunk_done" for c in r["candidates"]]
    refined = [r for r in told if r]
    assert len(refined) == 2 * 3 and all(r["passes"] == 2 and r["accepted"] for r in refined)
    assert not torch.equal(latent["samples"], plain["samples"])
    assert frames.shape == (33, 32, 32, 3) and torch.isfinite(frames).all()
    calls = json.loads(before.splitlines()[0])["denoiser_calls"]
    each = 2 * 3 * 2 * (2 if method == "ensemble" else 1)  # passes, chunks, beams, members
    assert records[0]["denoiser_calls"] == calls + each
    assert live(pack) == []


def check_a_refiner_without_rewards_says_what_to_plug_in(pack: Pack) -> None:
    inputs = sampler_inputs(pack, None)
    inputs["pruner"] = None
    inputs["refiner"] = pack.module("stream_t1_core.config").Refine()
    with pytest.raises(ValueError, match="Refiner: no reward.*Reward Pruner"):
        pack.module("nodes.generate").StreamT1ChunkBeamSampler.execute(**inputs)


def check_two_members_cannot_vote_for_a_medoid(pack: Pack) -> None:
    with pytest.raises(ValueError, match="Refiner: members is 2, .*3 or more, or vote to mean"):
        pack.module("nodes.options").StreamT1Refiner.execute(**{**REFINER, "vote": "medoid"})


def check_pictures_of_a_chunk_are_of_what_goes_on(pack: Pack) -> None:
    live_run = pack.module("nodes.host.live").LiveRun
    events = pack.module("stream_t1_core.events")
    run = live_run("1", None, pack.module("stream_t1_core.report").Report())
    dark, light = torch.zeros(9, 32, 32, 3), torch.ones(9, 32, 32, 3)
    run(events.CandidatesMade(0, (dark, dark, dark), (), ()))
    before = list(run.strips[0])
    run(events.SurvivorsRefined(0, {1: light}, {}))
    assert [a.jpeg == b.jpeg for a, b in zip(before, run.strips[0], strict=True)] == [
        True,
        False,
        True,
    ]
