"""What the README shows runs as it stands: its Python example, and the own reward in samples/."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from stream_t1_core.rewards.base import Clips

ROOT = Path(__file__).parents[2]


def test_library_example_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("torch.Size([33, 64, 64, 3])")
    assert '"event": "run_done"' in printed


def test_own_reward_is_the_one_shown_and_prefers_red() -> None:
    example = ROOT / "samples" / "own_reward.py"
    readme = (ROOT / "README.md").read_text()
    body = example.read_text().split("class Redness:")[1].split("class RednessNode")[0]
    for line in filter(None, map(str.strip, body.splitlines())):
        assert line.split("  #")[0] in readme
    node = runpy.run_path(str(example))["NODE_CLASS_MAPPINGS"]["RednessReward"]()
    (reward,) = node.make()
    frames = torch.zeros(2, 3, 4, 4, 3)
    frames[1, ..., 0] = 1.0
    assert reward(Clips(frames, frames, "", 16.0)).tolist() == [0.0, 100.0]
