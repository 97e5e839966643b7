"""LongLive Loader on small files of exactly the released layouts, and on wrong files."""

import argparse
from pathlib import Path

import comfy.model_management
import folder_paths
import pytest
import safetensors.torch
import tiny_wan
import torch
from boot import Pack

RANK, ALPHA = 4, 8.0


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder the host looks into for base weights and LoRAs."""
    for kind in ("diffusion_models", "loras"):
        folder_paths.folder_names_and_paths[kind][0].insert(0, str(tmp_path))
    yield tmp_path
    for kind in ("diffusion_models", "loras"):
        folder_paths.folder_names_and_paths[kind][0].remove(str(tmp_path))


def released_base() -> dict:
    """As longlive_base.pt: several models in one, FSDP and checkpointing in the names."""
    wrapped = {f"model._fsdp_wrapped_module.{k}": v for k, v in tiny_wan.weights().items()}
    older = {key: torch.zeros_like(value) for key, value in wrapped.items()}
    return {"generator": older, "generator_ema": wrapped, "critic": older}


def save(checkpoint: dict, path: Path) -> str:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(checkpoint, path)
    else:
        torch.save(checkpoint, path)
    return path.name


LAYOUTS = {
    "released.pt": released_base(),
    "generator.pt": {"generator": {f"model.{k}": v for k, v in tiny_wan.weights().items()}},
    "model.pt": {"model": tiny_wan.weights()},
    "plain.pt": tiny_wan.weights(),
    "plain.safetensors": tiny_wan.weights(),
    "prefixed.safetensors": {f"model.{k}": v for k, v in tiny_wan.weights().items()},
}


@pytest.mark.parametrize("name", LAYOUTS)
def check_every_released_layout_loads(pack: Pack, models: Path, name: str) -> None:
    save(LAYOUTS[name], models / name)
    model, found = pack.module("nodes.host.longlive").load_base(name, "float32", True)
    loaded = model.model.diffusion_model.state_dict()
    for key, value in tiny_wan.weights().items():
        assert loaded[key].equal(value), key
    assert (
        found
        == f"{name}: Wan 2.1 text-to-video, width 256, 2 layers, {len(loaded)} tensors, float32"
    )


def check_bf16_is_what_the_loader_gives_by_default(pack: Pack, models: Path) -> None:
    name = save(tiny_wan.weights(), models / "base.pt")
    inputs = pack.module("nodes.loaders").StreamT1LongLiveLoader.define_schema().inputs
    precision = next(i for i in inputs if i.id == "precision").default
    model, _ = pack.module("nodes.host.longlive").load_base(name, precision, True)
    assert model.model.get_dtype() == torch.bfloat16


@pytest.mark.parametrize("alpha", [None, ALPHA])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def check_merged_weights_are_w_plus_alpha_over_rank_b_a(
    pack: Pack, models: Path, alpha: float | None, strength: float
) -> None:
    longlive = pack.module("nodes.host.longlive")
    factors = tiny_wan.lora(RANK)
    if alpha:
        stems = {key.split(".lora_")[0] for key in factors}
        factors |= {f"{stem}.alpha": torch.tensor(alpha) for stem in stems}
    save(released_base(), models / "base.pt")
    save({"generator_lora": factors, "step": 3000}, models / "lora.pt")
    model, _ = longlive.load_base("base.pt", "float32", True)
    patched, applied = longlive.apply_lora(model, "lora.pt", strength)
    comfy.model_management.load_models_gpu([patched])
    merged = patched.model.diffusion_model.state_dict()
    down_keys = [key for key in factors if ".lora_A." in key]
    assert applied == len(down_keys) == 10 * tiny_wan.LAYERS
    for key in down_keys:
        name = key.removeprefix("base_model.model.").replace(".lora_A.default", "")
        product = factors[key.replace("lora_A", "lora_B")] @ factors[key]
        scale = strength * (alpha / RANK if alpha else 1.0)
        expected = tiny_wan.weights()[name] + scale * product
        torch.testing.assert_close(merged[name], expected, rtol=0, atol=1e-6)
    comfy.model_management.unload_all_models()


SD = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}
WRONG_BASES = {
    "vae.safetensors": ({"decoder.middle.0.residual.0.gamma": torch.zeros(4)}, "Wan VAE"),
    "sd.safetensors": (SD, "Stable Diffusion"),
    "sd.ckpt": ({"state_dict": SD}, "Stable Diffusion"),
    "llm.safetensors": ({"model.embed_tokens.weight": torch.zeros(4, 4)}, "language model"),
    "i2v.pt": (
        {**tiny_wan.weights(), "img_emb.proj.0.weight": torch.ones(4)},
        "only text-to-video can be streamed",
    ),
    "lora.pt": ({"generator_lora": tiny_wan.lora()}, "it looks like a LoRA"),
    "list.pt": ([1, 2], "holds a list instead of named tensors"),
    "code.pt": ({"args": argparse.Namespace(a=1)}, "Python objects, which are never loaded"),
}


@pytest.mark.parametrize("name", WRONG_BASES)
def check_a_wrong_base_is_named(pack: Pack, models: Path, name: str) -> None:
    content, says = WRONG_BASES[name]
    save(content, models / name)
    with pytest.raises(ValueError, match=f"^LongLive Loader: base '{name}': .*{says}"):
        pack.module("nodes.host.longlive").load_base(name, "bfloat16", True)


def check_a_missing_file_tells_where_it_was_looked_for(pack: Pack, models: Path) -> None:
    with pytest.raises(ValueError, match=f"lora 'gone.pt': no such file in {models}.*put it there"):
        pack.module("nodes.host.longlive").apply_lora(None, "gone.pt", 1.0)


def check_a_file_cut_short_is_named(pack: Pack, models: Path) -> None:
    save(tiny_wan.weights(), models / "cut.pt")
    content = (models / "cut.pt").read_bytes()
    (models / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="base 'cut.pt': it cannot be read .*damaged"):
        pack.module("nodes.host.longlive").load_base("cut.pt", "bfloat16", True)


@pytest.mark.parametrize("fits", [0, 1])
def check_a_lora_of_another_model_is_refused(pack: Pack, models: Path, fits: int) -> None:
    """The host would log a line and apply what it knows."""
    factors = tiny_wan.lora()
    own = [key for key in factors if "blocks.0.self_attn.q." in key]
    strange = {key.replace("blocks.0", "blocks.77"): factors[key] for key in own}
    checkpoint = strange | {key: factors[key] for key in own if fits}
    longlive = pack.module("nodes.host.longlive")
    save(tiny_wan.weights(), models / "base.pt")
    save(checkpoint, models / "other.pt")
    model, _ = longlive.load_base("base.pt", "float32", True)
    with pytest.raises(ValueError, match=f"lora 'other.pt': it fits {fits} of its {fits + 1} lay"):
        longlive.apply_lora(model, "other.pt", 1.0)
