"""What the columns of a benchmark's tables mean, and which way is better.

A column is known by its name, or by what stands before a comma in it (``rank correlation, fused``).
Each of ``GROUPS`` makes a table of its own, so that none grows wide: costs with the oracle and the
rewards, so that a reward that is only pleased shows; then the pictures, and what a search did.
``COUNTED`` columns are 0 or 1 for a video and told as a count; those of a ``SECOND`` are for plots.
Knows no numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

MORE, LESS = "↑", "↓"  # is better


class Column(NamedTuple):
    """``better``: ``MORE``, ``LESS`` or nothing."""

    better: str
    means: str


COSTS = {
    "ms per frame": Column(LESS, "processor time of one core for each pixel frame"),
    "denoiser calls": Column(
        LESS,
        "forward passes for a clip, candidate by candidate; refining and context passes too",
    ),
}
JUDGED = {
    "oracle pass rate": Column(
        MORE,
        "share of clips in which classical image analysis, which no search sees, finds the "
        "caption's colour, shape and background in three of four frames, straight motion, and an "
        "object in the last second",
    ),
    "every second right": Column(
        MORE, "share of clips in which the oracle finds the same in each second by itself"
    ),
    "object there": Column(MORE, "share of clips that still show an object, by the oracle"),
    "shape right": Column(MORE, "share of clips with the caption's shape, by the oracle"),
    "direction right": Column(MORE, "share of clips that move the caption's way, by the oracle"),
}
REWARDED = {
    "short reward": Column(MORE, "what the search goes by, of the whole video: tiny CLIP score"),
    "long reward": Column(
        MORE, "what the search goes by, of the whole video: its long rewards, weighed and summed"
    ),
}
PICTURES = {
    "PSNR (dB)": Column(MORE, "against the nearest clip that a program draws for the caption"),
    "SSIM": Column(MORE, "against the same clip; 1 is equal"),
    "warping error (%)": Column(
        LESS, "difference to the frame before, moved along the optical flow; also a long reward"
    ),
    "flicker (grey levels)": Column(LESS, "change of what should not change, of 255"),
}
SEARCHED = {
    "candidates apart (%)": Column(
        "", "diversity: mean difference of a chunk's candidates, pixel by pixel"
    ),
    "first branch's score (SD)": Column(
        "",
        "how far the first candidate of a beam, to which its parent's noise is passed on unless "
        "all is fresh, is above the mean of its siblings, in their standard deviations",
    ),
    "first branch best (%)": Column(
        "", "of chunks in which it is the best of its siblings; of four that are alike, 25"
    ),
    "latent moved (%)": Column(
        "", "root mean square change of the clean latent, of the latent's own deviation"
    ),
    "calls saved (%)": Column(MORE, "denoiser calls, of those of the whole search"),
    "gain": Column(MORE, "by refining, in a chunk's fused score, standard deviations of its run"),
    "passes accepted": Column(MORE, "share of the refiner's passes that were kept"),
}
LOADED = {
    "late chunks": Column(LESS, "of a clip; those over the allowed seconds"),
    "largest step (candidates)": Column(LESS, "from one chunk to the next"),
    "chunks to recover": Column(LESS, "after the load, to as many candidates as before"),
    "PSNR while slow, less without load (dB)": Column(MORE, "chunk by chunk, the same clip"),
    "PSNR after, less without load (dB)": Column(MORE, "chunk by chunk, the same clip"),
}
SCORED = {
    "PSNR of its frames (dB)": Column(MORE, "against the VAE's of the same latents"),
    "survivors shared": Column(MORE, "share of the survivors that both choose"),
    "same winner": Column(MORE, "share of the chunks in which both rank the same one first"),
    "lost (SD)": Column(LESS, "by the VAE's score of those that the tiny decoder chooses"),
    "lost by lot (SD)": Column("", "the same, of those that a lot chooses"),
    "rank correlation": Column(MORE, "Spearman's, of a chunk's candidates; 1 is the same order"),
    "decoding": Column(LESS, "seconds of one core, a clip"),
    "of that the tiny one (s)": Column(LESS, "seconds of one core, a clip"),
    "whole run": Column(LESS, "seconds of one core, a clip"),
}
GROUPS = (
    {**COSTS, **JUDGED, **REWARDED},
    {**PICTURES, **SEARCHED, **LOADED, **SCORED},
)
COLUMNS = {key: column for group in GROUPS for key, column in group.items()}
COUNTED = {
    "broken": "have a pixel that is not a number",
    "frozen": "hardly change from frame to frame",
}
PART_OF = {"shape right": "oracle pass rate"}  # left out where it says no more than the whole
SECOND = "second "  # how names of what one second shows begin


def known(name: str) -> str | None:
    """The name by which ``COLUMNS`` tells of a column."""
    return next((key for key in (name, name.partition(",")[0]) if key in COLUMNS), None)


def head(name: str) -> str:
    """A column's name, with an arrow to where it is better."""
    key = known(name)
    return f"{name} {COLUMNS[key].better}".rstrip() if key else name


def groups(names: Sequence[str]) -> list[list[str]]:
    """Names as tables show them, group by group; what nobody knows comes last."""
    found = [[name for name in names if known(name) in group] for group in GROUPS]
    found.append([name for name in names if known(name) is None])
    return [group for group in found if group]
