"""Rewards with weights on the host: files found through its folder paths, memory managed by it."""

from pathlib import Path

import comfy.model_management as management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...stream_t1_core.rewards.base import Clips, Footage, FootageReward, Needs, Reward

FOLDER = "stream_t1"  # below ComfyUI's models folder; also a key for extra_model_paths.yaml
DEVICES = ("default", "cpu")
PRECISIONS = ("default", "bfloat16", "float16", "float32")

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


class HostedReward:
    """A reward whose weights the host loads when it is asked and offloads for other models."""

    def __init__(self, reward: Reward, device: str) -> None:
        self.reward = reward
        on_cpu = device == "cpu"
        cpu = torch.device("cpu")
        # in a list: the host sets attributes such as `device`, which some modules refuse
        self.patcher = ModelPatcher(
            nn.ModuleList([reward.module]),
            load_device=cpu if on_cpu else management.get_torch_device(),
            offload_device=cpu,
        )

    @property
    def name(self) -> str:
        return self.reward.name

    @property
    def needs(self) -> Needs:
        return self.reward.needs

    def __call__(self, clips: Clips) -> Tensor:
        self._load()
        return self.reward(clips)

    def _load(self) -> None:
        # in full: a part left behind would leave buffers on the other device
        management.load_models_gpu([self.patcher], force_full_load=True)


class HostedFootageReward(FootageReward, HostedReward):
    """One that measures each frame once."""

    def of_footage(self, footage: Footage) -> Tensor:
        self._load()
        return self.reward.of_footage(footage)


def hosted(reward: Reward, device: str) -> HostedReward:
    kind = HostedFootageReward if hasattr(reward, "of_footage") else HostedReward
    return kind(reward, device)


def dtype_of(precision: str, device: str) -> torch.dtype:
    """``default``: bfloat16 where the device is good at it, else float32."""
    if precision != "default":
        return getattr(torch, precision)
    if device == "cpu" or not management.should_use_bf16(management.get_torch_device()):
        return torch.float32
    return torch.bfloat16


def choices(usual: str) -> list[str]:
    """What a loader offers: the usual name first, and all that lies in the folder."""
    found = {entry.name for root in _roots() if root.is_dir() for entry in root.iterdir()}
    return [usual, *sorted(found - {usual})]


def find(name: str, source: str) -> Path:
    """Folder or file of this name; an error says where was looked and where it comes from."""
    for root in _roots():
        if (root / name).exists():
            return root / name
    looked = ", ".join(str(root / name) for root in _roots())
    raise FileNotFoundError(
        f"'{name}' is not there. Looked at: {looked}. Put the files of {source} there (other "
        f"places: '{FOLDER}' in extra_model_paths.yaml). The Doctor node lists every file it needs"
    )


def _roots() -> list[Path]:
    return [Path(path) for path in folder_paths.get_folder_paths(FOLDER)]
