"""CONDITIONING in, the core's prompts over time out; and how a CONDITIONING carries its time.

The keys below lie beside the host's own in an entry's dict, so any conditioning node in between
passes them on. An entry without them begins at second 0.
"""

import logging

from torch import Tensor, nn

from ...stream_t1_core.config import StreamConfig
from ...stream_t1_core.cues import Cue, TimedPrompt, schedule

log = logging.getLogger(__name__)

SECONDS = "stream_t1_seconds"
PROMPT = "stream_t1_prompt"
FADE = "stream_t1_fade"
KEEP_SINKS = "stream_t1_keep_sinks"

Conditioning = list[list]  # of [rows [1, L, text_dim], dict]


def at(
    conditioning: Conditioning, seconds: float, prompt: str, fade_seconds: float, keep_sinks: bool
) -> Conditioning:
    """The same prompt, to begin at a second of the video. One entry, as LongLive has one prompt."""
    rows, host_keys = _first(conditioning)
    time = {SECONDS: seconds, PROMPT: prompt, FADE: fade_seconds, KEEP_SINKS: keep_sinks}
    return [[rows, {**host_keys, **time}]]


def last_second(conditioning: Conditioning) -> float:
    """When the last of its prompts begins."""
    return max((entry[1].get(SECONDS, 0.0) for entry in conditioning), default=0.0)


def is_timed(conditioning: Conditioning) -> bool:
    return any(SECONDS in entry[1] for entry in conditioning)


def cues(positive: Conditioning, backbone: nn.Module, config: StreamConfig) -> list[Cue]:
    """The prompts of a run by chunk, the first at chunk 0; fades are spelled out."""
    if not positive:
        raise ValueError("positive: the CONDITIONING is empty; connect CLIP Text Encode")
    untimed = [entry for entry in positive if SECONDS not in entry[1]]
    timed = [entry for entry in positive if SECONDS in entry[1]]
    entries = [_first(untimed), *timed] if untimed else timed
    return schedule([_timed_prompt(entry, backbone) for entry in entries], config)


def _timed_prompt(entry: list, backbone: nn.Module) -> TimedPrompt:
    rows, keys = entry
    return TimedPrompt(
        keys.get(SECONDS, 0.0),
        _checked(rows, backbone),
        keys.get(PROMPT, ""),
        keys.get(FADE, 0.0),
        keys.get(KEEP_SINKS, False),
    )


def _first(conditioning: Conditioning) -> list:
    if len(conditioning) > 1:
        log.warning(
            "Stream-T1: %d conditionings at one time, the first is used; write one prompt "
            "instead, or give each its own time with Prompt At",
            len(conditioning),
        )
    return conditioning[0]


def _checked(rows: Tensor, backbone: nn.Module) -> Tensor:
    """The rows [1, L, text_dim], if they are of the size that the model reads."""
    width = backbone.text_embedding[0].in_features
    if rows.ndim != 3 or rows.shape[0] != 1 or rows.shape[2] != width:
        raise ValueError(
            f"positive: conditioning of shape {list(rows.shape)}, but this model reads [1, rows, "
            f"{width}]. Wan models need the UMT5-XXL text encoder (Load CLIP, type 'wan'); Tiny "
            "Model brings its own CLIP"
        )
    if rows.shape[1] > backbone.text_len:
        log.warning(
            "Stream-T1: the prompt has %d tokens, the model sees the first %d",
            rows.shape[1],
            backbone.text_len,
        )
    return rows
