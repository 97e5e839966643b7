"""What a run has on the device at its fullest: our account against the allocator's own numbers."""

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from stream_t1_core.backbone import BackboneShape, WanBackbone
from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import Memory, Search, StreamConfig
from stream_t1_core.footprint import LONGLIVE, ModelSizes, decoder_state_bytes
from stream_t1_core.kv import KVPlace
from stream_t1_core.peak import Thrift, decoding_bytes, denoising_bytes, fullest
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.wan_vae import WanVAE, WanVAEConfig

SHAPE = BackboneShape(
    dim=96, ffn_dim=448, num_layers=3, num_heads=2, text_dim=8, text_len=16, freq_dim=8
)
HW = (12, 20)
CONFIG = StreamConfig(search=Search(2, 2), memory=Memory(max_sink_frames=6))
GIB = 2**30


def allocated(run: Callable[[], object]) -> int:
    """Most bytes at once that the allocator handed out for ``run``, as the profiler saw them."""
    watched = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with torch.inference_mode(), watched:
        kept = run()
    now = most = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    del kept
    return most


@pytest.mark.parametrize("together", [1, 4])
def test_a_denoiser_call_needs_what_the_allocator_says(together: int) -> None:
    model = CausalWan(WanBackbone(SHAPE).requires_grad_(False))
    times = torch.zeros(3)
    chunk = torch.randn(1, 16, 3, *HW)
    with torch.inference_mode():
        text = model.encode_text(torch.randn(1, 4, SHAPE.text_dim))
        paths = [
            [
                model.context_pass(chunk, times, first, text, model.lay_out((), HW))
                for first in range(0, 15, 3)
            ]
            for _ in range(2)
        ]
    latent = torch.randn(together, 16, 3, *HW)

    def run() -> torch.Tensor:
        lay_out = model.layout(HW)
        pasts = [lay_out(path) for path in paths]
        siblings = [past for past in pasts for _ in range(max(1, together // 2))][:together]
        return model.flow(latent, times, 15, text, siblings)

    rows = sum(t.nbytes for t in (*text.keys, *text.values))
    sizes = ModelSizes(SHAPE, WanVAEConfig(dim=8), 4)
    ours = denoising_bytes(sizes, CONFIG, HW, Thrift(4, together=together))
    assert ours - rows == pytest.approx(allocated(run), rel=0.1)


def test_decoding_needs_what_the_allocator_says_but_for_the_convolutions_scratch() -> None:
    """On a CPU that is a copy of what goes in, in another order."""
    config, together = WanVAEConfig(dim=16), 2
    decoder = StreamingDecoder(WanVAE(config).requires_grad_(False))
    latents = torch.randn(together, 16, 3, *HW)
    with torch.inference_mode():
        _, state = decoder.decode(latents[:1, :, :1], None)
    ours = decoding_bytes(config, HW, 4, 3, together)
    theirs = allocated(lambda: decoder.decode(latents, state.repeat(together)))
    assert 1.0 <= theirs / (ours - state.nbytes) <= 1.15


@pytest.mark.parametrize(
    ("gibibytes", "thrift", "as_the_readme_has_it"),
    [
        (8, Thrift(1, KVPlace.PINNED, together=1, swapped=True), ["2.0", "7.0"]),
        (8, Thrift(2, KVPlace.PINNED, together=1, swapped=True), ["3.3", "7.0"]),
        (12, Thrift(2, KVPlace.PINNED, together=1, swapped=False), ["3.3", "9.6"]),
    ],
)
def test_longlive_with_search_and_memory_fits_a_small_card(
    gibibytes: int, thrift: Thrift, as_the_readme_has_it: list[str]
) -> None:
    """At 832 x 480, two beams of two branches; a gibibyte is left for rewards and the driver."""
    config = StreamConfig(search=Search(2, 2), memory=Memory())
    phases = fullest(LONGLIVE, config, (60, 104), thrift)
    assert max(phases.values()) <= (gibibytes - 1) * GIB
    assert [f"{size / GIB:.1f}" for size in phases.values()] == as_the_readme_has_it


def test_what_stays_on_the_device_is_counted_where_it_stays() -> None:
    sizes = ModelSizes(SHAPE, WanVAEConfig(dim=8), 4)
    near, far = (
        fullest(sizes, CONFIG, HW, Thrift(4, place)) for place in (KVPlace.DEVICE, KVPlace.PINNED)
    )
    states = 6 * decoder_state_bytes(sizes.vae, HW, 4)
    frame = 2 * 3 * 60 * SHAPE.dim * 4  # keys and values, 3 layers, 60 tokens
    shown = 2 * 4 * 12 * 96 * 160 * 3 * 4  # pixel frames of four candidates, and as looked at
    assert near["decoding"] - far["decoding"] == states + shown + 2 * (15 + 3) * frame
