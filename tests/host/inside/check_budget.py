"""The Budget node with the host's objects in hand: what it hands on, what it refuses, and a run."""

import json

import pytest
from boot import Pack
from check_sampler import sampler_inputs

SETTINGS = {"spend": "medium", "quality": 0.3, "amount": 5.0, "hard": False, "adaptive": False}


@pytest.mark.parametrize(
    ("spend", "target", "amount"),
    [
        ("low", "quality", 0.2),
        ("high", "quality", 1.0),
        ("quality", "quality", 0.3),
        ("seconds per chunk", "seconds per chunk", 5.0),
        ("total denoiser calls", "total denoiser calls", 5.0),
    ],
)
def check_what_is_chosen_is_what_counts(pack: Pack, spend: str, target: str, amount: float) -> None:
    node = pack.module("nodes.budget").StreamT1Budget
    (budget,) = node.execute(**(SETTINGS | {"spend": spend})).result
    assert (budget.target, budget.amount) == (target, amount)


def check_any_other_text_is_refused(pack: Pack) -> None:
    with pytest.raises(ValueError, match="Budget: spend is 'much'; one of low, medium, high"):
        pack.module("nodes.budget").StreamT1Budget.execute(**(SETTINGS | {"spend": "much"}))


def check_a_run_spends_what_its_budget_says(pack: Pack) -> None:
    config = pack.module("stream_t1_core.config")
    inputs = sampler_inputs(pack, pack.module("stream_t1_core.rewards.flicker").Flicker())
    node = pack.module("nodes.generate").StreamT1ChunkBeamSampler
    report = node.execute(**inputs, budget=config.Budget("total denoiser calls", 14)).result[2]
    done = [json.loads(line) for line in report.splitlines()][1:-1]
    assert [len(record["candidates"]) for record in done] == [1, 2, 2]
    assert sum(record["budget"]["calls"] for record in done) <= 14
