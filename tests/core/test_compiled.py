"""Layers through torch.compile: same decisions, compiled once, and uncompiled where that fails."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import CHECKS, GoldenSet, find
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from toys import LATENT_HW, search_config, search_tools

from stream_t1_core.compiled import Runner
from stream_t1_core.finish import Video
from stream_t1_core.generate import generate

GOLDENS = Path(__file__).parents[1] / "goldens"
SIX = 6  # three steps of a layer, each for one row and for more
SEARCHES = [golden for golden in find(GOLDENS) if golden.kind == "stream_t1_search"]


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch.compiler.reset()
    counters.clear()


def video(run: Runner, latent_frames: int = 12) -> Video:
    tools = search_tools()
    tools.model.run = run
    with torch.inference_mode():
        return generate(tools, search_config(latent_frames=latent_frames), LATENT_HW)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("golden", SEARCHES, ids=lambda golden: golden.folder.name)
def test_a_compiled_search_decides_as_the_reference(golden: GoldenSet) -> None:
    with torch.inference_mode():
        CHECKS[golden.kind](replace(golden, compile={"backend": "inductor"}))
    assert counters["stats"]["unique_graphs"] == SIX


def test_no_layer_and_no_later_chunk_is_compiled_anew() -> None:
    counter = CompileCounter()
    made = video(Runner({"backend": counter}), 12)
    assert counter.frame_count == SIX
    video(Runner({"backend": counter}), 21)
    assert counter.frame_count == SIX
    assert torch.equal(made.latent, video(Runner()).latent)


def no_compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
    raise RuntimeError("no C++ compiler here")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"backend": no_compiler}, "no C++ compiler here"),
        ({"backend": "inductor", "options": {"no_such_option": 1}}, "no_such_option"),
        ({"backend": "no such backend"}, "no such backend"),
    ],
)
def test_where_compiling_fails_the_run_goes_on_and_says_so_once(
    options: Mapping[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = video(Runner(options, "The switch"), 6)
    [told] = [r.getMessage() for r in caplog.records if r.name == "stream_t1_core.compiled"]
    assert "The switch: compiling failed, the run goes on uncompiled" in told and reason in told
    assert torch.equal(made.latent, video(Runner(), 6).latent)
