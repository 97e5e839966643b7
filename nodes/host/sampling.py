"""One run of the core's stream inside the host: its events go everywhere, its end is cleaned up."""

import logging
from contextlib import nullcontext

import torch
from comfy.latent_formats import LatentFormat
from comfy.model_management import InterruptProcessingException, load_models_gpu
from comfy.model_patcher import ModelPatcher

from ...stream_t1_core.events import Event, FramesSettled, StepDone
from ...stream_t1_core.finish import Video, finish
from ...stream_t1_core.generate import stream
from ...stream_t1_core.kept import Kept
from ...stream_t1_core.report import Report
from ...stream_t1_core.state import StreamState
from ...stream_t1_core.tools import Tools
from .live import LiveRun
from .progress import ProgressEvents
from .rescue import save_partial
from .video_file import VideoFile

log = logging.getLogger(__name__)


def sample(
    tools: Tools,
    run: Kept,
    latent_hw: tuple[int, int],
    model: ModelPatcher,
    report: Report,
    live: LiveRun,
    file: VideoFile | None,
) -> Video:
    """The stream to its end; what was finished is kept if it does not get there."""
    config = run.config
    progress = ProgressEvents(config.denoiser_calls)

    def emit(event: Event) -> None:
        run(event)
        report(event)
        live(event)
        progress(event)
        if isinstance(event, StepDone):  # a reward may have taken the model's place
            load_models_gpu([model])
        elif isinstance(event, FramesSettled) and file is not None:
            file.write(event.frames)

    state = StreamState()
    with file or nullcontext():
        try:
            for done in stream(tools, config, latent_hw, emit, run.replay):
                state = done
                run.keep(state)
            return finish(state, tools, config, emit)
        except BaseException as error:  # on newer hosts the interrupt is not an Exception
            cancelled = isinstance(error, InterruptProcessingException)
            report.stop("cancelled" if cancelled else f"{type(error).__name__}: {error}")
            live.tell()
            if run.reel:
                log.warning("Stream-T1: stopped; queue again to go on with reel %(name)s", run.reel)
            elif config.whole:
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
