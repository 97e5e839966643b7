"""Posts a workflow to a running ComfyUI, shows its progress, and gathers what it made. The second
half of `dev.py demo`.

    python -m devtools.run_demo URL WORKFLOW SERVER_OUTPUT DESTINATION

Runs inside the host's environment: aiohttp for the conversation, PyAV and Pillow for the contact
sheet.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import av
from PIL import Image

from .client import PromptRejected, run_prompt
from .gain import gain_line

SHEET_COLUMNS = 8
SHEET_FRAMES = 32  # at most; a longer video is sampled evenly
SHEET_TILE_WIDTH = 160  # pixels
SHEET_GAP = 4  # pixels, else neighbours look like one picture
BAR_WIDTH = 30
KINDS = {".mp4": "video", ".jsonl": "report", ".html": "page"}


def main(url: str, workflow: Path, server_output: Path, destination: Path) -> int:
    if not workflow.exists():
        print(f"dev.py: {workflow} is missing; is this clone complete?", file=sys.stderr)
        return 1
    prompt = json.loads(workflow.read_text(encoding="utf-8"))
    before = set(server_output.rglob("*"))
    print(f"[dev] running {workflow.name}", flush=True)
    try:
        run = run_prompt(url, prompt, on_message=ProgressLine(prompt), timeout_seconds=3600)
    except PromptRejected as refusal:
        print(f"dev.py: ComfyUI refused the workflow. {refusal}", file=sys.stderr)
        return 1
    if run.error is not None:
        error = run.error
        where = f"node {error['node_id']} ({error['node_type']})"
        print(f"\ndev.py: {where} failed: {error['exception_message'].strip()}", file=sys.stderr)
        return 1
    made = [path for path in server_output.rglob("*") if path.is_file() and path not in before]
    return _show(_collect(made, destination))


class ProgressLine:
    """Shows the host's `progress` messages: one line redrawn on a terminal, else one per tenth."""

    def __init__(self, prompt: dict[str, dict]) -> None:
        self._class_of = {node_id: node["class_type"] for node_id, node in prompt.items()}
        self._live = sys.stdout.isatty()
        self._shown: tuple[str, int] | None = None

    def __call__(self, message: dict) -> None:
        if message["type"] != "progress":
            return
        data = message["data"]
        value, top = data["value"], max(data["max"], 1)
        name = self._class_of.get(data["node"], data["node"])
        done = int(BAR_WIDTH * value / top)
        line = f"      {name} [{'#' * done}{'.' * (BAR_WIDTH - done)}] {value:.0f}/{top:.0f}"
        if self._live:
            print("\r" + line, end="\n" if value >= top else "", flush=True)
        elif self._shown != (name, 10 * value // top):
            self._shown = (name, 10 * value // top)
            print(line, flush=True)


def _collect(made: list[Path], destination: Path) -> list[Path]:
    destination.mkdir(exist_ok=True)
    return [Path(shutil.copy2(path, destination / path.name)) for path in sorted(made)]


def _show(results: list[Path]) -> int:
    videos = [path for path in results if path.suffix == ".mp4"]
    if not videos:
        print(
            "dev.py: the workflow ended without a video in ComfyUI's output folder.",
            file=sys.stderr,
        )
        return 1
    for path in results:
        print(f"[dev] {KINDS.get(path.suffix, 'file')}: {path}")
    for video in videos:
        print(f"[dev] contact sheet: {contact_sheet(video)}")
    for report in (path for path in results if path.suffix == ".jsonl"):
        print(f"[dev] {gain_line(report)}")
    return 0


def contact_sheet(video: Path) -> Path:
    """Frames of `video`, evenly spaced in time and row by row, as a PNG beside it."""
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    count = min(len(frames), SHEET_FRAMES)
    chosen = [frames[index * len(frames) // count] for index in range(count)]
    width = SHEET_TILE_WIDTH
    height = round(width * chosen[0].height / chosen[0].width)
    columns, rows = min(count, SHEET_COLUMNS), -(-count // SHEET_COLUMNS)
    across, down = width + SHEET_GAP, height + SHEET_GAP
    sheet = Image.new("RGB", (across * columns - SHEET_GAP, down * rows - SHEET_GAP), "white")
    for index, frame in enumerate(chosen):
        place = (index % SHEET_COLUMNS * across, index // SHEET_COLUMNS * down)
        sheet.paste(frame.resize((width, height)), place)
    path = video.with_suffix(".png")
    sheet.save(path)
    return path


if __name__ == "__main__":
    url, *paths = sys.argv[1:]
    sys.exit(main(url, *map(Path, paths)))
