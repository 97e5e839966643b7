"""The small model that ships with the pack, loaded from its files without a host.

Transformer, VAE and text encoder are in the layouts of Wan 2.1's own files, so the classes that
read them here read any others of those layouts too. Made by ``training/``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from .backbone import WanBackbone
from .taehv import TAEHV
from .tiny_text import PromptEncoder
from .wan_vae import WanVAE

TRANSFORMER_FILE = "wan_tiny.safetensors"
VAE_FILE = "wan_tiny_vae.safetensors"
TEXT_FILE = "umt5_tiny.safetensors"
DRIFT = 0.3  # see `drifting`; as the Tiny Model node has it
SCORING_FILE = "taew_tiny.safetensors"


@dataclass(frozen=True, eq=False)
class TinyModel:
    """``encode_prompt(text)`` gives [1, 512, 4096], as a host's text-encode node does."""

    backbone: WanBackbone = field(repr=False)
    vae: WanVAE = field(repr=False)
    encode_prompt: Callable[[str], Tensor] = field(repr=False)


def load_tiny(folder: str | Path, drift: float = DRIFT) -> TinyModel:
    """Load the tiny model from its folder; ``FileNotFoundError`` names the missing files.

    ``drift``: see ``drifting``.
    """
    folder = Path(folder)
    missing = [n for n in (TRANSFORMER_FILE, VAE_FILE, TEXT_FILE) if not (folder / n).is_file()]
    if missing:
        raise FileNotFoundError(
            f"the tiny model is incomplete: {', '.join(missing)} not found in {folder}. Restore "
            "the files from the repository, or retrain with `python -m training.train_all`"
        )
    return TinyModel(
        WanBackbone.from_state_dict(drifting(read_tensors(folder / TRANSFORMER_FILE), drift)),
        WanVAE.from_state_dict(read_tensors(folder / VAE_FILE)),
        PromptEncoder.from_state_dict(read_tensors(folder / TEXT_FILE)),
    )


def drifting(weights: dict[str, Tensor], drift: float) -> dict[str, Tensor]:
    """The transformer's weights, its last layer scaled by 1 - ``drift``.

    Every denoising step then leaves that share of its noise behind. What is left is in the context
    of the next chunk: errors differ from seed to seed and add up, as they do in large models. As
    trained (0), the tiny model makes nearly the same video from every seed.
    """
    last = {name: value for name, value in weights.items() if name.startswith("head.head.")}
    return weights | {name: (value * (1 - drift)).to(value.dtype) for name, value in last.items()}


def load_scorer(folder: str | Path) -> TAEHV:
    """The tiny decoder for scoring; it reads normalised latents."""
    return TAEHV.from_state_dict(read_tensors(Path(folder) / SCORING_FILE))


def read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)
