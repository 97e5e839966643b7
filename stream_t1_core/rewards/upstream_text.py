"""Prompt texts that are upstream's, not ours: taken from the user's copy of upstream's source file.

The file is parsed, never executed: only string constants at module level are looked at, and each
must have the right sha256, since another text would silently give other scores.
"""

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class UpstreamFile:
    """Where a text comes from, and how its constants are recognised."""

    name: str  # as the user saves it
    path: str  # inside the repository
    repository: str
    sha256: Mapping[str, str] = field(repr=False)  # of each constant's UTF-8


VIDEOALIGN_TEXT = UpstreamFile(
    name="prompt_template.py",
    path="prompt_template.py",
    repository="https://github.com/KlingAIResearch/VideoAlign",
    sha256={
        "DETAILED_PROMPT_WITH_SPECIAL_TOKEN": (
            "fdb6309bac618dd0c8b1b589d3a0970a974f7856eecbb355a190b2dce54af700"
        )
    },
)
HPSV3_TEXT = UpstreamFile(
    name="data_collator_qwen.py",
    path="hpsv3/dataset/data_collator_qwen.py",
    repository="https://github.com/MizzenAI/HPSv3",
    sha256={
        "INSTRUCTION": "0393599dad45a971903d1d62a3acf9bad3ccccdafa7f40f680523419e1f68b7a",
        "prompt_with_special_token": (
            "2471faca094ae5bd6fe17b71dce20c3d7583625545e235889f7e74e7eeb69d0a"
        ),
    },
)


def read_constants(folder: Path, upstream: UpstreamFile) -> list[str]:
    """The file's constants, in the order of ``upstream.sha256``.

    Raises FileNotFoundError without the file, ValueError where it is another than the known one.
    """
    path = folder / upstream.name
    remedy = f"copy {upstream.path} of {upstream.repository} unchanged to {path}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found. It holds the prompt text that the reward was trained with, which "
            f"is not ours to ship: {remedy}"
        )
    try:
        found = _string_constants(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no Python source ({error}): {remedy}") from error
    for name, wanted in upstream.sha256.items():
        if name not in found:
            names = ", ".join(found) or "none"
            raise ValueError(f"{path} has no text {name} (its texts: {names}): {remedy}")
        digest = hashlib.sha256(found[name].encode()).hexdigest()
        if digest != wanted:
            raise ValueError(
                f"{name} in {path} is not the text that the reward was trained with: "
                f"{len(found[name])} characters of sha256 {digest}, wanted {wanted}; {remedy}"
            )
    return [found[name] for name in upstream.sha256]


def _string_constants(source: str) -> dict[str, str]:
    """Names and values of ``NAME = "text"`` at module level."""
    return {
        target.id: statement.value.value
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
