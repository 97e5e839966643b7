"""Chunk Beam Sampler: reads the sockets, runs the core's stream, wraps what comes out."""

import logging

import torch
from comfy.latent_formats import LatentFormat
from comfy.model_management import InterruptProcessingException, load_models_gpu
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..stream_t1_core.config import FIXED_SINK, Memory, NoisePropagation, Schedule, StreamConfig
from ..stream_t1_core.events import Event, StepDone
from ..stream_t1_core.generate import Tools, Video, finish, stream
from ..stream_t1_core.report import Report
from ..stream_t1_core.scoring import Critic
from ..stream_t1_core.state import StreamState
from .host.live import LiveRun, runs
from .host.model import causal_model, load, prompt_rows
from .host.progress import ProgressEvents
from .host.rescue import save_partial
from .host.vae import HostDecoder, empty_latent_size
from .sockets import MemorySocket, NoiseSocket, Pruner, PrunerSocket, advanced

log = logging.getLogger(__name__)

MAX_SEED = 2**53 - 1  # larger ones are mangled by JavaScript


class StreamT1ChunkBeamSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1ChunkBeamSampler",
            display_name="Chunk Beam Sampler",
            category="Stream-T1",
            description="Makes a video chunk by chunk with a streaming model such as LongLive, and "
            "searches for the best chunks when a Reward Pruner is plugged in. A unit that is not "
            "plugged in is off.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A causal Wan 2.1 text-to-video model: LongLive Loader, Tiny Model, or "
                    "any loader with such a model. LoRAs apply.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The prompt, from CLIP Text Encode with the model's text encoder "
                    "(UMT5-XXL for LongLive).",
                ),
                io.Vae.Input(
                    "vae",
                    tooltip="The Wan 2.1 VAE. Its decoder runs along with the stream, so rewards "
                    "see frames and the video needs no second decode.",
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="Size and length: an empty video latent (EmptyHunyuanLatentVideo). "
                    "Any length; 4 pixel frames per latent frame, 16 a second.",
                ),
                io.Int.Input(
                    "seed",
                    default=42,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Same seed, same video. Every candidate's seed follows from it and is "
                    "in the report. Neighbouring seeds share candidates: randomize, or step by "
                    "more than beam width x branch factor.",
                ),
                NoiseSocket.Input(
                    "noise",
                    optional=True,
                    tooltip="Noise Propagation: start from the previous good chunk's noise. Not "
                    "plugged in: fresh noise.",
                ),
                PrunerSocket.Input(
                    "pruner",
                    optional=True,
                    tooltip="Reward Pruner: try several candidates per chunk and keep the best. "
                    "Not plugged in: plain streaming, one candidate.",
                ),
                MemorySocket.Input(
                    "memory",
                    optional=True,
                    tooltip="Memory Sink: what the model may remember. Not plugged in: LongLive's "
                    "window of 12 latent frames with a fixed sink of 3.",
                ),
                advanced(
                    io.Int.Input(
                        "steps",
                        default=4,
                        min=1,
                        max=100,
                        tooltip="Denoising steps per chunk. LongLive is made for 4.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "shift",
                        default=5.0,
                        min=0.01,
                        max=100.0,
                        step=0.01,
                        tooltip="Timestep shift of the noise schedule. Wan and LongLive: 5.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "frames_per_chunk",
                        default=3,
                        min=1,
                        max=30,
                        tooltip="Latent frames made together. LongLive: 3. Other causal models may "
                        "be made for 1; window and sink must be whole chunks.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "isolated",
                        default=False,
                        tooltip="Score as the released Stream-T1 code does: decode every chunk "
                        "alone and the span anew. Slower; the video itself is always decoded "
                        "continuously.",
                    )
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            outputs=[
                io.Latent.Output("best_latent", display_name="latent"),
                io.Image.Output("frames", display_name="images"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: list,
        vae: VAE,
        latent: dict[str, Tensor],
        seed: int,
        steps: int,
        shift: float,
        frames_per_chunk: int,
        isolated: bool,
        noise: NoisePropagation | None = None,
        pruner: Pruner | None = None,
        memory: Memory | None = None,
    ) -> io.NodeOutput:
        latent_frames, *latent_hw = empty_latent_size(latent)
        config = StreamConfig(
            latent_frames=latent_frames,
            frames_per_chunk=frames_per_chunk,
            seed=seed,
            schedule=Schedule.evenly(steps, shift),
            noise=noise,
            search=pruner.search if pruner else None,
            memory=memory or FIXED_SINK,
            isolated=isolated,
        )
        causal = causal_model(model)
        rows = prompt_rows(positive, causal.backbone)
        critic = Critic(
            HostDecoder(vae),
            pruner.short_reward if pruner else None,
            pruner.long_reward if pruner else None,
            pruner.prompt if pruner else "",
            fatal=(InterruptProcessingException,),
        )
        load(model, vae, config, tuple(latent_hw), list(pruner.hosted()) if pruner else [])
        tools = Tools(causal, causal.encode_text(rows), critic)
        report = Report()
        live = runs.start(*_place(cls.hidden), report)
        video = _run(tools, config, tuple(latent_hw), model, report, live)
        samples = model.model.latent_format.process_out(video.latent)
        return io.NodeOutput({"samples": samples}, video.frames, str(report))


def _place(hidden: io.HiddenHolder | None) -> tuple[str, str | None]:
    """The node's id, and the id of the workflow that it is in, if a browser queued it."""
    if hidden is None:  # not called by the host's executor
        return "", None
    info = hidden.extra_pnginfo
    workflow = info.get("workflow") if isinstance(info, dict) else None
    name = workflow.get("id") if isinstance(workflow, dict) else None
    return str(hidden.unique_id), name if isinstance(name, str) else None


def _run(
    tools: Tools,
    config: StreamConfig,
    latent_hw: tuple[int, int],
    model: ModelPatcher,
    report: Report,
    live: LiveRun,
) -> Video:
    """The stream to its end; what was finished is saved if it does not get there."""
    progress = ProgressEvents(config.denoiser_calls)

    def emit(event: Event) -> None:
        report(event)
        live(event)
        progress(event)
        if isinstance(event, StepDone):  # a reward may have taken the model's place
            load_models_gpu([model])

    state = StreamState()
    try:
        for done in stream(tools, config, latent_hw, emit):
            state = done
        return finish(state, tools, config, emit)
    except BaseException as error:  # on newer hosts the interrupt is not an Exception
        cancelled = isinstance(error, InterruptProcessingException)
        report.stop("cancelled" if cancelled else f"{type(error).__name__}: {error}")
        live.tell()
        _rescue(state, report, model.model.latent_format)
        raise


def _rescue(state: StreamState, report: Report, latent_format: LatentFormat) -> None:
    """Save the best beam's finished chunks, if there are any."""
    if state.chunk == 0:
        return
    path = state.beams[0].chunk.path()
    latent = torch.cat([chunk.latent for chunk in path], dim=1)[None]  # (1, C, F, h, w)
    try:
        saved = save_partial(latent_format.process_out(latent), str(report))
    except OSError as error:  # must not hide why the run stopped
        log.error("Stream-T1: stopped; its %d chunks could not be saved: %s", state.chunk, error)
        return
    log.warning("Stream-T1: stopped after %d chunks; they are saved in %s", state.chunk, saved)


NODES = [StreamT1ChunkBeamSampler]
