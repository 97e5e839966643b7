"""Doctor: what works here, what is missing and where it was looked for, shown on the node."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui
from comfyui_version import __version__ as comfyui_version

from ..stream_t1_core import doctor
from ..stream_t1_core.config import FIXED_SINK, Memory, StreamConfig
from .sockets import MemorySocket, Pruner, PrunerSocket

MAX_PIXELS = 16384


class StreamT1Doctor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1Doctor",
            display_name="Doctor",
            category="Stream-T1",
            description="Tells versions, devices, which models and rewards are there, which files "
            "are missing and where they were looked for, and what a run will need of memory. Paste "
            "its text into a bug report.",
            is_output_node=True,
            inputs=[
                io.Int.Input(
                    "width",
                    default=doctor.Plan.width,
                    min=16,
                    max=MAX_PIXELS,
                    step=16,
                    tooltip="Pixels of the video whose memory is estimated.",
                ),
                io.Int.Input(
                    "height",
                    default=doctor.Plan.height,
                    min=16,
                    max=MAX_PIXELS,
                    step=16,
                    tooltip="Pixels of the video whose memory is estimated.",
                ),
                PrunerSocket.Input(
                    "pruner",
                    optional=True,
                    tooltip="What the sampler gets, to count its candidates and rewards. Not "
                    "plugged in: one candidate.",
                ),
                MemorySocket.Input(
                    "memory",
                    optional=True,
                    tooltip="What the sampler gets, to count window and sinks. Not plugged in: "
                    "LongLive's window of 12 latent frames with a fixed sink of 3.",
                ),
            ],
            outputs=[io.String.Output("report", display_name="report")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> float:
        return float("nan")  # files and memory change without the inputs

    @classmethod
    def execute(
        cls, width: int, height: int, pruner: Pruner | None = None, memory: Memory | None = None
    ) -> io.NodeOutput:
        config = StreamConfig(search=pruner.search if pruner else None, memory=memory or FIXED_SINK)
        rewards = pruner.hosted() if pruner else ()
        weights = {reward.name: reward.patcher.model_size() for reward in rewards}
        places = {
            kind: [Path(folder) for folder in folder_paths.get_folder_paths(kind)]
            for kind in doctor.FOLDERS
        }
        plan = doctor.Plan(config, width, height, weights)
        report = str(doctor.examine(places, plan, {"ComfyUI": comfyui_version}))
        return io.NodeOutput(report, ui=ui.PreviewText(report))


NODES = [StreamT1Doctor]
