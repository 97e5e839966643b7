"""The paper's protocol on a real server: prompts by workflows by lengths, all scored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from graphs import small

from benchmarks import protocol
from devtools.client import Run
from devtools.server import PACK_ROOT, ComfyServer


def test_every_prompt_is_made_scored_and_not_made_again(
    server: ComfyServer, tmp_path: Path
) -> None:
    plain, searched = tmp_path / "plain.json", tmp_path / "searched.json"
    plain.write_text(json.dumps(small(noise=None, pruner=None, memory=None)))
    searched.write_text(json.dumps(small()))
    prompts, output = tmp_path / "prompts.txt", tmp_path / "rows.jsonl"
    prompts.write_text("a blue square moving up on a light background\n")

    def run() -> str:
        command = [sys.executable, "-m", "benchmarks.protocol", str(prompts)]
        command += ["--server", server.url, "--workflows", str(plain), str(searched)]
        command += ["--frames", "9", "21", "--output", str(output)]
        done = subprocess.run(command, cwd=PACK_ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = run()
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    keys = [(row["workflow"], row["frames"], row["index"]) for row in rows]
    assert keys == [("plain", 9, 0), ("searched", 9, 0), ("plain", 21, 0), ("searched", 21, 0)]
    for row in rows:
        assert row["scores"].keys() == {
            "temporal_consistency",
            "flicker",
            "motion_amount",
            "colour_drift",
        }
        assert row["prompt"].startswith("a blue square") and row["seconds"] > 0
    assert "| less plain |" in first and "1 prompts" in first

    with prompts.open("a") as file:
        file.write("a red circle moving left on a dark background\n")
    output.write_text(output.read_text() + '{"cut off')  # as a run that was killed leaves it
    run()
    lines = [line for line in output.read_text().splitlines() if line.endswith("}")]
    rows = [json.loads(line) for line in lines]
    assert [row["index"] for row in rows] == [0] * 4 + [1] * 4
    saved = sorted(path.name for path in (server.output / "protocol").iterdir())
    assert any(name.startswith("searched_21_0001") for name in saved), saved


def test_the_papers_metrics_are_a_valid_graph_that_says_what_is_missing(
    run: Callable[..., Run],
) -> None:
    file = PACK_ROOT / "benchmarks" / "protocol_paper.json"
    rewards, nodes = json.loads(file.read_text()), small(noise=None, pruner=None, memory=None)
    failed = run(protocol.scored(nodes, file, rewards, "a red circle")).error
    kinds = {node["class_type"] for node in rewards.values()}
    assert failed["node_type"] in kinds
    assert "is not there. Looked at: " in failed["exception_message"]
