"""Our causal forward over the host's WanModel: equal to the host's own, and to our backbone's."""

import comfy.model_management
import comfy.sd
import pytest
import tiny_wan
import torch
from boot import Pack
from comfy.cli_args import args
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers import set_torch_compile_wrapper
from torch import Tensor
from torch._dynamo.testing import CompileCounter

FRAMES, HEIGHT, WIDTH = 3, 8, 4


def host_model(dtype: torch.dtype = torch.float32, lora: bool = False) -> ModelPatcher:
    options = {"dtype": dtype}
    model = comfy.sd.load_diffusion_model_state_dict(tiny_wan.weights(), model_options=options)
    if lora:
        names = {
            key.replace("base_model.model.", "diffusion_model."): value
            for key, value in tiny_wan.lora().items()
        }
        model, _ = comfy.sd.load_lora_for_models(model, None, names, 1.0, 0.0)
        assert len(model.patches) == 10 * tiny_wan.LAYERS
    comfy.model_management.load_models_gpu([model])
    return model


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def check_one_chunk_is_the_hosts_own_forward(pack: Pack, dtype: torch.dtype, lora: bool) -> None:
    model = host_model(dtype, lora)
    causal = pack.module("nodes.host.model").causal_model(model)
    latent, text = draw(2, 16, FRAMES, HEIGHT, WIDTH), draw(1, 512, tiny_wan.TEXT, seed=4)
    past = causal.lay_out((), (HEIGHT, WIDTH))
    timesteps = torch.full((FRAMES,), 750.0)
    ours = causal.flow(latent, timesteps, 0, causal.encode_text(text), past)
    theirs = model.model.diffusion_model(latent, torch.full((2,), 750.0), text.expand(2, -1, -1))
    assert (ours - theirs).abs().max() < 2e-5 * theirs.abs().max()


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
def check_a_cached_chunk_is_the_one_of_our_own_backbone(pack: Pack, lora: bool) -> None:
    weights = tiny_wan.weights()
    if lora:
        factors = tiny_wan.lora()
        for key in [key for key in factors if ".lora_A." in key]:
            name = key.removeprefix("base_model.model.").replace(".lora_A.default", "")
            weights[name] = weights[name] + factors[key.replace("lora_A", "lora_B")] @ factors[key]
    causal_wan = pack.module("stream_t1_core.causal_wan")
    own = pack.module("stream_t1_core.backbone").WanBackbone.from_state_dict(weights)
    over_host = pack.module("nodes.host.model").causal_model(host_model(lora=lora))
    flows = [second_chunk(causal) for causal in (over_host, causal_wan.CausalWan(own))]
    assert (flows[0] - flows[1]).abs().max() < 2e-5 * flows[1].abs().max()


def second_chunk(causal) -> Tensor:
    text = causal.encode_text(draw(1, 40, tiny_wan.TEXT, seed=4))  # short rows are padded
    chunk, size = draw(1, 16, FRAMES, HEIGHT, WIDTH), (HEIGHT, WIDTH)
    kv = causal.context_pass(chunk, torch.zeros(FRAMES), 0, text, causal.lay_out((), size))
    past = causal.lay_out((kv,), size)
    return causal.flow(
        draw(2, *chunk.shape[1:], seed=5), torch.full((FRAMES,), 500.0), 3, text, past
    )


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def check_a_compiled_model_makes_the_same(
    pack: Pack, dtype: torch.dtype, lora: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for by the host's own node's function, which no longer counts as without effect."""
    torch.compiler.reset()
    counter, model = CompileCounter(), host_model(dtype, lora).clone()
    as_it_is = second_chunk(pack.module("nodes.host.model").causal_model(model))
    set_torch_compile_wrapper(model, backend="eager")
    model.model_options["torch_compile_kwargs"]["backend"] = counter
    compiled = second_chunk(pack.module("nodes.host.model").causal_model(model))
    assert torch.equal(compiled, as_it_is)
    assert counter.frame_count == 2 * 3  # one row and more, the three steps of a layer
    assert not [r for r in caplog.records if r.name.startswith(pack.name)]


def check_compiling_with_cuda_graphs_is_refused(
    pack: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    model = host_model().clone()
    set_torch_compile_wrapper(model, backend="cudagraphs")
    causal = pack.module("nodes.host.model").causal_model(model)
    assert causal.run.options is None
    assert "TorchCompileModel: backend 'cudagraphs'" in caplog.text


def check_attention_goes_through_the_hosts(pack: Pack) -> None:
    """An override that a user installed on MODEL still acts; so does the host's own choice."""
    model = host_model().clone()
    calls = []

    def override(func, *args, **kwargs):
        calls.append(func)
        return func(*args, **kwargs)

    model.model_options["transformer_options"] = {"optimized_attention_override": override}
    causal = pack.module("nodes.host.model").causal_model(model)
    second_chunk(causal)
    assert len(calls) == 2 * 2 * tiny_wan.LAYERS  # context pass and flow, self and cross
    chosen = "sub_quad"
    if args.use_split_cross_attention or args.use_pytorch_cross_attention:
        chosen = "split" if args.use_split_cross_attention else "pytorch"
    assert {call.__name__ for call in calls} == {f"attention_{chosen}"}


def check_additions_that_cannot_act_are_named(pack: Pack, caplog: pytest.LogCaptureFixture) -> None:
    model = host_model().clone()
    model.add_object_patch("model_sampling", model.model.model_sampling)
    pack.module("nodes.host.model").causal_model(model)
    assert "no effect: model_sampling" in caplog.text


@pytest.mark.parametrize("what", ["i2v", "in-painting"])
def check_other_wan_models_are_refused(pack: Pack, what: str) -> None:
    weights = tiny_wan.weights()
    weights["patch_embedding.weight"] = torch.zeros(tiny_wan.DIM, 36, 1, 2, 2)
    if what == "i2v":
        weights["img_emb.proj.0.bias"] = torch.ones(1280)
    model = comfy.sd.load_diffusion_model_state_dict(weights, model_options={})
    says = "of type 'i2v'" if what == "i2v" else "takes 36 and gives 16 channels"
    with pytest.raises(ValueError, match=f"model: this Wan model .*{says}"):
        pack.module("nodes.host.model").backbone_of(model)


def check_another_architecture_is_refused(pack: Pack) -> None:
    depths = {f"transformer_depth{part}": [0, 0] for part in ("", "_output")}
    depths["transformer_depth_middle"] = -1
    unet = UNetModel(8, 4, 32, 4, [1], channel_mult=[1], num_heads=1, **depths)
    model = ModelPatcher(torch.nn.Module(), torch.device("cpu"), torch.device("cpu"))
    model.model.diffusion_model = unet
    with pytest.raises(ValueError, match="this MODEL is a UNetModel, not a Wan .*LongLive Loader"):
        pack.module("nodes.host.model").backbone_of(model)
