"""Every error a user of these nodes can make: it names the input, the value and the remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graphs import changed, small

from devtools.client import PromptRejected, Run

RunPrompt = Callable[..., Run]
SAMPLER, PRUNER, MEMORY = "StreamT1ChunkBeamSampler", "StreamT1RewardPruner", "StreamT1MemorySink"


def node(class_type: str, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def latent_from(class_type: str, **inputs: object) -> dict:
    """The small prompt with another node as its latent."""
    prompt = changed(small(seed=201), SAMPLER, latent=["70", 0])
    return prompt | {"70": node(class_type, **inputs), "71": IMAGE}


def loader(**inputs: object) -> dict:
    """A LongLive Loader as the sampler's model."""
    files = {"base": "gone.pt", "lora": "none", "strength": 1.0}
    options = {"precision": "bfloat16", "use_ema": True}
    prompt = changed(small(seed=202), SAMPLER, model=["70", 0])
    return prompt | {"70": node("StreamT1LongLiveLoader", **(files | options | inputs))}


IMAGE = node("EmptyImage", width=32, height=32, batch_size=5, color=255)
VIDEO = {"width": 32, "height": 32, "length": 9, "batch_size": 1}

FAILURES = {
    "image latent": (
        latent_from("EmptyLatentImage", width=64, height=64, batch_size=1),
        ["latent: shape [1, 4, 8, 8] has 4 axes", "EmptyHunyuanLatentVideo"],
    ),
    "other channels": (
        latent_from("EmptyMochiLatentVideo", **VIDEO),
        ["latent: 12 channels, Wan 2.1 latents have 16", "EmptyHunyuanLatentVideo"],
    ),
    "batch": (
        latent_from("EmptyHunyuanLatentVideo", **(VIDEO | {"batch_size": 2})),
        ["latent: batch of 2; make one video at a time, queue several runs"],
    ),
    "odd size": (
        latent_from("EmptyHunyuanLatentVideo", **(VIDEO | {"width": 40})),
        ["latent of 4 x 5: height and width must be multiples of 2", "multiples of 16"],
    ),
    "latent with content": (
        latent_from("VAEEncode", pixels=["71", 0], vae=["1", 2]),
        ["latent: it is not empty", "would ignore it", "EmptyHunyuanLatentVideo"],
    ),
    "no reward to choose by": (
        changed(small(seed=203), PRUNER, short_reward=None, long_reward=None),
        ["Reward Pruner: 4 candidates a chunk but no reward", "beam width and branch factor to 1"],
    ),
    "routes without a long reward": (
        changed(small(seed=204), PRUNER, long_reward=None),
        ["Memory Sink: routes are decided by a short and a long reward", "or turn routing off"],
    ),
    "routes without a pruner": (
        small(seed=205, pruner=None),
        ["Memory Sink: routes are decided by a short and a long reward", "Reward Pruner"],
    ),
    "window no larger than the sink": (
        changed(small(seed=206), MEMORY, window_frames=3),
        ["Memory Sink: window of 3 latent frames leaves no room beside a sink of 3", "12 and 3"],
    ),
    "sink of part of a chunk": (
        changed(small(seed=207), MEMORY, sink_frames=4),
        ["Memory Sink: sink frames is 4, not a whole number of chunks of 3"],
    ),
    "routing without a sink": (
        changed(small(seed=208), MEMORY, sink_frames=0),
        ["Memory Sink: blend and append need a first sink", "turn routing off"],
    ),
    "early pruning at the end": (
        changed(small(seed=213, steps=2), PRUNER, early_share=0.5, early_step=2),
        ["Reward Pruner: early step is 2, but the sampler makes 2 denoising steps; 1 to 1 allowed"],
    ),
    "early pruning without a short reward": (
        changed(small(seed=214, steps=2, memory=None), PRUNER, early_share=0.5, short_reward=None),
        ["Reward Pruner: early pruning goes by the short reward", "early share to 0"],
    ),
    "other VAE": (
        changed(small(seed=209), SAMPLER, vae=["70", 0])
        | {"70": node("VAELoader", vae_name="pixel_space")},
        ["vae: PixelspaceConversionVAE is not a Wan 2.1 VAE", "connect a Wan 2.1 VAE"],
    ),
    "base not there": (
        loader(),
        ["LongLive Loader: base 'gone.pt': no such file in ", "diffusion_models", "put it there"],
    ),
    "base outside the folder": (
        loader(base="../../../../../../etc/passwd"),
        ["LongLive Loader: base '../../../../../../etc/passwd': no such file in "],
    ),
    "unknown precision": (
        loader(precision="int3"),
        ["LongLive Loader: precision 'int3'; choose one of bfloat16, float16, float32, default"],
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_mistake_is_told_before_the_first_denoiser_call(run: RunPrompt, name: str) -> None:
    prompt, says = FAILURES[name]
    done = run(prompt)
    message = done.error["exception_message"]
    for part in says:
        assert part in message
    sampler = [m for m in done.of_type("progress") if m["node"] == "14"]
    assert sampler == []


OUT_OF_RANGE = {
    "beta": ("StreamT1NoisePropagation", 1.0, "bigger than max of 0.999"),
    "beam_width": (PRUNER, 0, "smaller than min of 1"),
    "branch_factor": (PRUNER, 0, "smaller than min of 1"),
    "tau": (PRUNER, 1.5, "bigger than max of 1"),
    "early_share": (PRUNER, 1.0, "bigger than max of 0.95"),
    "early_step": (PRUNER, 0, "smaller than min of 1"),
    "alpha": (MEMORY, -0.1, "smaller than min of 0"),
    "seed": (SAMPLER, 2**53, f"bigger than max of {2**53 - 1}"),
    "steps": (SAMPLER, 0, "smaller than min of 1"),
    "weight_a": ("StreamT1RewardMix", 1e9, "bigger than max of 1000"),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_at_the_door(run: RunPrompt, name: str) -> None:
    class_type, value, says = OUT_OF_RANGE[name]
    prompt = small(seed=210)
    for entry in prompt.values():
        if entry["class_type"] == class_type:
            entry["inputs"][name] = value
    with pytest.raises(PromptRejected, match=f"{class_type}.*: Value {value}.* {says}"):
        run(prompt)


def test_a_socket_of_another_type_is_refused(run: RunPrompt) -> None:
    prompt = small(seed=211)
    prompt["14"]["inputs"]["pruner"] = ["4", 0]
    with pytest.raises(PromptRejected, match="STREAM_T1_NOISE.*mismatch.*STREAM_T1_PRUNER"):
        run(prompt)
