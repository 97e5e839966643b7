"""Evaluate: score any finished video, shown as a table on the node."""

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io, ui
from torch import Tensor

from ..stream_t1_core.curve import draw_curves
from ..stream_t1_core.evaluate import CHUNK_FRAMES, FIRST_FRAMES, evaluate
from ..stream_t1_core.rewards.base import Reward
from .sockets import RewardSocket, advanced

MAX_FRAMES = 100_000


class StreamT1Evaluate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1Evaluate",
            display_name="Evaluate",
            category="Stream-T1",
            description="Scores any finished video, made by this pack or not: every reward on the "
            "whole video and on each chunk, as a table, as curves and as JSON.",
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The video's frames."),
                RewardSocket.Input(
                    "reward", tooltip="A reward, or a Reward Mix to see several side by side."
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="The text that the video was made from. Needed by rewards that read "
                    "the prompt.",
                ),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=0.01,
                    max=1000.0,
                    step=0.001,
                    tooltip="Frames a second of the video. LongLive: 16. Rewards that measure "
                    "speed or sample frames go by it.",
                ),
                io.Int.Input(
                    "frames_per_chunk",
                    default=CHUNK_FRAMES,
                    min=1,
                    max=MAX_FRAMES,
                    tooltip="Pixel frames that are scored together as a chunk. The sampler's "
                    "chunks of 3 latent frames are 12.",
                ),
                advanced(
                    io.Int.Input(
                        "first_chunk",
                        default=FIRST_FRAMES,
                        min=1,
                        max=MAX_FRAMES,
                        tooltip="Pixel frames of the very first chunk. Wan's first latent frame is "
                        "one picture instead of four, so the sampler's first chunk has 9. Videos "
                        "of other models: as frames_per_chunk.",
                    )
                ),
            ],
            outputs=[
                io.String.Output("table", display_name="table"),
                io.Image.Output("curve", display_name="curve"),
                io.String.Output("scores_json", display_name="json"),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        reward: Reward,
        prompt: str,
        fps: float,
        frames_per_chunk: int,
        first_chunk: int,
    ) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        try:
            found = evaluate(images, reward, prompt, fps, frames_per_chunk, first_chunk, progress)
        except ValueError as error:
            raise ValueError(f"Evaluate: {error}") from error
        table = found.table()
        return io.NodeOutput(table, draw_curves(found), found.to_json(), ui=ui.PreviewText(table))


NODES = [StreamT1Evaluate]
