"""Find what cannot work before a run begins: settings at odds, units that are not plugged in.

Settings that are wrong by themselves are refused where they are made, in ``config.py``.
"""

from .config import StreamConfig
from .rewards.mix import prompt_readers
from .tools import Tools


def check(tools: Tools, config: StreamConfig, latent_hw: tuple[int, int]) -> None:
    """Find what cannot work before the first denoiser call."""
    critic = tools.critic
    _, patch_h, patch_w = tools.model.backbone.patch_size
    if latent_hw[0] % patch_h or latent_hw[1] % patch_w or min(latent_hw) < 1:
        raise ValueError(
            f"latent of {latent_hw[0]} x {latent_hw[1]}: height and width must be multiples of "
            f"{patch_h} and {patch_w} (pixels: multiples of 16 for Wan)"
        )
    judged = critic.short or critic.long or tools.director
    if config.plan.candidates > 1 and not judged:
        raise ValueError(
            f"Reward Pruner: {config.plan.candidates} candidates a chunk but no reward to choose "
            "by; plug a reward into short_reward or long_reward, or a Director into the sampler to "
            "choose by hand, or set beam width and branch factor to 1"
        )
    if tools.director and config.plan.candidates == 1:
        raise ValueError(
            "Director: there is one candidate per chunk, so nothing to choose from; plug a Reward "
            "Pruner into the sampler and set its beam width and branch factor"
        )
    if config.plan.early and critic.short is None:
        raise ValueError(
            "Reward Pruner: early pruning goes by the short reward; plug one into short_reward, or "
            "set the early share to 0"
        )
    for reward in filter(None, (critic.short, critic.long)):
        readers = [name for name in prompt_readers(reward) if not critic.prompt.strip()]
        if readers:
            raise ValueError(
                f"Reward Pruner: reward '{readers[0]}' reads the prompt, but the prompt text is "
                "empty; wire the text that goes into CLIP Text Encode into its prompt input too"
            )
    if config.refine and not (critic.short or critic.long):
        raise ValueError(
            "Refiner: no reward to accept passes by; plug a reward into the short_reward or "
            "long_reward of a Reward Pruner and that into the sampler, or take the Refiner out"
        )
    if (critic.short or critic.long) and critic.decoder is None:
        raise ValueError("rewards look at frames, so they need a decoder (VAE)")
    if config.memory.routing and not (critic.short and critic.long):
        raise ValueError(
            "Memory Sink: routes are decided by a short and a long reward; plug both into the "
            "Reward Pruner, or turn routing off"
        )
