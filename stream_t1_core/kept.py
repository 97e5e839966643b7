"""A run that a reel keeps: what it goes on from, which prompt each chunk has, and writing it down.

Between what is asked for now (settings, prompts, seed) and what the reel holds. Without a reel the
run is only a run: the same record with nothing kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import snapshot
from .config import StreamConfig
from .cues import Cue
from .events import Event, RunDone
from .recording import Recorder
from .reel import Reel
from .reel_content import StoredChunk, Take
from .replay import Replay
from .state import Start, StreamState
from .takes import Opening, ReelRequest, check_first, start_take
from .whole_files import digest

NOT_SETTINGS = ("seed", "latent_frames", "whole")  # what may differ from run to run of a take


@dataclass(frozen=True)
class AskedReel:
    """The folder of a reel, and what to do with it.

    ``snapshot``: keep the stream's state after each chunk too, so that to go on nothing has to be
    made again; for runs that do not keep the whole video, whose state does not grow.
    """

    folder: Path
    request: ReelRequest = field(default_factory=ReelRequest)
    snapshot: bool = False


@dataclass(frozen=True, eq=False)
class Kept:
    """What the sampler needs: its settings, prompts by chunk, and what is made already.

    Callable for ``emit``, before anything that tells the user a chunk is done.
    """

    config: StreamConfig
    cues: Sequence[Cue]
    replay: Replay = field(default_factory=Replay)
    record: Recorder | None = None
    snapshot: bool = False

    def keep(self, state: StreamState) -> None:
        """To be called with the state after every chunk."""
        if self.snapshot and state.chunk > len(self.replay.chunks):
            self.record.reel.write_snapshot(self.record.take, state.chunk, *snapshot.save(state))

    def __call__(self, event: Event) -> None:
        if self.record is None:
            return
        self.record(event)
        if isinstance(event, RunDone):
            self._end(event)

    def _end(self, event: RunDone) -> None:
        reel, take, last = self.record.reel, self.record.take, self.record.stored - 1
        if last < reel.length(take) - 1:
            return  # cut shorter than the reel: it says nothing of the best path in the end
        tried = reel.record(take, last)["candidates"]
        best = [candidate["rank"] for candidate in tried].index(event.best_beam)
        reel.write_winner(take, reel.path(take, last, best))

    @property
    def reel(self) -> dict[str, Any] | None:
        """Name and take of what is written, if anything is."""
        if self.record is None:
            return None
        return {"name": self.record.reel.folder.name, "take": self.record.take.number}


@contextmanager
def kept(
    asked: AskedReel | None,
    config: StreamConfig,
    cues: Sequence[Cue],
    start: Start | None,
    rewards: Mapping[str, float],
    backbone: nn.Module,
    latent_hw: tuple[int, int],
    device: torch.device | str = "cpu",
    scoring: str | None = None,
) -> Iterator[Kept]:
    """The run that ``asked`` asks for; its reel is held until the end.

    ``scoring``: kind of the decoder that is for scoring only, if there is one.
    """
    if asked is None:
        yield Kept(config, cues)
        return
    if asked.snapshot and config.whole:
        raise ValueError(
            "Reel: 'snapshot' keeps the state of runs whose memory does not grow with the video; "
            "plug a Stream Video Writer into the sampler with 'keep_images' off, or turn it off"
        )
    if not (asked.folder / "reel.json").exists():
        check_first(asked.request, asked.folder.name)  # a mistyped name leaves nothing behind
    reel = Reel.open(asked.folder, _geometry(config, start, backbone, latent_hw))
    with reel.writing():
        shas = [reel.save_prompt(cue.rows, cue.prompt) for cue in cues]
        opening = start_take(
            reel,
            asked.request,
            config.seed,
            _settings(config, cues, shas, rewards, scoring),
            config.chunks,
        )
        config = replace(config, seed=opening.take.seed)
        stored = _Stored(reel, opening)
        cues, shas = _by_chunk(stored, cues, shas)

        def prompt(chunk: int) -> tuple[str, bool]:
            here = max(i for i, cue in enumerate(cues) if cue.first_chunk <= chunk)
            return shas[here], cues[here].keep_sinks

        picked = opening.picked[1] if opening.picked else None
        record = Recorder(reel, opening.take, opening.replay, prompt)
        replay = Replay(stored, opening.keep, picked, opening.reseed)
        if asked.snapshot and picked is None:
            replay = replace(replay, state=_state(reel, opening, device))
        yield Kept(config, cues, replay, record, asked.snapshot)


def _state(reel: Reel, opening: Opening, device: torch.device | str) -> StreamState | None:
    """The stream's state where the run goes on, if it was kept."""
    found = reel.load_snapshot(opening.take, opening.replay)
    if found is None:
        return None
    state = snapshot.load(*found, device)
    ranks = opening.keep.get(opening.replay - 1)
    beams = [beam for beam in state.beams if ranks is None or beam.rank in ranks]
    return replace(state, beams=tuple(beams), reseed=opening.reseed)


