"""Loaders: LongLive's released files, and the small model that ships with the pack."""

import logging

import folder_paths
from comfy_api.latest import io, ui

from ..stream_t1_core.tiny import DRIFT
from .host import longlive, tiny
from .sockets import advanced

log = logging.getLogger(__name__)

NO_LORA = "none"
DTYPES = ("bfloat16", "float16", "float32", "default")


class StreamT1LongLiveLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1LongLiveLoader",
            display_name="LongLive Loader",
            category="Stream-T1",
            description="Loads LongLive's base weights (.pt as released, or .safetensors) and its "
            "LoRA. Also loads other Wan 2.1-shaped causal text-to-video checkpoints.",
            inputs=[
                io.Combo.Input(
                    "base",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip="Base weights, in models/diffusion_models.",
                ),
                io.Combo.Input(
                    "lora",
                    options=[NO_LORA, *folder_paths.get_filename_list("loras")],
                    tooltip="LongLive's lora.pt, in models/loras; 'none' for checkpoints that need "
                    "none.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Strength of the LoRA. LongLive is made for 1.",
                ),
                advanced(
                    io.Combo.Input(
                        "precision",
                        options=list(DTYPES),
                        default="bfloat16",
                        tooltip="Number format of the weights. LongLive runs in bfloat16; "
                        "'default' leaves the choice to ComfyUI, which takes float16 on many "
                        "cards.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "use_ema",
                        default=True,
                        tooltip="Where the file holds both, take the averaged weights "
                        "(generator_ema) instead of the last ones (generator).",
                    )
                ),
            ],
            outputs=[io.Model.Output("model", display_name="model")],
        )

    @classmethod
    def execute(
        cls, base: str, lora: str, strength: float, precision: str, use_ema: bool
    ) -> io.NodeOutput:
        if precision not in DTYPES:
            raise ValueError(
                f"LongLive Loader: precision '{precision}'; choose one of {', '.join(DTYPES)}"
            )
        model, found = longlive.load_base(base, precision, use_ema)
        if lora != NO_LORA and strength != 0:
            model, applied = longlive.apply_lora(model, lora, strength)
            found += f"; LoRA {lora}: {applied} layers, strength {strength:g}"
        log.info("Stream-T1: %s", found)
        return io.NodeOutput(model, ui=ui.PreviewText(found))


class StreamT1TinyModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1TinyModel",
            display_name="Tiny Model",
            category="Stream-T1",
            description="The small streaming model that ships with the pack: 64 x 64 pixels, one "
            "coloured shape moving in one direction. Runs on any CPU, for trying things out.",
            inputs=[
                io.Float.Input(
                    "drift",
                    default=DRIFT,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    optional=True,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="Share of the noise that every denoising step leaves behind. What is "
                    "left adds up from chunk to chunk, and differs with the seed: videos degrade, "
                    "as those of large models do. 0: as trained, hardly any chance and drift.",
                )
            ],
            outputs=[
                io.Model.Output("model", display_name="model"),
                io.Clip.Output("clip", display_name="clip"),
                io.Vae.Output("vae", display_name="vae"),
                io.Vae.Output("scoring_vae", display_name="scoring_vae"),
            ],
        )

    @classmethod
    def execute(cls, drift: float = DRIFT) -> io.NodeOutput:
        return io.NodeOutput(
            tiny.load_model(drift), tiny.load_clip(), tiny.load_vae(), tiny.load_scoring_vae()
        )


NODES = [StreamT1LongLiveLoader, StreamT1TinyModel]
