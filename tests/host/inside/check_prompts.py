"""Prompts over time with the host's own text encoder: both nodes, and what the sampler reads."""

import math

import pytest
import tiny_wan
import torch
from boot import Pack
from torch import nn

TEXT = "[0:00-0:02] a red circle moving left [0:02-0:04.5] a (blue:1.2) square\n[0:04.5-] green"
PROMPTS = {0.0: "a red circle moving left", 2.0: "a (blue:1.2) square", 4.5: "green"}
FADE, KEEP_SINKS = 1.5, True


@pytest.fixture(scope="module")
def clip(pack: Pack):
    return pack.module("nodes.host.tiny").load_clip()


def backbone(width: int) -> nn.Module:
    """As much of a backbone as is asked here: how wide and how long its text is."""
    module = nn.Module()
    module.text_embedding = nn.Sequential(nn.Linear(width, 8))
    module.text_len = 512
    return module


def encode(clip, text: str) -> list:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def by_timeline(pack: Pack, clip) -> list:
    node = pack.module("nodes.timeline").StreamT1PromptTimeline
    return node.execute(clip, TEXT, FADE, KEEP_SINKS).result[0]


def by_chain(pack: Pack, clip) -> list:
    node = pack.module("nodes.timeline").StreamT1PromptAt
    (_, first), *later = PROMPTS.items()
    conditioning = encode(clip, first)
    for seconds, text in later:
        new = encode(clip, text)
        conditioning = node.execute(conditioning, new, seconds, FADE, KEEP_SINKS, text).result[0]
    return conditioning


def check_a_timeline_is_the_hosts_own_encoding_with_times(pack: Pack, clip) -> None:
    entries = by_timeline(pack, clip)
    for (rows, keys), (seconds, text) in zip(entries, PROMPTS.items(), strict=True):
        [[expected, host_keys]] = encode(clip, text)
        assert rows.equal(expected)
        assert keys == host_keys | {
            "stream_t1_seconds": seconds,
            "stream_t1_prompt": text,
            "stream_t1_fade": FADE if seconds else 0.0,
            "stream_t1_keep_sinks": True,
        }


def check_both_nodes_make_the_same_cues(pack: Pack, clip) -> None:
    prompts = pack.module("nodes.host.prompts")
    config = pack.module("stream_t1_core.config").StreamConfig(latent_frames=30)
    timeline, chain = by_timeline(pack, clip), by_chain(pack, clip)
    model = backbone(timeline[0][0].shape[2])
    cues, chained = prompts.cues(timeline, model, config), prompts.cues(chain, model, config)
    # Chunks begin at 0, 0.56, 1.31, 2.06 ... s; 1.5 s of fade are two chunks.
    assert [cue.first_chunk for cue in cues] == [0, 3, 4, 6, 7]
    assert [cue.first_chunk for cue in chained] == [0, 3, 4, 6, 7]
    for a, b in zip(cues, chained, strict=True):
        assert a.rows.equal(b.rows)
    assert [cue.prompt for cue in cues[1:]] == [cue.prompt for cue in chained[1:]]
    assert [cue.keep_sinks for cue in cues[1:]] == [cue.keep_sinks for cue in chained[1:]]
    assert cues[2].rows is timeline[1][0]
    halfway = (timeline[0][0] + timeline[1][0]) / 2
    length = cues[1].rows.shape[1]
    torch.testing.assert_close(cues[1].rows, halfway[:, :length])
    assert length < 30 and not halfway[:, length:].any()


def check_text_without_times_is_one_prompt(pack: Pack, clip) -> None:
    node = pack.module("nodes.timeline").StreamT1PromptTimeline
    [[rows, keys]] = node.execute(clip, "a red circle", 3.0, False).result[0]
    assert rows.equal(encode(clip, "a red circle")[0][0])
    assert (keys["stream_t1_seconds"], keys["stream_t1_fade"]) == (0.0, 0.0)


def check_a_malformed_timeline_fails_before_anything_is_encoded(pack: Pack) -> None:
    node = pack.module("nodes.timeline").StreamT1PromptTimeline
    with pytest.raises(ValueError, match=r"^Prompt Timeline: line 2, column 2: '\[0:8x-\]' is no"):
        node.execute(None, "[0:00-0:08] red\n [0:8x-] blue", 0.0, False)
    with pytest.raises(ValueError, match="^Prompt Timeline: clip is empty"):
        node.execute(None, "red", 0.0, False)


def check_prompt_at_wants_one_prompt_in_the_order_of_time(pack: Pack, clip) -> None:
    node = pack.module("nodes.timeline").StreamT1PromptAt
    timeline, plain = by_timeline(pack, clip), encode(clip, "red")
    for seconds in (0.0, 4.5, math.nan):
        with pytest.raises(ValueError, match="^Prompt At: seconds is .* begins at 0:04.5; make"):
            node.execute(timeline, plain, seconds, 0.0, False)
    with pytest.raises(ValueError, match="^Prompt At: conditioning has times of its own"):
        node.execute(plain, timeline, 3.0, 0.0, False)
    with pytest.raises(ValueError, match="^Prompt At: before is empty; connect CLIP Text Encode"):
        node.execute([], plain, 3.0, 0.0, False)


def check_keys_of_the_host_and_inputs_stay_as_they_are(pack: Pack) -> None:
    node = pack.module("nodes.timeline").StreamT1PromptAt
    hooks = object()
    before, new = ([[torch.ones(1, 2, 8), {"hooks": hooks}]] for _ in range(2))
    chained = node.execute(before, new, 3.0, 0.0, False, "blue").result[0]
    assert [keys["hooks"] for _, keys in chained] == [hooks, hooks]
    assert before[0][1].keys() == new[0][1].keys() == {"hooks"}
    assert (len(before), len(new)) == (1, 1)


def check_long_prompts_and_several_conditionings_are_told(
    pack: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    config = pack.module("stream_t1_core.config").StreamConfig()
    entry = [torch.zeros(1, 600, tiny_wan.TEXT), {}]
    cues = pack.module("nodes.host.prompts").cues
    [cue] = cues([entry, entry], backbone(tiny_wan.TEXT), config)
    assert (cue.first_chunk, cue.prompt, cue.keep_sinks) == (0, "", False)
    assert cue.rows is entry[0]
    assert "600 tokens, the model sees the first 512" in caplog.text
    assert "2 conditionings at one time, the first is used" in caplog.text


def check_another_text_encoder_is_refused(pack: Pack) -> None:
    config = pack.module("stream_t1_core.config").StreamConfig()
    cues = pack.module("nodes.host.prompts").cues
    late = [torch.zeros(1, 77, 768), {"stream_t1_seconds": 3.0}]
    for positive in ([late], [[torch.zeros(1, 9, 4096), {}], late]):
        with pytest.raises(ValueError, match=r"positive: .*\[1, 77, 768\].*4096.*UMT5-XXL"):
            cues(positive, backbone(4096), config)
    with pytest.raises(ValueError, match="positive: the CONDITIONING is empty; connect CLIP Text"):
        cues([], backbone(4096), config)
