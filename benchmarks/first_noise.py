"""How much of a chunk's first noise is left in the chunk? The tiny model, its first chunk.

Run ``python -m benchmarks.first_noise``; it writes ``benchmarks/results/first_noise.{json,md}``. A
chunk is made once with all its noise from one seed, then with the first noise, with the noise that
is added between steps, or with both from another seed. Noise propagation mixes the first noise
only; that its first branch repeats its parent's seed repeats the later noise too. With LongLive's
schedule the second of four steps begins from 6 % of the first one's estimate and 94 % fresh noise.
"""

import torch

from stream_t1_core import noise
from stream_t1_core.config import StreamConfig
from stream_t1_core.denoise import denoise
from training.clips import evaluation_seed
from training.measure import LATENT_HW, SHORT_FRAMES, evaluation_pair

from .compare import Comparison, command_line, compare
from .measured import Job, Row
from .tiny_runs import tiny_tools

OTHER = 10**6  # how far the other seed is
CHANGED = {"the first": (1, 0), "the later": (0, 1), "all": (1, 1)}
CONFIG = StreamConfig(latent_frames=SHORT_FRAMES)


def measure(job: Job) -> Row:
    """One clip's first chunk."""
    changed, clip = CHANGED[job[0]], job[1]
    tools, seed = tiny_tools(evaluation_pair(clip)[1]), evaluation_seed(clip)
    steps, model = CONFIG.schedule.steps, tools.model
    shape = (model.backbone.in_dim, CONFIG.frames_per_chunk, *LATENT_HW)
    draws = [noise.draw(drawn, len(steps), shape) for drawn in (seed, seed + OTHER)]
    first, later = (draws[which] for which in changed)
    past = model.lay_out((), LATENT_HW)
    with torch.inference_mode():
        before, after = denoise(
            lambda noisy, times: model.flow(noisy, times, 0, tools.text, [past] * len(noisy)),
            torch.stack([draws[0][0], first[0]]),
            torch.stack([draws[0][1:], later[1:]]),
            CONFIG.schedule,
            lambda: None,
            range(len(steps)),
        )
    moved = (after - before).square().mean().sqrt() / before.std()
    return {"latent moved (%)": 100 * moved.item()}


COMPARISON = Comparison(
    name="first_noise",
    about=__doc__,
    way="noise from another seed",
    measure=measure,
    names=CHANGED,
    config=CONFIG,
    differences={},
)

if __name__ == "__main__":
    compare(COMPARISON, command_line(__doc__, clips=64).parse_args())
