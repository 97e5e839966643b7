"""LongLive's file layouts, read down to plain Wan names; and files that are something else."""

import pytest
import torch
from torch import Tensor

from stream_t1_core.longlive import base_weights, lora_weights

WAN = {
    "patch_embedding.weight": torch.zeros(4, 16, 1, 2, 2),
    "blocks.0.self_attn.q.weight": torch.ones(4, 4),
    "head.modulation": torch.zeros(1, 2, 4),
}


def named(prefix: str, weights: dict[str, Tensor] = WAN) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize(
    "checkpoint",
    [
        WAN,
        {"generator": named("model.")},
        {"generator": named("model."), "critic": named("model."), "step": 3},
        {"generator_ema": named("model._fsdp_wrapped_module.")},
        {"generator": {"model": WAN}},
        {"model": named("_fsdp_wrapped_module."), "optimizer": {"lr": 0.1}},
        {"state_dict": named("model.diffusion_model.")},
        named("diffusion_model."),
        named("net."),
        named("module.model._orig_mod."),
    ],
)
def test_every_known_nesting_gives_plain_names(checkpoint: dict) -> None:
    assert base_weights(checkpoint).keys() == WAN.keys()


def test_wrappers_inside_a_name_are_dropped() -> None:
    checkpoint = {
        **WAN,
        "model.blocks.1._checkpoint_wrapped_module._fsdp_wrapped_module.ffn.0.weight": torch.ones(
            1
        ),
    }
    assert "blocks.1.ffn.0.weight" in base_weights(checkpoint)


def test_the_averaged_weights_are_taken_where_both_are_there() -> None:
    averaged = {key: value + 1 for key, value in WAN.items()}
    checkpoint = {"generator": WAN, "generator_ema": averaged}
    key = "blocks.0.self_attn.q.weight"
    assert base_weights(checkpoint)[key].equal(averaged[key])
    assert base_weights(checkpoint, use_ema=False)[key].equal(WAN[key])


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("decoder.middle.0.residual.0.gamma", "Wan VAE"),
        ("model.diffusion_model.input_blocks.0.0.weight", "Stable Diffusion"),
        ("model.embed_tokens.weight", "language model"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "text encoder"),
        ("base_model.model.blocks.0.q.lora_A.weight", "LoRA"),
        ("something.else", "'something.else'"),
    ],
)
def test_another_kind_of_file_is_named(key: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"not a Wan model: .*{says}"):
        base_weights({key: torch.zeros(1)})


def test_a_nested_lora_is_no_base() -> None:
    with pytest.raises(ValueError, match="not a Wan model: it looks like a LoRA"):
        base_weights({"generator_lora": {"blocks.0.q.lora_A.weight": torch.zeros(1)}})


def test_an_empty_file_is_named() -> None:
    with pytest.raises(ValueError, match="it is empty"):
        base_weights({})


def test_an_image_to_video_model_is_refused() -> None:
    with pytest.raises(ValueError, match="img_emb.proj.0.weight.*only text-to-video"):
        base_weights({**WAN, "img_emb.proj.0.weight": torch.zeros(1)})


PAIR = {"lora_A": torch.ones(2, 4), "lora_B": torch.ones(4, 2)}


def factors(template: str) -> dict[str, Tensor]:
    return {template.format(side): value for side, value in PAIR.items()}


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"generator_lora": factors("base_model.model.blocks.0.self_attn.q.{}.default.weight")},
        {"generator_lora": factors("base_model.model.blocks.0.self_attn.q.{}.weight"), "step": 5},
        factors("base_model.model.model.blocks.0.self_attn.q.{}.weight"),
        factors("diffusion_model.blocks.0.self_attn.q.{}.weight"),
        factors("model._fsdp_wrapped_module.blocks.0.self_attn.q.{}.default.weight"),
    ],
)
def test_every_known_lora_layout_gives_the_hosts_names(checkpoint: dict) -> None:
    name = "diffusion_model.blocks.0.self_attn.q.lora_{}.weight"
    assert lora_weights(checkpoint).keys() == {name.format("A"), name.format("B")}


def test_alpha_goes_with_its_module() -> None:
    stem = "base_model.model.blocks.0.self_attn.q."
    found = lora_weights({**factors(stem + "{}.weight"), stem + "alpha": torch.tensor(8.0)})
    assert found["diffusion_model.blocks.0.self_attn.q.alpha"].item() == 8


def test_half_a_pair_is_named() -> None:
    half = {"base_model.model.blocks.0.self_attn.q.lora_A.weight": PAIR["lora_A"]}
    with pytest.raises(ValueError, match="incomplete LoRA: .*lora_A.* but not .*lora_B"):
        lora_weights(half)


def test_weights_that_are_no_factors_are_not_skipped_in_silence() -> None:
    extra = {"base_model.model.blocks.0.modulation": torch.ones(1)}
    with pytest.raises(ValueError, match="besides lora_A and lora_B: .*modulation"):
        lora_weights({**factors("base_model.model.blocks.0.q.{}.weight"), **extra})


def test_a_whole_model_is_no_lora() -> None:
    with pytest.raises(ValueError, match="not a LoRA .*whole model"):
        lora_weights(WAN)
