"""The README's Python example runs as it stands, on the model that ships with the pack."""

import re
from pathlib import Path

import pytest

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
