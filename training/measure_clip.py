"""Measures the tiny CLIP by the oracle: `python -m training.measure_clip`. Unseen clips only.

Three questions. Does the caption of a drawn clip beat the caption with one word changed? Does the
score fall as clips show less of what their caption says, by the oracle's count? And on clips that
the tiny model makes: does the score know the better one? The count is of colour, shape and
background; the oracle's verdict on motion is left out, since no single frame shows it.
"""

import argparse
import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import StreamConfig
from stream_t1_core.generate import Tools, generate
from stream_t1_core.rewards.base import Clips
from stream_t1_core.rewards.clip import ClipScore
from stream_t1_core.scoring import Critic
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.tiny import TinyModel, load_tiny

from . import clips, oracle
from .measure import LATENT_HW, SHORT_FRAMES, evaluation_pair, stream_samples
from .pictures import VALUES, Damage, other_value, paint
from .train_clip import FOLDER, NEAR, ROOT, one_word_wrong

RESULTS = ROOT / "training" / "results" / "clip.json"
CHUNK_LATENT_FRAMES = 3
SPOILED = {
    "wobbly outline": {"wobble": 3.0},
    "half another shape": {"reshape": 1.0},
    "blurred": {"blur": 3.0},
    "half its size": {"shrink": 0.5},
    "faded": {"fade": 0.7},
    "missing": {"fade": 1.0},
}  # amounts as in `Damage`


@dataclass(frozen=True, eq=False)
class Case:
    """A clip and the scene and caption that it is held against."""

    kind: str
    scene: clips.Scene
    caption: str
    frames: Tensor = field(repr=False)  # [T, 64, 64, 3]


@dataclass(frozen=True)
class Row:
    """Score and the oracle's count of one clip."""

    score: float
    right: int
    below: bool = False  # its score is below that of the clip as it should be
    shape: bool = False


def right_case(index: int) -> Case:
    """First chunk of evaluation clip `index`, near the middle or anywhere, as it should be."""
    _, caption = evaluation_pair(index)
    spread = clips.ANYWHERE if index % 2 else NEAR
    scene = clips.sample_scene(clips.evaluation_seed(index), spread)
    return Case("right", scene, caption, clips.draw(scene, oracle.FIRST_CHUNK))


def drawn_cases(index: int) -> list[Case]:
    """The same as it should be, with one thing wrong, and spoiled."""
    right = right_case(index)
    rng = random.Random(f"clip evaluation {index}")
    cases = [right]
    for attribute in VALUES:
        value = other_value(attribute, getattr(right.scene, attribute), rng)
        wrong = replace(right.scene, **{attribute: value})
        frames = clips.draw(wrong, oracle.FIRST_CHUNK)
        cases.append(replace(right, kind=f"wrong {attribute}", frames=frames))
    for kind, amounts in SPOILED.items():
        cases.append(replace(right, kind=kind, frames=_spoiled(right.scene, index, amounts)))
    return cases


def _spoiled(scene: clips.Scene, index: int, amounts: dict[str, float]) -> Tensor:
    """The first chunk with the same damage on each frame, its chance drawn anew."""
    places = clips.centres(scene, oracle.FIRST_CHUNK).tolist()
    frames = [replace(scene, start=tuple(place)) for place in places]
    damage = Damage.none(len(frames))
    full = {name: torch.full((len(frames),), amount) for name, amount in amounts.items()}
    noise = torch.Generator().manual_seed(clips.evaluation_seed(index))
    pixels, _ = paint(frames, replace(damage, **full), noise)
    return pixels


def score(reward: ClipScore, clips_: list[Tensor], caption: str) -> list[float]:
    """Score of each clip [T, 64, 64, 3] against one caption."""
    frames = torch.stack(clips_)
    return reward(Clips(frames, frames, caption, clips.FPS)).tolist()


def count_right(frames: Tensor, scene: clips.Scene) -> int:
    """How many of colour, shape and background the oracle finds right, 0..3."""
    verdict = oracle.judge(oracle.track(frames), scene)
    return verdict.colour + verdict.shape + verdict.background


