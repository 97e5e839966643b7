"""Director: the artist chooses which candidates go on, as a settings node for the sampler."""

from comfy_api.latest import io

from .host.director import Directing
from .sockets import DirectorSocket

EVERY, CLOSE = "every chunk", "close calls"
DAY = 24 * 60 * 60.0  # seconds


class StreamT1Director(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1Director",
            display_name="Director",
            category="Stream-T1",
            description="Stops the sampler after a chunk and lets you choose in its panel which "
            "candidates go on. Without an answer in time the score decides.",
            inputs=[
                io.Combo.Input(
                    "ask",
                    options=[EVERY, CLOSE],
                    default=EVERY,
                    tooltip="Ask after every chunk, or only when the two best candidates score "
                    "closer than the margin.",
                ),
                io.Float.Input(
                    "margin",
                    default=0.05,
                    min=0.0,
                    max=1000.0,
                    step=0.001,
                    tooltip="For close calls: ask when the best fused score leads the next one by "
                    "less than this. In units of the fused score: look at a report first.",
                ),
                io.Float.Input(
                    "timeout_seconds",
                    default=60.0,
                    min=0.1,
                    max=DAY,
                    step=0.01,
                    tooltip="Seconds to wait for your choice at each chunk; after that the score "
                    "decides. The queue waits meanwhile, and Cancel works.",
                ),
            ],
            outputs=[DirectorSocket.Output("director", display_name="director")],
        )

    @classmethod
    def execute(cls, ask: str, margin: float, timeout_seconds: float) -> io.NodeOutput:
        return io.NodeOutput(Directing(timeout_seconds, margin if ask == CLOSE else None))


NODES = [StreamT1Director]
