"""What is done with a finished run's report: saved as lines and as a page, drawn as a picture."""

import logging
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..stream_t1_core.plot import draw_report
from ..stream_t1_core.report_page import report_page
from .host.live import runs

log = logging.getLogger(__name__)

WEB = Path(__file__).parents[1] / "web"


class StreamT1SaveReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1SaveReport",
            display_name="Save Report",
            category="Stream-T1",
            description="Writes a run's report into ComfyUI's output folder: JSON lines, every "
            "candidate with its seed and scores; and as a page that any browser opens, offline.",
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
        saved = {"reports": [_saved(path, subfolder)]}
        told = [str(Path(subfolder) / path.name)]
        try:
            page = report_page(report, runs.filmstrips(report), WEB)
        except (ValueError, RecursionError) as error:  # the lines are saved all the same
            log.warning("Save Report: %s has no page: %s", path.name, error)
            told.append(f"no page: {error}")
        else:
            beside = path.with_suffix(".html")
            beside.write_text(page, encoding="utf-8")
            saved["pages"] = [_saved(beside, subfolder)]
            told.append(str(Path(subfolder) / beside.name))
        return io.NodeOutput(ui={**ui.PreviewText("\n".join(told)).as_dict(), **saved})


class StreamT1ReportPlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1ReportPlot",
            display_name="Report Plot",
            category="Stream-T1",
            description="Draws a run from its report as a picture: the tree of candidates, who "
            "won each chunk and by how much, memory, costs and scores.",
            inputs=[
                io.String.Input(
                    "report",
                    force_input=True,
                    tooltip="The sampler's report output, or the text of a saved .jsonl file.",
                ),
            ],
            outputs=[io.Image.Output("image", display_name="image")],
        )

    @classmethod
    def execute(cls, report: str) -> io.NodeOutput:
        try:
            return io.NodeOutput(draw_report(report))
        except ValueError as error:
            raise ValueError(f"Report Plot: {error}") from error


def _saved(path: Path, subfolder: str) -> dict[str, str]:
    """A saved file as the host names them."""
    return {"filename": path.name, "subfolder": subfolder, "type": "output"}


NODES = [StreamT1SaveReport, StreamT1ReportPlot]
