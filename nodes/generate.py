"""Chunk Beam Sampler: reads the sockets, runs the core's stream, wraps what comes out."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker
from torch import Tensor

from ..stream_t1_core.config import (
    FIXED_SINK,
    POSITIONS,
    Budget,
    Memory,
    NoisePropagation,
    Refine,
    Schedule,
    StreamConfig,
)
from ..stream_t1_core.footprint import DOWNSCALE
from ..stream_t1_core.kept import AskedReel, kept
from ..stream_t1_core.kv import KVPlace
from ..stream_t1_core.report import Report
from ..stream_t1_core.scoring import Critic
from ..stream_t1_core.show import Behind
from ..stream_t1_core.tools import PromptSwitch, Tools
from .host.director import Directing, LiveDirector
from .host.live import runs
from .host.model import AUTO, backbone_of, causal_model, load, trained_frames
from .host.prompts import cues
from .host.sampling import sample
from .host.start import AskedStart, prepare
from .host.vae import HostDecoder, empty_latent_size
from .host.video_file import VideoFile, new_path, workflow_metadata
from .sockets import (
    BudgetSocket,
    DirectorSocket,
    MemorySocket,
    NoiseSocket,
    Pruner,
    PrunerSocket,
    ReelSocket,
    RefinerSocket,
    StartSocket,
    Writer,
    WriterSocket,
    advanced,
)

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
                    "in the report. Nearby seeds share candidates: randomize them, or step by a "
                    "million.",
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
                RefinerSocket.Input(
                    "refiner",
                    optional=True,
                    tooltip="Refiner: make the chunks that go on anew from a little noise, where "
                    "that is better by the rewards. Not plugged in: they stay as they are.",
                ),
                BudgetSocket.Input(
                    "budget",
                    optional=True,
                    tooltip="Budget: what the run may spend, up to what Reward Pruner and Refiner "
                    "say. Not plugged in: all of that, for every chunk.",
                ),
                StartSocket.Input(
                    "start",
                    optional=True,
                    tooltip="Start From: the video begins with this picture or clip and goes on "
                    "from it; its frames count towards the length. Not plugged in: from noise.",
                ),
                ReelSocket.Input(
                    "reel",
                    optional=True,
                    tooltip="Reel: keep the run on disk, go on with it, do a chunk again. Not "
                    "plugged in: nothing is kept but the outputs.",
                ),
                DirectorSocket.Input(
                    "director",
                    optional=True,
                    tooltip="Director: choose the candidates that go on by hand, in this node's "
                    "panel. Not plugged in: the rewards choose.",
                ),
                WriterSocket.Input(
                    "writer",
                    optional=True,
                    tooltip="Stream Video Writer: write the video to a file while it is made. Not "
                    "plugged in: frames come out at the end only.",
                ),
                io.Vae.Input(
                    "scoring_vae",
                    optional=True,
                    tooltip="A quicker VAE that decodes candidates for the rewards and the panel: "
                    "taew2_1 or lighttaew2_1 from Load VAE, or the Tiny Model's. The vae then "
                    "decodes each chunk of the video once, beside the search if it has a device of "
                    "its own. Not plugged in: the vae decodes all.",
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
                advanced(
                    io.Combo.Input(
                        "positions",
                        options=[*POSITIONS],
                        default=POSITIONS[0],
                        optional=True,
                        tooltip="Where rotary embeddings place a chunk. absolute: at its own time, "
                        "as released; relative: next to what it remembers, for any length; auto: "
                        "absolute as far as the model was trained (LongLive: 60 s), then relative.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "kv_place",
                        options=[AUTO, *(place.value for place in KVPlace)],
                        default=AUTO,
                        optional=True,
                        tooltip="Where keys, values and the decoder's memory are kept: with the "
                        "model (quickest), in page-locked CPU memory, or in CPU memory. Same video "
                        "each way. auto: with the model if all fits, otherwise pinned.",
                    )
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,  # with a writer or a reel, nothing else need be plugged in
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
        positions: str = "auto",
        kv_place: str = AUTO,
        noise: NoisePropagation | None = None,
        pruner: Pruner | None = None,
        memory: Memory | None = None,
        refiner: Refine | None = None,
        budget: Budget | None = None,
        start: AskedStart | None = None,
        reel: AskedReel | None = None,
        director: Directing | None = None,
        writer: Writer | None = None,
        scoring_vae: VAE | None = None,
    ) -> io.NodeOutput:
        latent_frames, *latent_hw = empty_latent_size(latent)
        latent_hw = tuple(latent_hw)
        backbone = backbone_of(model)
        latent_format = model.model.latent_format
        given = prepare(start, vae, latent_format, latent_hw) if start else None
        config = StreamConfig(
            latent_frames=latent_frames,
            given_frames=given.latent.shape[1] if given else 0,
            frames_per_chunk=frames_per_chunk,
            seed=seed,
            schedule=Schedule.evenly(steps, shift),
            noise=noise,
            search=pruner.search if pruner else None,
            memory=memory or FIXED_SINK,
            refine=refiner,
            budget=budget,
            isolated=isolated,
            positions=positions,
            trained_frames=trained_frames(model),
            whole=writer is None or writer.keep_images,
        )
        prompts = cues(positive, backbone, config)
        apart = vae.device != model.load_device
        decoder, scorer = HostDecoder(vae, apart=apart), None
        if pruner is None and not apart:  # nothing is scored, and nothing gained
            scoring_vae = None
        if scoring_vae is not None:
            scorer = HostDecoder(scoring_vae, "scoring_vae")
        critic = Critic(
            scorer or decoder,
            pruner.short_reward if pruner else None,
            pruner.long_reward if pruner else None,
            pruner.prompt if pruner else "",
            fatal=(InterruptProcessingException,),
        )
        weights = pruner.weights() if pruner else {}
        rewards = [*pruner.hosted()] if pruner else []
        place = load(model, vae, scoring_vae, config, latent_hw, rewards, kv_place)
        for one in filter(None, (decoder, scorer)):
            one.place = place
        causal = causal_model(model, place)
        asked = (reel, config, prompts, given, weights, backbone, latent_hw, model.load_device)
        with kept(*asked, scoring=scorer and scorer.kind) as run, ThreadPoolExecutor(1) as pool:
            report = Report()
            live = runs.start(*_workflow_place(cls.hidden), report)
            live.reel = run.reel
            live.quality = budget.amount if budget and budget.target == "quality" else None
            if run.reel:
                made = min(len(run.replay.chunks), config.chunks)
                log.info(
                    "Stream-T1: reel '%s', take %d: %d chunks are there, %d to make",
                    run.reel["name"],
                    run.reel["take"],
                    made,
                    config.chunks - made,
                )
            tools = Tools(
                causal,
                causal.encode_text(run.cues[0].rows),
                replace(critic, prompt=run.cues[0].prompt or critic.prompt),
                switches=[
                    PromptSwitch(
                        cue.first_chunk, cue.rows, cue.prompt or critic.prompt, cue.keep_sinks
                    )
                    for cue in run.cues[1:]
                ],
                start=given,
                director=director and LiveDirector(director, live),
                quality=lambda: live.quality,
                decoder=scorer and decoder,
                behind=Behind(pool) if apart else None,
            )
            file = writer and _video_file(writer, config, latent_hw, cls.hidden)
            live.video = file and file.saved
            video = sample(tools, run, latent_hw, model, report, live, file)
        # not as a preview: the node shows the latest frame there, and the panel leads to the file
        shown = file and {"videos": [file.saved]}
        if video.latent is None:
            log.info("Stream-T1: keep_images is off: latent and images go nowhere, as asked")
            off = ExecutionBlocker(None)
            return io.NodeOutput(off, off, str(report), ui=shown)
        samples = latent_format.process_out(video.latent)
        return io.NodeOutput({"samples": samples}, video.frames, str(report), ui=shown)


def _workflow_place(hidden: io.HiddenHolder | None) -> tuple[str, str | None]:
    """The node's id, and the id of the workflow that it is in, if a browser queued it."""
    if hidden is None:  # not called by the host's executor
        return "", None
    info = hidden.extra_pnginfo
    workflow = info.get("workflow") if isinstance(info, dict) else None
    name = workflow.get("id") if isinstance(workflow, dict) else None
    return str(hidden.unique_id), name if isinstance(name, str) else None


def _video_file(
    writer: Writer,
    config: StreamConfig,
    latent_hw: tuple[int, int],
    hidden: io.HiddenHolder | None,
) -> VideoFile:
    path = new_path(writer.filename_prefix, *(DOWNSCALE * size for size in latent_hw))
    return VideoFile(path, config.fps, writer.crf, workflow_metadata(hidden))


NODES = [StreamT1ChunkBeamSampler]
