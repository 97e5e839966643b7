"""Budget: how much a run may spend, as a settings node for the sampler."""

from comfy_api.latest import io

from ..stream_t1_core.config import QUALITY, TARGETS, Budget
from .sockets import BudgetSocket

CHOICES = (*QUALITY, *TARGETS)


class StreamT1Budget(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1Budget",
            display_name="Budget",
            category="Stream-T1",
            description="Says what a run may spend, as a quality or in seconds or denoiser calls. "
            "Before every chunk the sampler decides by it how many candidates, paths and "
            "refinement passes there are, up to what the Reward Pruner and the Refiner say, and "
            "which of the sampler's VAEs candidates are judged by.",
            inputs=[
                io.Combo.Input(
                    "spend",
                    options=[*CHOICES],
                    default="medium",
                    tooltip="Low, medium and high are qualities of "
                    f"{', '.join(map(str, QUALITY.values()))}; quality is what the slider says; "
                    "the others are units of the amount.",
                ),
                io.Float.Input(
                    "quality",
                    default=QUALITY["medium"],
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="For quality: 0 makes one candidate a chunk, 1 all that the Reward "
                    "Pruner and the Refiner allow, judged by the sampler's vae.",
                ),
                io.Float.Input(
                    "amount",
                    default=62.5,
                    min=0.01,
                    max=1e9,
                    step=0.01,
                    tooltip="For the other units: how many. Real time is 62.5 milliseconds per "
                    "frame, at 16 frames a second.",
                ),
                io.Boolean.Input(
                    "hard",
                    default=False,
                    tooltip="For seconds and milliseconds: candidates are made one by one, and "
                    "when time is up those that are complete go on. Off: a chunk takes what it "
                    "takes, and the next ones get less. Cannot be used with quality or calls.",
                ),
                io.Boolean.Input(
                    "adaptive",
                    default=False,
                    tooltip="Spend more on chunks that look hard and less on those that look easy: "
                    "as much in all. Not with a hard deadline for each chunk.",
                ),
            ],
            outputs=[BudgetSocket.Output("budget", display_name="budget")],
        )

    @classmethod
    def execute(
        cls, spend: str, quality: float, amount: float, hard: bool, adaptive: bool
    ) -> io.NodeOutput:
        if spend not in CHOICES:  # older hosts let any text through
            raise ValueError(f"Budget: spend is '{spend}'; one of {', '.join(CHOICES)} is allowed")
        if spend in QUALITY:
            return io.NodeOutput(Budget("quality", QUALITY[spend], hard, adaptive))
        return io.NodeOutput(
            Budget(spend, quality if spend == "quality" else amount, hard, adaptive)
        )


NODES = [StreamT1Budget]
