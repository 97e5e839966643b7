"""The pack's nodes. This package is the only one that knows ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from . import (
    budget,
    director,
    doctor,
    evaluate,
    generate,
    loaders,
    options,
    reel,
    results,
    reward_models,
    rewards,
    start,
    timeline,
    writer,
)
from .host import live

FILES = (
    loaders,
    options,
    budget,
    rewards,
    reward_models,
    timeline,
    director,
    reel,
    writer,
    start,
    generate,
    evaluate,
    results,
    doctor,
)


class StreamT1Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        if server := live.running_server():
            live.add_routes(server)
        return [node for file in FILES for node in file.NODES]
