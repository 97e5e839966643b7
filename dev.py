"""The commands of this repository, from nothing but Python 3.10 and a package index:

    python dev.py demo     a prompt becomes a searched video, in a real ComfyUI on this CPU
    python dev.py test     every test: the core alone, a real server, and a real browser
    python dev.py bench    every measurement of the tiny model, into benchmarks/results

Standard library only. Everything it makes stays inside the clone, in .venv and .host (about 7 GB,
nearly all of it torch), and is made once. Remove the two folders to start over.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036, an older Python is what this line is for
    sys.exit(f"dev.py: this is Python {sys.version.split()[0]}; Python 3.10 or newer is needed.")

import argparse
import os
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from devtools.environment import (
    BENCH_TOOLS,
    TEST_TOOLS,
    Environment,
    SetupError,
    find_host,
    install_packages,
    make_environment,
    make_front_ends,
    make_host,
    say,
)
from devtools.server import ServerError, free_port, port_is_taken, start_server

CLONE = Path(__file__).resolve().parent
WORK = CLONE / ".host"
DEMO_OUTPUT = CLONE / "demo_output"
QUICKSTART = CLONE / "workflows" / "api" / "quickstart.json"
TIERS = ("core", "host", "browser")
BENCHMARKS = {  # what two cores take for it, about, and what runs; quality first, then costs
    "systems": ("1.5 hours", ["benchmarks.systems"]),
    "systems_long": ("2 hours", ["benchmarks.systems", "--long", "--clips", "16"]),
    "scaling": ("1.5 hours", ["benchmarks.scaling"]),
    "refine": ("1 hour", ["benchmarks.refine"]),
    "early_pruning": ("1 hour", ["benchmarks.early_pruning"]),
    "budget": ("40 minutes", ["benchmarks.budget"]),
    "budget_load": ("20 minutes", ["benchmarks.budget_load"]),
    "scoring_decoder": ("5 minutes", ["benchmarks.scoring_decoder"]),
    "first_noise": ("2 minutes", ["benchmarks.first_noise"]),
    "noise_again": ("15 minutes", ["benchmarks.noise_again"]),
    "positions": ("20 minutes", ["benchmarks.positions"]),
    "deadline": ("10 minutes", ["benchmarks.deadline"]),
    "speed": ("5 minutes", ["benchmarks.speed", "--size", "tiny"]),
    "overlap": ("1 minute", ["benchmarks.overlap", "--size", "tiny"]),
    "rewards": ("5 minutes", ["benchmarks.rewards"]),
    "long_stream": ("30 minutes", ["benchmarks.long_stream"]),
}
BENCH_WORDS = "In this order. Stopped, they go on with the next clip; the last five begin anew.\n"
BENCH_WORDS += "".join(f"\n  {name:16} about {cost}" for name, (cost, _) in BENCHMARKS.items())
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
BIG_DOWNLOAD = (
    "The first run downloads about 7 GB and takes a few minutes; later ones start at once."
)


def main(arguments: list[str]) -> int:
    options, pytest_arguments = _parse(arguments)
    try:
        if options.command == "demo":
            return demo(options)
        if options.command == "bench":
            return bench(options)
        return test(options, pytest_arguments)
    except (SetupError, ServerError) as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dev.py: stopped; run the same command again to go on.", file=sys.stderr)
        return 130


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--comfyui",
        metavar="PATH",
        default=os.environ.get("COMFYUI_PATH") or None,
        help="a ComfyUI folder (default: COMFYUI_PATH, the one around this clone, or one from pip)",
    )
    common.add_argument(
        "--venv", metavar="PATH", help="a virtual environment to use (default: .venv)"
    )
    common.add_argument(
        "--torch-index", metavar="URL", help="where pip gets torch from, such as a CPU-only index"
    )
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo_parser = commands.add_parser("demo", parents=[common], help="make a video and a report")
    demo_parser.add_argument("--port", type=int, help="the server's port (default: a free one)")
    test_parser = commands.add_parser(
        "test",
        parents=[common],
        help="run the tests; further arguments go to pytest (--only core -k doctor)",
    )
    test_parser.add_argument("--only", choices=TIERS, help="run one tier")
    bench_parser = commands.add_parser(
        "bench",
        parents=[common],
        help="measure the tiny model",
        epilog=BENCH_WORDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench_parser.add_argument(
        "--only", metavar="NAME", choices=BENCHMARKS, help="run one of those below"
    )
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options, rest


def set_up(options: argparse.Namespace, tools: Sequence[str] = ()) -> tuple[Environment, Path]:
    """The environment and the host, ready to boot a server."""
    host = find_host(
        options.comfyui, CLONE
    )  # a wrong path should be heard of before 7 GB are fetched
    folder = Path(options.venv).expanduser().resolve() if options.venv else CLONE / ".venv"
    if not folder.exists() and options.venv:
        raise SetupError(f"--venv {folder}: nothing is there; leave --venv out to have one made.")
    if not folder.exists():
        say(BIG_DOWNLOAD)
    environment = make_environment(folder, options.torch_index)
    if host is None:
        host = make_host(environment.python, WORK)
    install_packages(environment, host, options.torch_index, tools)
    say(f"Python: {environment.python}")
    say(f"ComfyUI: {host}")
    return environment, host


# --- demo ---------------------------------------------------------------------------------------


def demo(options: argparse.Namespace) -> int:
    if options.port is not None and port_is_taken(options.port):
        raise ServerError(
            f"Port {options.port} is taken by another program; leave --port out to use a free one."
        )
    environment, host = set_up(options)
    port = options.port or free_port()
    say(f"starting ComfyUI on port {port}, on the CPU")
    server = start_server(environment.python, host, WORK / "base", WORK / "demo-server.log", port)
    try:
        command = [str(environment.python), "-m", "devtools.run_demo", server.url, str(QUICKSTART)]
        command += [str(server.output), str(DEMO_OUTPUT)]
        return subprocess.run(command, cwd=CLONE).returncode
    finally:
        server.stop()


# --- bench --------------------------------------------------------------------------------------


def bench(options: argparse.Namespace) -> int:
    environment, _ = set_up(options, BENCH_TOOLS)
    for name in [options.only] if options.only else BENCHMARKS:
        cost, arguments = BENCHMARKS[name]
        say(f"benchmark {name}, about {cost}")
        command = [str(environment.python), "-m", *arguments]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}  # a process for each core
        code = subprocess.run(command, cwd=CLONE, env=variables).returncode
        if code:
            return code
    return 0


# --- test ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one tier. `problem` says why it failed or did not run, None when it passed."""

    tier: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problem: str | None = None
    ran: bool = True

    def counts(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def test(options: argparse.Namespace, pytest_arguments: list[str]) -> int:
    environment, host = set_up(options, TEST_TOOLS)
    wanted = (options.only,) if options.only else TIERS
    # one thread: the tests' tensors are small, and two tiers run side by side
    variables = {"OMP_NUM_THREADS": "1", **os.environ, "COMFYUI_PATH": str(host)}
    with ThreadPoolExecutor() as pool:
        begun = [
            pool.submit(
                run_pytest, tier, CLONE / "tests" / tier, environment, variables, pytest_arguments
            )
            for tier in ("core", "host")
            if tier in wanted
        ]
        outcomes = [tier.result() for tier in begun]
    if "browser" in wanted:
        scripts = sorted((CLONE / "tests/web").glob("*.mjs"))
        if scripts:
            outcomes.append(run_node(scripts))
        if any(shutil.which(name) for name in CHROMIUM_NAMES):
            variables["STREAM_T1_FRONT_ENDS"] = str(make_front_ends(environment.python, WORK))
            folder = CLONE / "tests/web"
            outcomes.append(run_pytest("browser", folder, environment, variables, pytest_arguments))
        else:
            outcomes.append(Outcome("browser", problem="no Chromium on the PATH", ran=False))
    return close(outcomes, in_ci=os.environ.get("CI", "").lower() in ("1", "true"))


def run_pytest(
    tier: str,
    folder: Path,
    environment: Environment,
    variables: dict[str, str],
    arguments: list[str],
) -> Outcome:
    """One tier in a pytest of its own: host and core tests cannot share an import path."""
    say(f"tier {tier}")
    report = WORK / f"{tier}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    command = [
        str(environment.python),
        "-m",
        "pytest",
        str(folder),
        "-rs",
        f"--junitxml={report}",
        *arguments,
    ]
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=CLONE,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    for line in process.stdout:
        print(f"{tier}: {line}", end="", flush=True)
    code = process.wait()
    say(f"tier {tier} took {time.monotonic() - start:.0f} s")
    return read_outcome(tier, code, report)


