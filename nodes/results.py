"""What is done with a finished run's report."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui


class StreamT1SaveReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1SaveReport",
            display_name="Save Report",
            category="Stream-T1",
            description="Writes a run's report into ComfyUI's output folder: JSON lines, every "
            "candidate with its seed and scores.",
            is_output_node=True,
            inputs=[
                io.String.Input("report", force_input=True, tooltip="The sampler's report output."),
                io.String.Input(
                    "filename_prefix",
                    default="video/stream_t1",
                    tooltip="Name, and folder below ComfyUI's output folder, like Save Video's.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, report: str, filename_prefix: str) -> io.NodeOutput:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        path = Path(folder) / f"{name}_{counter:05}_.jsonl"
        path.write_text(report, encoding="utf-8")
        shown = ui.PreviewText(f"{Path(subfolder) / path.name}").as_dict()
        saved = {"filename": path.name, "subfolder": subfolder, "type": "output"}
        return io.NodeOutput(ui={**shown, "reports": [saved]})


NODES = [StreamT1SaveReport]
