"""Tiny decoders in the host: what VAELoader makes of a file, and the tiny model's own."""

import threading

import comfy.latent_formats
import comfy.sd
import pytest
import torch
from boot import Pack
from check_sampler import sampler_inputs
from torch import Tensor

WAN = comfy.latent_formats.Wan21()


def draw(frames: int) -> Tensor:
    return torch.randn(1, 16, frames, 2, 3, generator=torch.Generator().manual_seed(0))


def released(pack: Pack, dtype: torch.dtype) -> comfy.sd.VAE:
    """Random weights in the sizes of taew2_1 (float16) and lighttaew2_1 (bfloat16)."""
    torch.manual_seed(0)
    taehv = pack.module("stream_t1_core.taehv")
    weights = taehv.TAEHV(taehv.TAEHVConfig()).state_dict()
    return comfy.sd.VAE(sd={key: tensor.to(dtype) for key, tensor in weights.items()})


@pytest.mark.parametrize("split", [(5,), (3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def check_streaming_is_the_hosts_whole_decode(
    pack: Pack, dtype: torch.dtype, split: tuple[int, ...]
) -> None:
    vae, latent = released(pack, dtype), draw(5)
    decoder = pack.module("nodes.host.vae").HostDecoder(vae, "scoring_vae")
    frames, state = [], None
    for part in latent.split(split, dim=2):
        decoded, state = decoder.decode(part, state)
        frames.append(decoded)
    stage = vae.first_stage_model  # the host scales as for another model's file in float16
    if dtype is torch.float16:
        read = comfy.latent_formats.HunyuanVideo().process_out(latent)
    else:
        read = WAN.process_out(latent)
    whole = stage.decode(read.to(vae.vae_dtype)).float().clamp(0, 1).permute(0, 2, 3, 4, 1)
    assert whole.shape == (1, 17, 16, 24, 3) and whole.std() > 1e-3
    assert (torch.cat(frames, dim=1) - whole).abs().max() < 1e-5


def check_the_tiny_models_own_is_near_its_vae(pack: Pack) -> None:
    """Also through the host's decode, which hands it what Save Latent has."""
    tiny = pack.module("nodes.host.tiny")
    vae, scoring = tiny.load_vae(), tiny.load_scoring_vae()
    assert scoring.patcher.model_size() < vae.patcher.model_size() / 2
    still = WAN.process_in(vae.encode(torch.full((9, 64, 64, 3), 0.3)))  # (1, 16, 3, 8, 8)
    decoder = pack.module("nodes.host.vae").HostDecoder(scoring, "scoring_vae")
    streamed, _ = decoder.decode(still, None)
    assert (scoring.decode(WAN.process_out(still)) - streamed).abs().max() < 1e-4
    assert (vae.decode(WAN.process_out(still)) - streamed).abs().mean() < 0.05


def check_it_scores_and_the_vae_makes_the_video(
    pack: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each chunk, one path at a time; without a Reward Pruner it is left out."""
    node = pack.module("nodes.generate").StreamT1ChunkBeamSampler
    reward = pack.module("stream_t1_core.rewards.flicker").Flicker()
    inputs = sampler_inputs(pack, reward)
    inputs["latent"] = {"samples": torch.zeros(1, 16, 6, 4, 4)}
    inputs["scoring_vae"] = pack.module("nodes.host.tiny").load_scoring_vae()
    with caplog.at_level("INFO"):
        latent, frames, report = node.execute(**inputs).result
    assert "scoring VAE" in caplog.text and '"video"' in report
    whole = inputs["vae"].decode(latent["samples"])[0]
    assert (frames - whole).abs().max() < 1e-5
    plain = {name: value for name, value in inputs.items() if name != "pruner"}
    _, frames, report = node.execute(**plain).result
    assert len(frames) == 21 and '"video"' not in report


@pytest.mark.parametrize("searched", [True, False])
def check_a_vae_with_a_device_of_its_own_works_beside_the_search(
    pack: Pack, searched: bool
) -> None:
    """As under --cpu-vae beside a GPU; here a second name of the CPU. Same video."""
    node = pack.module("nodes.generate").StreamT1ChunkBeamSampler
    threads: list[threading.Thread] = []

    def made(vae: comfy.sd.VAE) -> Tensor:
        inputs = sampler_inputs(pack, pack.module("stream_t1_core.rewards.flicker").Flicker())
        inputs |= {"latent": {"samples": torch.zeros(1, 16, 12, 4, 4)}, "vae": vae}
        inputs["scoring_vae"] = pack.module("nodes.host.tiny").load_scoring_vae()
        if not searched:
            del inputs["pruner"]
        threads.clear()
        return node.execute(**inputs)[1]

    vae, apart = (pack.module("nodes.host.tiny").load_vae() for _ in range(2))
    apart.device = torch.device("cpu", 0)
    for one in (vae, apart):
        one.first_stage_model.decoder.conv1.register_forward_pre_hook(
            lambda *_: threads.append(threading.current_thread())
        )
    frames, here = made(vae), threading.current_thread()
    assert set(threads) == {here}
    assert (made(apart) - frames).abs().max() < 1e-5
    assert threads[0] is not here  # what settles at the end of the run has nothing to work beside


def check_a_tiny_decoder_of_another_model_is_refused(pack: Pack) -> None:
    taehv = pack.module("stream_t1_core.taehv")
    weights = taehv.TAEHV(taehv.TAEHVConfig()).state_dict()
    weights["decoder.1.weight"] = torch.zeros(256, 48, 3, 3)
    weights["decoder.22.weight"], weights["decoder.22.bias"] = (
        torch.zeros(12, 64, 3, 3),
        torch.zeros(12),
    )
    with pytest.raises(ValueError, match="scoring_vae: this tiny decoder reads 48 latent channels"):
        pack.module("nodes.host.vae").HostDecoder(comfy.sd.VAE(sd=weights), "scoring_vae")
