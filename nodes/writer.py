"""Stream Video Writer: how the sampler writes its video to disk while it is made."""

from comfy_api.latest import io

from .sockets import Writer, WriterSocket, advanced


class StreamT1VideoWriter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1VideoWriter",
            display_name="Stream Video Writer",
            category="Stream-T1",
            description="Plugged into the sampler, it writes the video while it is made: frames "
            "go to disk as soon as they are final, and the file plays even after a crash.",
            inputs=[
                io.String.Input(
                    "filename_prefix",
                    default="video/stream_t1",
                    tooltip="Name, and folder below ComfyUI's output folder, like Save Video's. "
                    "May hold %date:yyyy-MM-dd%, %width%, %height% and values of nodes.",
                ),
                io.Boolean.Input(
                    "keep_images",
                    default=True,
                    tooltip="Off: the sampler's latent and images outputs are off, and nodes "
                    "plugged into them do not run; then the length of the video costs no memory.",
                ),
                advanced(
                    io.Int.Input(
                        "quality",
                        default=18,
                        min=0,
                        max=51,
                        tooltip="H.264 constant rate factor: lower is better and larger. 18 looks "
                        "like the original, 23 is what Save Video uses, 6 more halve the file.",
                    )
                ),
            ],
            outputs=[WriterSocket.Output("writer", display_name="writer")],
        )

    @classmethod
    def execute(cls, filename_prefix: str, keep_images: bool, quality: int) -> io.NodeOutput:
        return io.NodeOutput(Writer(filename_prefix, quality, keep_images))


NODES = [StreamT1VideoWriter]
