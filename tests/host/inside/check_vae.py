"""The streaming walk over the host's VAE: the host's own decode, in any split, and our VAE's."""

import comfy.sd
import comfy.utils
import pytest
import torch
from boot import PACK_ROOT, Pack

VAE_FILE = PACK_ROOT / "tiny_model" / "wan_tiny_vae.safetensors"


def host_vae() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE_FILE), safe_load=True))


@pytest.mark.parametrize("split", [(7,), (3, 3, 1), (1,) * 7])
def check_any_split_is_the_hosts_whole_decode(pack: Pack, split: tuple[int, ...]) -> None:
    vae = host_vae()
    latent = torch.randn(1, 16, 7, 4, 6, generator=torch.Generator().manual_seed(0))
    wan_vae = pack.module("stream_t1_core.wan_vae")
    streaming = pack.module("stream_t1_core.streaming_vae")
    decoder = pack.module("nodes.host.vae").HostDecoder(vae)
    frames, state = [], None
    for part in latent.split(split, dim=2):
        decoded, state = decoder.decode(part, state)
        frames.append(decoded)
    streamed = torch.cat(frames, dim=1)
    whole = vae.decode(streaming.denormalise(latent))
    own = wan_vae.WanVAE.from_state_dict(comfy.utils.load_torch_file(str(VAE_FILE)))
    ours, _ = streaming.StreamingDecoder(own).decode(latent, None)
    assert streamed.shape == whole.shape == (1, 25, 32, 48, 3)
    assert (streamed - whole).abs().max() < 1e-5
    assert (streamed - ours).abs().max() < 1e-5


def check_the_border_values_are_the_hosts(pack: Pack) -> None:
    """What the LATENT socket carries is what VAE Decode expects."""
    import comfy.latent_formats

    latent = torch.randn(1, 16, 2, 3, 3)
    ours = pack.module("stream_t1_core.streaming_vae").denormalise(latent)
    theirs = comfy.latent_formats.Wan21().process_out(latent)
    torch.testing.assert_close(ours, theirs)


def check_another_family_is_refused(pack: Pack) -> None:
    from comfy.taesd.taesd import TAESD

    vae = host_vae()
    vae.first_stage_model = TAESD()
    with pytest.raises(ValueError, match="vae: TAESD is not a Wan 2.1 VAE .*connect a Wan 2.1 VAE"):
        pack.module("nodes.host.vae").HostDecoder(vae)