def read_outcome(tier: str, code: int, report: Path) -> Outcome:
    """The verdict on a pytest call from its exit code and its junit file."""
    if not report.exists():
        return Outcome(tier, failed=1, problem=f"pytest ended with exit code {code} and no result")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    tests, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    passed = tests - skipped - failed
    if code == 5 or tests == 0:
        return Outcome(tier, failed=1, problem="it holds no test, or the arguments left none")
    if code != 0 or failed:
        problem = f"pytest ended with exit code {code}"
        return Outcome(tier, passed, max(failed, 1), skipped, problem)
    if passed == 0:
        return Outcome(tier, skipped=skipped, problem="every test in it was skipped", ran=False)
    return Outcome(tier, passed, failed, skipped)


def run_node(scripts: list[Path]) -> Outcome:
    """The tests of the pack's browser code that need no browser."""
    node = shutil.which("node")
    if node is None:
        return Outcome("scripts", problem="Node.js is not installed", ran=False)
    say("tier scripts")
    command = [node, "--test", *map(str, scripts)]
    answer = subprocess.run(
        command, cwd=CLONE, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    print(answer.stdout, answer.stderr, sep="", flush=True)
    counts = dict(re.findall(r"^\W+ (pass|fail|skipped) (\d+)$", answer.stdout, re.MULTILINE))
    passed, failed, skipped = (int(counts.get(key, 0)) for key in ("pass", "fail", "skipped"))
    if answer.returncode or failed or not passed:
        return Outcome(
            "scripts",
            passed,
            max(failed, 1),
            skipped,
            f"node ended with exit code {answer.returncode}",
        )
    return Outcome("scripts", passed, failed, skipped)


def close(outcomes: list[Outcome], in_ci: bool) -> int:
    """Prints the summary. A tier that did not run never counts as passed, and fails in CI."""
    print("\n" + "=" * 80)
    bad = 0
    for outcome in outcomes:
        if outcome.problem is None:
            verdict = "passed"
        elif outcome.ran or in_ci:
            bad += 1
            verdict = f"FAILED: {outcome.problem}"
        else:
            verdict = f"!!! SKIPPED, NOT TESTED !!!: {outcome.problem}"
        print(f"{outcome.tier:8} {verdict} ({outcome.counts()})")
    unrun = sum(not outcome.ran for outcome in outcomes) if in_ci else 0
    passed, skipped = sum(o.passed for o in outcomes), sum(o.skipped for o in outcomes)
    failed = sum(o.failed for o in outcomes) + unrun
    print(f"total: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
