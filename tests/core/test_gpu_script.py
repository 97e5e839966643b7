"""The script for a GPU, tried out at tiny sizes on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from stream_t1_core.backbone import BackboneShape, WanBackbone

ROOT = Path(__file__).parents[2]
SECTIONS = ["card", "plain streaming", "call, 1 candidate", "ours, 2 x 2"]
SECTIONS += ["plain streaming, compiled", "low memory, 8 GB", "ours, 2 x 2, compiled"]


def test_it_measures_and_writes_down_every_kind_of_section(tmp_path: Path) -> None:
    where = ["--size", "tiny", "--device", "cpu", "--dtype", "float32", "--into", str(tmp_path)]
    gpu.main([*where, "--chunks", "1", "--backend", "eager", "--only", *SECTIONS, "overlap"])
    told = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert [*told] == [*SECTIONS, "overlap"] and not any(
        "failed" in section for section in told.values()
    )
    plain, call = told["plain streaming"], told["call, 1 candidate"]
    assert 0 < plain["frames a second"] < plain["without decoding"]
    assert sum(call["shares"].values()) == pytest.approx(1)
    assert min(call["shares"].values()) > 0  # every kind of kernel is told by its name
    assert 0 < call["of the matrix rate"] < 1
    assert told["ours, 2 x 2"]["search / price of its calls"] > 0
    assert told["ours, 2 x 2, compiled"]["compiled"]
    assert told["ours, 2 x 2, compiled"]["chunks decided alike"] == 2
    assert set(told["low memory, 8 GB"]["accounted"]) == {"denoising", "decoding"}
    overlap = told["overlap"]
    assert overlap["both at once"] > 0 and 1 < overlap["at best"]
    written = (tmp_path / "gpu.md").read_text()
    assert all(f"| {name} |" in written for name in SECTIONS[1:])


def test_a_section_that_fails_is_told_and_the_next_one_runs(tmp_path: Path) -> None:
    names = ["call, 1 candidate", "card"]
    gpu.main(["--size", "tiny", "--device", "meta", "--into", str(tmp_path), "--only", *names])
    told = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert [*told] == names and "failed" in told[names[0]]
    assert f"{names[0]}: failed" in (tmp_path / "gpu.md").read_text()


def test_a_device_that_is_not_there_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cuda:99"])
    assert "argument --device: 'cuda:99' cannot be used: " in capsys.readouterr().err


def test_operations_of_a_call_are_those_of_its_products() -> None:
    shape = BackboneShape(dim=8, ffn_dim=20, num_layers=3, num_heads=2, text_len=4)
    layers = WanBackbone(shape).blocks
    # keys and values of the text are not made in a call
    weights = sum(
        layer.weight.numel()
        for name, layer in layers.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and not name.endswith(("cross_attn.k", "cross_attn.v"))
    )
    scores = 3 * 2 * 2 * 6 * (10 + 6 + 4) * 8  # layers; two products; of 6 queries and all keys
    assert gpu.call_operations(shape, own=6, past=10) == 2 * 6 * weights + scores


def test_it_needs_torch_and_nothing_else() -> None:
    others = ("numpy", "matplotlib", "safetensors", "scipy", "PIL", "transformers")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({others!r})); import benchmarks.gpu"
    subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, check=True)
