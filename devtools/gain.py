"""Says in one line what a search gained, from the report of its run.

The format is described in `stream_t1_core/report.py`. Standard library only.
"""

from __future__ import annotations

import json
from pathlib import Path


def gain_line(report: Path) -> str:
    """What the search gained, from its report: per chunk, the best candidate's fused score against
    the first one's.

    The first candidate of a chunk is the one that plain sampling would have made from the same
    past.
    """
    records = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    pairs = []
    for record in records:
        if record["event"] != "chunk_done":
            continue
        fused = [candidate["fused"] for candidate in record["candidates"]]
        if fused and fused[0] is not None:
            pairs.append((fused[0], max(score for score in fused if score is not None)))
    if not pairs:
        return f"{report.name} holds no scored chunk, so there is no gain to tell"
    first = sum(pair[0] for pair in pairs) / len(pairs)
    best = sum(pair[1] for pair in pairs) / len(pairs)
    beaten = sum(pair[1] > pair[0] for pair in pairs)
    scaled = (records[0].get("settings", {}).get("search") or {}).get("standardise")
    unit = " standard deviations" if scaled else ""
    return (
        f"the search gained {best - first:+.3f}{unit} in mean fused score over {len(pairs)} chunks "
        f"({first:.3f} for the first candidate, {best:.3f} for the best; beaten in {beaten} chunks)"
    )
