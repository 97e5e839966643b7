"""dev.py: each bad state ends in one sentence, and no tier passes without a test."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import dev
from devtools import environment as setup
from devtools.environment import Environment, SetupError
from devtools.gain import gain_line
from devtools.server import PACK_ROOT, ServerError, link_pack, start_server

NOTHING_LISTENS = "http://127.0.0.1:9/simple"


def run_dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "dev.py", *arguments]
    return subprocess.run(command, cwd=PACK_ROOT, capture_output=True, text=True, timeout=60)


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The only line on stderr; the exit code says that it failed."""
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    return line


def test_a_folder_that_is_no_comfyui_is_named(tmp_path: Path) -> None:
    line = one_sentence(run_dev("test", "--comfyui", str(tmp_path)))
    assert f"{tmp_path} is not a ComfyUI folder" in line


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Port {port} is taken" in one_sentence(run_dev("demo", "--port", str(port)))


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    line = one_sentence(run_dev("test", "--venv", str(tmp_path)))
    assert f"{tmp_path} is not a virtual environment" in line
    assert (tmp_path / "thesis.txt").exists()


def test_a_mistyped_environment_is_named_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "mistyped"
    line = one_sentence(run_dev("demo", "--venv", str(missing)))
    assert f"--venv {missing}: nothing is there" in line
    assert not missing.exists()


def test_an_old_python_is_refused() -> None:
    program = "import sys, runpy; sys.version_info = (3, 9, 1); runpy.run_path('dev.py')"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=PACK_ROOT, capture_output=True, text=True
    )
    assert "Python 3.10 or newer is needed" in one_sentence(result)


def test_somebody_elses_environment_is_only_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False)
    theirs = setup.make_environment(folder, torch_index=None)
    host = make_host_folder(tmp_path)
    with pytest.raises(SetupError, match=r"was not made by dev\.py and lacks torch "):
        setup.install_packages(theirs, host, torch_index=None)
    assert not theirs.is_ours


def test_a_half_made_environment_is_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = Environment(tmp_path / "venv")
    (half.folder / "lib").mkdir(parents=True)
    half.write_marker({}, under_way="torch")
    made = setup.make_environment(half.folder, torch_index=None)
    assert "was left half-made" in capsys.readouterr().out
    assert made.finished_steps() == {}
    assert subprocess.run([made.python, "-c", "pass"]).returncode == 0
    assert setup.make_environment(half.folder, torch_index=None) == made
    assert "anew" not in capsys.readouterr().out


def test_an_environment_for_another_torch_is_made_anew(tmp_path: Path) -> None:
    ours = Environment(tmp_path)
    venv.create(tmp_path, with_pip=False)
    ours.write_marker({"torch": ["torch==1.0"]}, under_way=None)
    assert setup._reason_to_remake(ours, None) == "was made for another torch"


def test_no_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", NOTHING_LISTENS)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", NOTHING_LISTENS)
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SetupError, match="pip reached no package index"):
        setup.pip(Path(sys.executable), "download", "--no-deps", "comfyui-no-such-package")


def test_a_server_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    host = make_host_folder(tmp_path, main="print('no such card'); raise SystemExit(3)")
    with pytest.raises(ServerError, match=r"exit code 3[\s\S]*no such card"):
        start_server(sys.executable, host, tmp_path / "base", tmp_path / "server.log")


def test_the_pack_is_linked_once_and_relinked_when_the_clone_moved(tmp_path: Path) -> None:
    link = link_pack(tmp_path)
    assert link.resolve() == PACK_ROOT and link_pack(tmp_path) == link
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    assert link_pack(tmp_path).resolve() == PACK_ROOT


def test_the_hosts_list_is_taken_without_torch_and_examples(tmp_path: Path) -> None:
    lines = ["comfyui-workflow-templates==1", "torch", "torchsde", "# a word", "", "av>=14"]
    host = make_host_folder(tmp_path, requirements="\n".join(lines))
    assert setup._host_request(host) == ["torchsde", "av>=14", "requests"]


def test_a_tier_without_tests_fails(tmp_path: Path) -> None:
    report = write_junit(tmp_path, tests=0, skipped=0)
    assert dev.read_outcome("host", 5, report).problem
    assert dev.close([dev.read_outcome("host", 5, report)], in_ci=False) == 1
    assert dev.close([dev.read_outcome("host", 3, tmp_path / "none.xml")], in_ci=False) == 1


def test_a_tier_that_skipped_everything_fails_in_ci_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = dev.read_outcome("browser", 0, write_junit(tmp_path, tests=3, skipped=3))
    assert dev.close([outcome], in_ci=False) == 0
    assert "SKIPPED, NOT TESTED" in capsys.readouterr().out
    assert dev.close([outcome], in_ci=True) == 1
    assert capsys.readouterr().out.endswith("total: 0 passed, 1 failed, 3 skipped\n")


def test_a_tier_passes_by_its_tests(tmp_path: Path) -> None:
    outcome = dev.read_outcome("core", 0, write_junit(tmp_path, tests=3, skipped=1))
    assert (outcome.passed, outcome.skipped, outcome.problem) == (2, 1, None)
    assert dev.close([outcome], in_ci=True) == 0


def test_every_benchmark_is_there_and_says_what_it_costs() -> None:
    told = run_dev("bench", "--help").stdout
    for name, (cost, (module, *_)) in dev.BENCHMARKS.items():
        assert f"{name} " in told and f"about {cost}" in told
        assert (PACK_ROOT / module.replace(".", "/")).with_suffix(".py").exists()


def test_the_gain_compares_the_best_with_the_first_candidate(tmp_path: Path) -> None:
    report = tmp_path / "run.jsonl"
    chunks = [[0.2, 0.5, None], [0.4, 0.1], [None, 0.3]]
    records = [{"event": "run_started"}]
    for fused in chunks:
        candidates = [{"fused": score} for score in fused]
        records.append({"event": "chunk_done", "candidates": candidates})
    report.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert gain_line(report).startswith(
        "the search gained +0.150 in mean fused score over 2 chunks"
    )


def make_host_folder(parent: Path, main: str = "", requirements: str = "") -> Path:
    """A folder with the files that tell a ComfyUI."""
    host = parent / "host"
    (host / "comfy").mkdir(parents=True)
    for name, text in {"main.py": main, "nodes.py": "", "requirements.txt": requirements}.items():
        (host / name).write_text(text)
    return host


def write_junit(folder: Path, tests: int, skipped: int) -> Path:
    report = folder / "report.xml"
    counts = f'tests="{tests}" skipped="{skipped}" failures="0" errors="0"'
    report.write_text(f"<testsuites><testsuite {counts}/></testsuites>")
    return report
