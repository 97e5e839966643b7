"""What a run that was cancelled or failed had finished, saved where the user finds it.

Latents as the host's own SaveLatent writes them (LoadLatent reads them), the report beside them;
both in ComfyUI's output folder under ``stream_t1``.
"""

from pathlib import Path

import folder_paths
import safetensors.torch
import torch
from torch import Tensor


def save_partial(latent: Tensor, report: str) -> Path:
    """Write VAE-space ``latent`` [1, 16, F, h, w] and ``report``; the latent file's path."""
    folder, name, counter, *_ = folder_paths.get_save_image_path(
        "stream_t1/stopped", folder_paths.get_output_directory()
    )
    path = Path(folder) / f"{name}_{counter:05}_.latent"
    tensors = {
        "latent_tensor": latent.contiguous(),
        "latent_format_version_0": torch.tensor([]),
    }
    safetensors.torch.save_file(tensors, path)
    path.with_suffix(".jsonl").write_text(report, encoding="utf-8")
    return path
