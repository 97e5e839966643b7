"""Prompts over time: as one text with times in it, or chained one by one."""

from comfy.sd import CLIP
from comfy_api.latest import io

from ..stream_t1_core.timeline import clock, parse
from .host import prompts
from .host.prompts import Conditioning

DEFAULT_TEXT = """[0:00-0:03] a red circle moving left on a dark background
[0:03-] a blue circle moving left on a dark background"""

FADE_TOOLTIP = (
    "Seconds over which the old prompt turns into the new one, from the switch on, in steps of one "
    "chunk (0.75 s with LongLive). 0: a hard switch."
)
KEEP_SINKS_TOOLTIP = (
    "At a switch the recent chunks are remembered anew, under the new prompt. On: the sink (the "
    "first chunks) stays as the old prompt made it, and holds the look (LongLive's global sink). "
    "Off: the oldest recent chunks take its place, so the new prompt acts more freely."
)


class StreamT1PromptTimeline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1PromptTimeline",
            display_name="Prompt Timeline",
            category="Stream-T1",
            description="Several prompts over time, from one text: [0:00-0:08] first prompt "
            "[0:08-] second prompt. Goes into the Chunk Beam Sampler's positive.",
            inputs=[
                io.Clip.Input(
                    "clip", tooltip="The model's text encoder (UMT5-XXL for LongLive; Tiny Model's)"
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default=DEFAULT_TEXT,
                    tooltip="[START-END] prompt [START-] prompt ... Times: 0:08, 0:08.5, 1:02:30, "
                    "or seconds: 8. Begin at 0, leave no gaps. Without times: one prompt.",
                ),
                io.Float.Input(
                    "fade_seconds",
                    default=0.0,
                    min=0.0,
                    max=3600.0,
                    step=0.01,
                    tooltip=FADE_TOOLTIP,
                ),
                io.Boolean.Input("keep_sinks", default=False, tooltip=KEEP_SINKS_TOOLTIP),
            ],
            outputs=[io.Conditioning.Output("positive", display_name="positive")],
        )

    @classmethod
    def execute(cls, clip: CLIP, text: str, fade_seconds: float, keep_sinks: bool) -> io.NodeOutput:
        segments = parse(text)
        if clip is None:
            raise ValueError(
                "Prompt Timeline: clip is empty; the loader's file holds no text encoder. Use Load "
                "CLIP (type 'wan')"
            )
        timeline = []
        for segment in segments:
            encoded = clip.encode_from_tokens_scheduled(clip.tokenize(segment.prompt))
            fade = fade_seconds if timeline else 0.0
            timeline += prompts.at(encoded, segment.seconds, segment.prompt, fade, keep_sinks)
        return io.NodeOutput(timeline)


class StreamT1PromptAt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1PromptAt",
            display_name="Prompt At",
            category="Stream-T1",
            description="Changes the prompt at a second of the video. Chain several: each takes "
            "what came before it.",
            inputs=[
                io.Conditioning.Input(
                    "before",
                    tooltip="What runs until then: CLIP Text Encode, Prompt Timeline or another "
                    "Prompt At.",
                ),
                io.Conditioning.Input(
                    "conditioning", tooltip="The prompt to change to, from CLIP Text Encode."
                ),
                io.Float.Input(
                    "seconds",
                    default=3.0,
                    min=0.0,
                    max=1000000.0,
                    step=0.01,
                    tooltip="When it begins, in seconds of the video, given footage counted. It "
                    "acts from the chunk that starts nearest to it.",
                ),
                io.Float.Input(
                    "fade_seconds",
                    default=0.0,
                    min=0.0,
                    max=3600.0,
                    step=0.01,
                    tooltip=FADE_TOOLTIP,
                ),
                io.Boolean.Input("keep_sinks", default=False, tooltip=KEEP_SINKS_TOOLTIP),
                io.String.Input(
                    "prompt",
                    optional=True,
                    force_input=True,
                    tooltip="The words of conditioning: wire the text here that goes into CLIP "
                    "Text Encode. For rewards that read the prompt, and for the report.",
                ),
            ],
            outputs=[io.Conditioning.Output("positive", display_name="positive")],
        )

    @classmethod
    def execute(
        cls,
        before: Conditioning,
        conditioning: Conditioning,
        seconds: float,
        fade_seconds: float,
        keep_sinks: bool,
        prompt: str = "",
    ) -> io.NodeOutput:
        for name, prompts_in in (("before", before), ("conditioning", conditioning)):
            if not prompts_in:
                raise ValueError(f"Prompt At: {name} is empty; connect CLIP Text Encode")
        if prompts.is_timed(conditioning):
            raise ValueError(
                "Prompt At: conditioning has times of its own; connect a single prompt from CLIP "
                "Text Encode, and what runs before it to before"
            )
        last = prompts.last_second(before)
        if not seconds > last:
            raise ValueError(
                f"Prompt At: seconds is {seconds:g}, but the last prompt of before begins at "
                f"{clock(last)}; make seconds larger, or chain the nodes in the order of time"
            )
        return io.NodeOutput(
            before + prompts.at(conditioning, seconds, prompt, fade_seconds, keep_sinks)
        )


NODES = [StreamT1PromptTimeline, StreamT1PromptAt]