class _Stored(Sequence[StoredChunk]):
    """The chunks to make again, read when they are asked for; a picked one is the parent's."""

    def __init__(self, reel: Reel, opening: Opening) -> None:
        self.reel = reel
        self.opening = opening

    def __len__(self) -> int:
        return self.opening.replay + (self.opening.picked is not None)

    def __getitem__(self, chunk: int) -> StoredChunk:
        return self.reel.load(self._take(chunk), chunk)

    def prompt(self, chunk: int) -> tuple[str, bool]:
        return self.reel.prompt_of(self._take(chunk), chunk)

    def _take(self, chunk: int) -> Take:
        take = self.opening.take
        return take if chunk < self.opening.replay else self.reel.take(take.parent)


def _by_chunk(
    stored: _Stored, cues: Sequence[Cue], shas: Sequence[str]
) -> tuple[list[Cue], list[str]]:
    """The prompts that stored chunks were made under, then those asked for now; with their SHAs."""
    found: list[Cue] = []
    names: list[str] = []
    for chunk in range(len(stored)):
        sha, keep_sinks = stored.prompt(chunk)
        if names[-1:] != [sha]:
            rows, words = stored.reel.load_prompt(sha)
            found.append(Cue(chunk, rows, words, keep_sinks))
            names.append(sha)
    for i, (cue, sha) in enumerate(zip(cues, shas, strict=True)):
        ends = cues[i + 1].first_chunk if i + 1 < len(cues) else None
        if (ends is None or ends > len(stored)) and names[-1:] != [sha]:
            found.append(replace(cue, first_chunk=max(cue.first_chunk, len(stored))))
            names.append(sha)
    return found, names


def _geometry(
    config: StreamConfig, start: Start | None, backbone: nn.Module, latent_hw: tuple[int, int]
) -> dict[str, Any]:
    """What cannot change within a reel."""
    return {
        "channels": backbone.in_dim,
        "frames_per_chunk": config.frames_per_chunk,
        "latent_height": latent_hw[0],
        "latent_width": latent_hw[1],
        "given_frames": config.given_frames,
        "given_sha256": start and digest(_tensors(start), {}),
        "model_width": backbone.dim,
        "model_layers": len(backbone.blocks),
        "model_heads": backbone.num_heads,
    }


def _tensors(start: Start) -> dict[str, Tensor]:
    parts = {"latent": start.latent, "frames": start.frames}
    return {name: part for name, part in parts.items() if part is not None}


def _settings(
    config: StreamConfig,
    cues: Sequence[Cue],
    shas: Sequence[str],
    rewards: Mapping[str, float],
    scoring: str | None,
) -> dict[str, Any]:
    """What decides how new chunks are made."""
    prompts = [
        {"chunk": cue.first_chunk + 1, "prompt": cue.prompt, "sha256": sha}
        for cue, sha in zip(cues, shas, strict=True)
    ]
    settings = {k: v for k, v in asdict(config).items() if k not in NOT_SETTINGS}
    return {**settings, "prompts": prompts, "rewards": dict(rewards), "scoring_vae": scoring}
