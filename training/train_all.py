"""Retrains the whole tiny model: `python -m training.train_all`. Under 2 hours on 2 CPU cores.

Text encoder, VAE, CLIP, transformer, scoring decoder, then the measurements; each is a program of
its own that can run alone.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("train_text", "train_vae", "train_clip", "train_model", "train_taehv")
PARTS += ("measure", "measure_clip")

# glibc gives large blocks back to the system after each use, and a fifth of the time goes into
# getting them again; these settings make it keep them
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "500000000",
}


def main() -> None:
    for part in PARTS:
        print(f"== {part}", flush=True)
        command = [sys.executable, "-m", f"training.{part}"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **KEEP_MEMORY}, check=True)


if __name__ == "__main__":
    main()