def spearman(first: list[float], second: list[float]) -> float:
    """Rank correlation; equal values share their mean rank."""
    ranks = torch.stack([_ranks(torch.tensor(v, dtype=torch.float64)) for v in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    below = (values[:, None] > values).sum(1)
    equal = (values[:, None] == values).sum(1)
    return below + (equal - 1) / 2.0


def words(reward: ClipScore, count: int) -> dict[str, object]:
    """How often, and by how much, a clip's caption beats the same with one word changed."""
    gaps: dict[str, list[float]] = {attribute: [] for attribute in VALUES}
    for index in range(count):
        rng = random.Random(f"words {index}")
        right = right_case(index)
        for attribute in VALUES:
            _, wrong = one_word_wrong(right.scene, right.caption, attribute, rng)
            scores = [score(reward, [right.frames], text)[0] for text in (right.caption, wrong)]
            gaps[attribute].append(scores[0] - scores[1])
    return {
        name: {"right beats wrong": fmean(g > 0 for g in found), "mean gap": fmean(found)}
        for name, found in gaps.items()
    }


def drawn(reward: ClipScore, count: int) -> dict[str, object]:
    """Score and the oracle's count on drawn clips, by what is wrong with them."""
    rows: dict[str, list[Row]] = {}
    for index in range(count):
        cases = drawn_cases(index)
        scores = score(reward, [case.frames for case in cases], cases[0].caption)
        for case, value in zip(cases, scores, strict=True):
            right = count_right(case.frames, case.scene)
            rows.setdefault(case.kind, []).append(Row(value, right, value < scores[0]))
    everything = [row for found in rows.values() for row in found]
    kinds = {
        kind: {
            "mean score": fmean(row.score for row in found),
            "mean count": fmean(row.right for row in found),
            "below the right clip": fmean(row.below for row in found),
        }
        for kind, found in rows.items()
    }
    return {"clips": len(everything), "spearman": row_correlation(everything), "kinds": kinds}


def streamed(reward: ClipScore, weights: Path, count: int) -> dict[str, object]:
    """The same on each second of clips that the tiny model streams."""
    rows = []
    for sample in stream_samples(weights, count, SHORT_FRAMES):
        starts = range(0, len(sample.frames) - clips.FPS + 1, clips.FPS)
        seconds = [sample.frames[start : start + clips.FPS] for start in starts]
        scores = score(reward, seconds, sample.prompt)
        for second, value in zip(seconds, scores, strict=True):
            rows.append(Row(value, count_right(second, sample.scene)))
    by_count = {
        str(right): fmean(row.score for row in rows if row.right == right)
        for right in sorted({row.right for row in rows})
    }
    return {
        "seconds": len(rows),
        "spearman": row_correlation(rows),
        "mean score by count": by_count,
    }


def chosen(reward: ClipScore, weights: Path, prompts: int, candidates: int) -> dict[str, object]:
    """What choosing the first chunk by score is worth: the best of some seeds against their mean.

    "best there was": had the oracle chosen.
    """
    tiny = load_tiny(weights, drift=0.0)
    found = [_candidates(reward, tiny, index, candidates) for index in range(prompts)]
    picked = [max(rows, key=lambda row: row.score) for rows in found]
    table = {"prompts": prompts, "candidates": candidates}
    for name, value_of in (
        ("count", lambda row: row.right),
        ("shape right", lambda row: row.shape),
    ):
        table[name] = {
            "mean": fmean(value_of(row) for rows in found for row in rows),
            "chosen by score": fmean(value_of(row) for row in picked),
            "best there was": fmean(max(value_of(row) for row in rows) for rows in found),
        }
    return table


def row_correlation(rows: list[Row]) -> float:
    return spearman([row.score for row in rows], [row.right for row in rows])


def _candidates(reward: ClipScore, tiny: TinyModel, index: int, count: int) -> list[Row]:
    """First chunks of evaluation pair `index` from seeds of their own."""
    scene, prompt = evaluation_pair(index)
    model = CausalWan(tiny.backbone)
    text = model.encode_text(tiny.encode_prompt(prompt))
    tools = Tools(model, text, Critic(decoder=StreamingDecoder(tiny.vae)))
    rows = []
    for number in range(count):
        seed = clips.evaluation_seed(index * count + number)
        config = StreamConfig(latent_frames=CHUNK_LATENT_FRAMES, seed=seed)
        with torch.inference_mode():
            frames = generate(tools, config, LATENT_HW).frames
        verdict = oracle.judge(oracle.track(frames), scene)
        value = score(reward, [frames], prompt)[0]
        rows.append(Row(value, count_right(frames, scene), shape=verdict.shape))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the CLIP's folder")
    parser.add_argument("--weights", type=Path, default=ROOT / "tiny_model", help="tiny model")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON to write")
    parser.add_argument("--clips", type=int, default=240, help="drawn evaluation clips")
    parser.add_argument("--pairs", type=int, default=16, help="clips that the tiny model streams")
    parser.add_argument("--prompts", type=int, default=24, help="first chunks to choose among")
    parser.add_argument("--candidates", type=int, default=8, help="seeds for each of them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reward = ClipScore.from_folder(options.folder)
    numbers = {
        "one word wrong": words(reward, options.clips),
        "drawn clips": drawn(reward, options.clips),
        "tiny model, by second": streamed(reward, options.weights, options.pairs),
        "tiny model, first chunk": chosen(
            reward, options.weights, options.prompts, options.candidates
        ),
    }
    text = json.dumps(numbers, indent=1)
    options.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
