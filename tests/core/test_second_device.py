"""Candidates' frames stay where they were decoded; what is kept of them goes to the CPU.

The second device is a pretended one, as strict as a GPU about what lies where.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from second_device import DEVICE, SecondDevice, placed_there
from torch import Tensor
from toys import LATENT_HW, search_config, search_tools, shown_tools, toy_rows, toy_tools

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import (
    FIXED_SINK,
    REFINE_METHODS,
    Budget,
    EarlyPruning,
    Refine,
    Search,
    StreamConfig,
)
from stream_t1_core.events import CandidatesMade, Emit, Event, FramesSettled
from stream_t1_core.finish import Video
from stream_t1_core.generate import generate
from stream_t1_core.rewards.base import Clips, Footage, Needs, Piece, Reward
from stream_t1_core.rewards.clip import ClipScore
from stream_t1_core.rewards.drift import ColourDrift
from stream_t1_core.rewards.flicker import Flicker
from stream_t1_core.rewards.mix import RewardMix, judge
from stream_t1_core.rewards.motion import MotionAmount, TemporalConsistency
from stream_t1_core.rewards.sharpness import Sharpness
from stream_t1_core.scoring import Decoder, DecoderState
from stream_t1_core.state import Start
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.taehv import TAEHVDecoder
from stream_t1_core.tools import PromptSwitch, Tools

TINY_CLIP = Path(__file__).parents[2] / "tiny_model" / "clip_tiny"
TEN_FRAMES = torch.rand(10, 8, 8, 3, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True, eq=False)
class DecodesThere:
    """A decoder whose frames lie on the second device."""

    decoder: Decoder

    def decode(
        self, latents: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState | None]:
        frames, after = self.decoder.decode(latents, state)
        return frames.to(DEVICE), after


def searched(
    short: Reward, long: Reward, *, there: bool, emit: Emit = lambda event: None
) -> tuple[Video, SecondDevice]:
    """A short search whose frames are decoded on the second device, or as ever."""
    tools = search_tools()
    decoder = DecodesThere(tools.critic.decoder) if there else tools.critic.decoder
    critic = replace(tools.critic, decoder=decoder, short=short, long=long, prompt="a red circle")
    device = SecondDevice()
    with torch.inference_mode(), device:
        strict = Search(2, 2, span_chunks=3, strict=True)  # a reward that fails is not left out
        config = search_config(latent_frames=12, search=strict)
        return generate(replace(tools, critic=critic), config, LATENT_HW, emit), device


def every_reward() -> tuple[Reward, Reward]:
    short = RewardMix(((1.0, Sharpness()), (0.1, ClipScore.from_folder(TINY_CLIP))))
    others = (TemporalConsistency(), Flicker(), MotionAmount(), ColourDrift())
    return short, RewardMix(tuple((1.0, reward) for reward in others))


def test_rewards_read_frames_where_they_were_decoded() -> None:
    seen: list[torch.device] = []

    @dataclass
    class Looks:
        needs: Needs
        name: str = "looks"

        def __call__(self, clips: Clips) -> Tensor:
            seen.extend((clips.frames.device, clips.first.device))
            return clips.frames.mean(dim=(1, 2, 3, 4))

    video, _ = searched(Looks(Needs()), Looks(Needs(fps=4.0)), there=True)
    while_made = seen[: -2 * len(video.final_scores)]  # in the end whole videos are judged
    assert while_made and all(device.type == DEVICE.type for device in while_made)


def test_spans_that_are_not_sampled_do_not_fill_the_device() -> None:
    with SecondDevice() as device:
        tried = [Piece((TEN_FRAMES + i).to(DEVICE)) for i in range(4)]
        device.sent.clear()
        footage = Footage([[Piece(TEN_FRAMES), piece] for piece in tried], [TEN_FRAMES] * 4, "", 16)
        assert footage.clips(Needs()).frames.is_cpu and not device.sent
        assert footage.clips(Needs(fps=4.0)).frames.is_cuda


def test_frames_are_measured_where_they_were_decoded_and_so_is_a_past_that_was_put_away() -> None:
    """A run that goes on from a reel has measured nothing of its past yet."""
    seen: list[torch.device] = []

    def brightness(frames: Tensor) -> Tensor:
        seen.append(frames.device)
        return frames.mean(dim=(1, 2))

    def change(frames: Tensor) -> Tensor:
        seen.append(frames.device)
        return frames.diff(dim=0).abs().mean(dim=(1, 2, 3))

    with SecondDevice():
        pieces = [Piece(TEN_FRAMES), Piece(TEN_FRAMES.to(DEVICE))]
        footage = Footage([pieces], [TEN_FRAMES], "", 16.0)
        made = footage.marks(brightness), footage.first_marks(brightness)
        assert all(x.is_cuda for x in (*made, footage.mean_of_pairs(change)))
    assert len(seen) == 6 and all(device.type == DEVICE.type for device in seen)


def test_a_reward_that_writes_to_its_clips_does_not_change_the_video() -> None:
    class Writes:
        name = "writes"

        def __call__(self, clips: Clips) -> Tensor:
            clips.frames.mul_(0.5)
            clips.first.mul_(0.5)
            return clips.frames.mean(dim=(1, 2, 3, 4))

    before = TEN_FRAMES.clone()
    for count in (1, 2):
        pieces = [[Piece(TEN_FRAMES)] for _ in range(count)]
        judge(Writes(), Footage(pieces, [TEN_FRAMES] * count, "", 16.0))
        assert torch.equal(TEN_FRAMES, before)


def test_a_search_decides_the_same_wherever_frames_lie() -> None:
    made, _ = searched(*every_reward(), there=True)
    expected, _ = searched(*every_reward(), there=False)
    assert made.final_scores == expected.final_scores
    assert torch.equal(made.frames, expected.frames)


def test_the_video_and_what_is_looked_back_on_lie_in_the_cpus_memory() -> None:
    tried: list[bool] = []
    settled: list[bool] = []

    def emit(event: Event) -> None:
        if isinstance(event, CandidatesMade):
            tried.extend(frames.is_cpu for frames in event.frames)
        elif isinstance(event, FramesSettled):
            settled.append(event.frames.is_cpu)

    searched(*every_reward(), there=True, emit=emit)
    assert tried and not any(tried)
    assert settled and all(settled)


def test_a_past_that_candidates_share_is_moved_once() -> None:
    past, opening = Piece(TEN_FRAMES), TEN_FRAMES[:3]
    device = SecondDevice()
    with device:
        tried = [Piece((TEN_FRAMES + i).to(DEVICE)) for i in range(4)]
        device.sent.clear()
        footage = Footage([[past, piece] for piece in tried], [opening] * 4, "", 16.0)
        looked_at = footage.clips(Needs(fps=8.0))
        assert looked_at.frames.shape == (4, 10, 8, 8, 3)
    assert device.sent == [past.frames.numel() // 2, opening.numel()]


def test_numbers_of_pairs_are_kept_with_a_piece_that_is_put_away() -> None:
    def change(frames: Tensor) -> Tensor:
        measured.append(len(frames))
        return frames.diff(dim=0).abs().mean(dim=(1, 2, 3))

    measured: list[int] = []
    with SecondDevice():
        before, piece = Piece(TEN_FRAMES), Piece(TEN_FRAMES.to(DEVICE))
        footage = Footage([[before, piece]], [TEN_FRAMES], "", 16.0)
        there = footage.mean_of_pairs(change).cpu()
        kept = piece.put_away()
        again = Footage([[before, kept]], [TEN_FRAMES], "", 16.0).mean_of_pairs(change)
    assert kept.frames.is_cpu and torch.equal(again, there)
    assert sorted(measured) == [2, 10, 10]


def test_learned_rewards_resize_frames_where_they_lie() -> None:
    """HPSv3 resizes with Pillow on the CPU, and elsewhere to within 1 of 255 of it."""
    pytest.importorskip("transformers", reason="the Qwen2-VL rewards need transformers")
    from test_qwen_rewards import clips, hpsv3, videoalign

    for reward, most in ((videoalign(), 0.0), (hpsv3(), 0.02)):
        looked_at = clips()
        expected = reward(looked_at)
        placed_there(reward.module)
        with SecondDevice() as device:
            frames = looked_at.frames.to(DEVICE)
            found = reward(replace(looked_at, frames=frames, first=frames)).cpu()
        read = [how for how in device.waits if how in ("cpu", "to")]
        assert read == ["cpu"], reward.name  # the scores; no frames
        assert torch.allclose(found, expected, rtol=0, atol=most), reward.name


def test_the_second_device_is_as_strict_as_a_gpu() -> None:
    with SecondDevice():
        there, number = TEN_FRAMES.to(DEVICE), torch.tensor(1.0)
        for here in (TEN_FRAMES, number):
            with pytest.raises(RuntimeError, match="on cuda:0 and on the CPU"):
                torch.stack([there[(0,) * (4 - here.dim())], here])
        with pytest.raises(RuntimeError, match="on cuda:0 and on the CPU"):
            TEN_FRAMES[torch.arange(2, device=DEVICE)]
        assert there[torch.arange(2)].is_cuda and (there + number).is_cuda
        assert torch.empty_like(TEN_FRAMES).copy_(there).is_cpu
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there + 1).is_cuda and torch.equal(there.cpu(), TEN_FRAMES)


def whole_run(tools: Tools, config: StreamConfig) -> tuple[Video, SecondDevice]:
    """Model, decoders and prompt on the second device."""
    with torch.inference_mode(), SecondDevice() as device:
        placed_there(tools.model.backbone)
        there = CausalWan(tools.model.backbone, device=DEVICE)
        critic = replace(tools.critic, decoder=decodes_there(tools.critic.decoder))
        tools = replace(tools, model=there, text=there.encode_text(toy_rows()), critic=critic)
        tools = replace(tools, decoder=tools.decoder and decodes_there(tools.decoder))
        return generate(tools, config, LATENT_HW), device


def decodes_there(decoder: StreamingDecoder | TAEHVDecoder) -> StreamingDecoder | TAEHVDecoder:
    placed_there(decoder.vae if isinstance(decoder, StreamingDecoder) else decoder.tiny)
    decoder.device = DEVICE
    return decoder


SWITCH = PromptSwitch(2, torch.ones(1, 4, 8), "something else", keep_sinks=False)
FOOTAGE = Start(torch.ones(16, 4, *LATENT_HW))
PRUNES_EARLY = Search(2, 2, span_chunks=3, early=EarlyPruning(1, 0.5))
MADE = {
    "a search with all units": (search_tools, {}),
    "plain streaming": (toy_tools, {"search": None, "noise": None, "memory": FIXED_SINK}),
    "positions that are relative": (search_tools, {"positions": "relative"}),
    "another prompt": (lambda: replace(search_tools(), switches=(SWITCH,)), {}),
    "given footage": (lambda: replace(search_tools(), start=FOOTAGE), {"given_frames": 4}),
    "frames of another decoder": (shown_tools, {}),
    "early pruning": (search_tools, {"search": PRUNES_EARLY}),
    "chunks decoded alone": (search_tools, {"isolated": True}),
    "a video that is not kept": (search_tools, {"whole": False}),
    "a budget": (search_tools, {"budget": Budget(amount=0.5)}),
    **{
        f"refining, {method}": (search_tools, {"refine": Refine(method, 1)})
        for method in REFINE_METHODS
    },
}


@pytest.mark.parametrize("name", MADE)
def test_a_whole_run_is_the_same_on_another_device(name: str) -> None:
    """Nothing of it mixes what lies there with what lies on the CPU, which a GPU would refuse."""
    make_tools, changes = MADE[name]
    config = search_config(latent_frames=15, **changes)
    made, device = whole_run(make_tools(), config)
    with torch.inference_mode():
        expected = generate(make_tools(), config, LATENT_HW)
    assert device.sent
    assert made.final_scores == pytest.approx(expected.final_scores, abs=1e-4)
    if config.whole:  # a CPU decodes one candidate by another kernel than several
        assert torch.allclose(made.frames, expected.frames, rtol=0, atol=2e-4)
        assert torch.equal(made.latent, expected.latent)


def test_a_chunk_reads_latents_scores_and_survivors_frames_from_the_device_only() -> None:
    """And waits for each beam's decoding, so that the clock tells what that took."""

    def waits(chunks: int) -> Counter[str]:
        tools, config = toy_tools(Sharpness(), Flicker()), search_config(latent_frames=3 * chunks)
        return Counter(whole_run(tools, config)[1].waits)

    latents, scores, beams = 1, 2, 2
    frames_and_marks = 2 * beams
    read = latents + scores + frames_and_marks
    assert waits(6) - waits(5) == Counter(cpu=read, synchronize=beams)
