"""Trains the small CLIP that ships with the pack: `python -m training.train_clip`.

Pictures and captions of the clips' world meet in a grid: every picture against every caption of a
batch, half of them captions with one word changed. The cosine learns how far the caption holds for
the picture (`pictures.py`), so it falls with each wrong word and with damage. Motion does not show
on a single frame: the captions speak of it, and the score does not mind. The files are laid out as
a hub folder of CLIP. Needs one CPU core for about a quarter of an hour.
"""

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tokenizers
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from tokenizers import models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from stream_t1_core.rewards.clip import (
    BICUBIC,
    TEXT_END,
    TEXT_START,
    WORD_PIECES,
    PromptTokenizer,
    embed_pictures,
)
from stream_t1_core.rewards.vision import Preprocess
from stream_t1_core.tiny import VAE_FILE, read_tensors
from stream_t1_core.wan_vae import WanVAE

from . import clips
from .muon import Muon
from .pictures import (
    VALUES,
    Damage,
    Meaning,
    other_value,
    paint,
    said,
    through_vae,
    with_other_word,
)
from .train_text import free_words

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tiny_model" / "clip_tiny"
SEED = 7
CAPTIONS = 6000  # that the tokenizer learns from
LEAST_COUNT = 60  # of a pair of letters or pieces that becomes a piece
TEXT_LENGTH = 77
WIDTH = 64  # of the space that pictures and captions meet in
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
NEAR = 14.0  # pixels from the middle, where first chunks happen
LEAST_SPREAD = 4.0  # pixels; where training begins
MOST_LATENT_NOISE = 0.4  # standard deviation, where the latents' is about 1
STRANGE = 0.3  # share of captions with words that say nothing
SHARPNESS = 20.0  # of the contrast between captions; exp(logit_scale) of the file
GRADE_WEIGHT = 20.0  # of the cosines' own values beside their contrast

EVERY_SCENE = [
    clips.Scene(colour, shape, "left", background, (0.0, 0.0), clips.SLOWEST, clips.LARGEST)
    for colour, shape, background in itertools.product(*VALUES.values())
]  # all that single frames can show


@dataclass(frozen=True)
class Plan:
    """How much to train. A step sees `batch` pictures and twice `captions` texts.

    Half of the texts describe some of the pictures, the others differ from them in one word.
    """

    steps: int = 2200
    batch: int = 96
    captions: int = 20
    decoded: int = 24  # pictures of a batch that went through the VAE
    bank: int = 1800  # such pictures in all
    middle_until: float = 0.1  # share of training with the object in the middle
    plain_until: float = 0.35  # on whole pictures, the objects further and further out
    warm_up: int = 40
    matrix_rate: float = 0.02  # for the layers' matrices (Muon)
    rate: float = 2e-3  # for everything else (AdamW)
    average: float = 0.995  # decay of the weights' moving average, which is what ships


class Trainer:
    """One training run: model, optimisers, averaged weights and its lessons' chance."""

    def __init__(self, tokenizer: PromptTokenizer, vae: WanVAE, plan: Plan) -> None:
        self.plan = plan
        self.tokenizer = tokenizer
        self.model = transformers.CLIPModel(clip_config(tokenizer)).train()
        self.preprocess = Preprocess(clips.SIDE, MEAN, STD)
        self.rng = random.Random(SEED)
        self.noise = torch.Generator().manual_seed(SEED)
        self.clip = 0
        self.bank_scenes = self._scenes(plan.bank, clips.ANYWHERE)
        self.bank_pixels, self.bank_meaning = self._through_vae(vae)
        self.places = meeting_places()
        self.optimisers = _optimisers(self.model, plan)
        self.average = {name: w.clone() for name, w in self.model.state_dict().items()}

    def step(self, number: int) -> float:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * self._rate(number)
        loss = self._loss(number / self.plan.steps)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        keep = min(self.plan.average, (1 + number) / (10 + number))
        with torch.no_grad():
            for name, weight in self.model.state_dict().items():
                self.average[name].lerp_(weight, 1 - keep)
        return loss.item()

    def _rate(self, number: int) -> float:
        left = (self.plan.steps - number) / self.plan.steps
        return min(1.0, (number + 1) / self.plan.warm_up, left / 0.5)

    def _loss(self, progress: float) -> Tensor:
        scenes, pixels, meaning = self._batch(progress)
        own = self.rng.sample(scenes, self.plan.captions)
        plain = [clips.prompt(scene, self.rng) for scene in own]
        changed = [self._one_word_wrong(*pair) for pair in zip(own, plain, strict=True)]
        told = own + [scene for scene, _ in changed]
        texts = plain + [text for _, text in changed]
        texts = [with_strange_words(text, self.rng) for text in texts]
        seen = embed_pictures(self.model, self.preprocess(pixels))
        read = embed_texts(self.model, self.tokenizer, texts)
        return (
            grid_loss(seen @ read.T, meaning.agreement(told))
            + grid_loss(seen @ self.places.T, meaning.agreement(EVERY_SCENE))
            + grid_loss(read @ self.places.T, said(told).agreement(EVERY_SCENE))
        )

    def _batch(self, progress: float) -> tuple[list[clips.Scene], Tensor, Meaning]:
        """Freshly drawn pictures and some of those that went through the VAE.

        First whole ones with the object in the middle, then further out, then damaged ones: shapes
        anywhere or blobs at once are learned late or never.
        """
        first, last = self.plan.middle_until, self.plan.plain_until
        plain = progress < last
        decoded = 0 if plain else self.plan.decoded
        out = min(max((progress - first) / (last - first), 0.0), 1.0)
        spread = LEAST_SPREAD + out * (clips.ANYWHERE - LEAST_SPREAD)
        scenes = self._scenes(self.plan.batch - decoded, spread)
        damage = Damage.none(len(scenes)) if plain else Damage.sample(len(scenes), self.noise)
        pixels, meaning = paint(scenes, damage, self.noise)
        if plain:
            return scenes, pixels, meaning
        picks = torch.randint(self.plan.bank, (decoded,), generator=self.noise)
        scenes += [self.bank_scenes[pick] for pick in picks.tolist()]
        pixels = torch.cat([pixels, self.bank_pixels[picks]])
        return scenes, pixels, meaning.and_also(self.bank_meaning.part(picks))

    def _one_word_wrong(self, scene: clips.Scene, text: str) -> tuple[clips.Scene, str]:
        attribute = self.rng.choice(list(VALUES))
        return one_word_wrong(scene, text, attribute, self.rng)

    def _scenes(self, count: int, spread: float) -> list[clips.Scene]:
        """Fresh scenes; every second object is no further out than first chunks have it."""
        first, self.clip = self.clip, self.clip + count
        return [
            clips.sample_scene(clips.training_seed(i), min(spread, NEAR) if i % 2 else spread)
            for i in range(first, self.clip)
        ]

    def _through_vae(self, vae: WanVAE) -> tuple[Tensor, Meaning]:
        damage = Damage.sample(self.plan.bank, self.noise)
        pixels, meaning = paint(self.bank_scenes, damage, self.noise)
        level = MOST_LATENT_NOISE * torch.rand(self.plan.bank, 1, 1, 1, 1, generator=self.noise)
        noise = level * torch.randn(self.plan.bank, 16, 1, 8, 8, generator=self.noise)
        parts = zip(pixels.split(50), noise.split(50), strict=True)
        return torch.cat([through_vae(vae, *part) for part in parts]), meaning


def grid_loss(cosine: Tensor, agreement: Tensor) -> Tensor:
    """Cosines [pictures, captions] against how far each caption holds for each picture, 0..1.

    Two parts: the contrast of each row and column (cross entropy with soft labels), which tells
    near captions apart, and the value itself, which makes scores of different pictures comparable.
    """
    wanted, found = SHARPNESS * agreement, SHARPNESS * cosine
    by_picture = F.cross_entropy(found, wanted.softmax(1))
    by_caption = F.cross_entropy(found.T, wanted.T.softmax(1))
    return by_picture + by_caption + GRADE_WEIGHT * F.mse_loss(cosine, agreement)


def meeting_places() -> Tensor:
    """A fixed point of the common space for each scene of EVERY_SCENE: unit vectors [M, WIDTH].

    Sums of one direction for each value, so the cosine of two is the share of values they have in
    common. Each tower also learns against these: of a shape that neither knows, neither could teach
    the other.
    """
    count = sum(len(values) for values in VALUES.values())
    directions = torch.linalg.qr(torch.randn(WIDTH, count)).Q.T
    told = said(EVERY_SCENE).holds
    return F.normalize(torch.cat([told[name] for name in VALUES], dim=1) @ directions, dim=1)


def one_word_wrong(
    scene: clips.Scene, text: str, attribute: str, rng: random.Random
) -> tuple[clips.Scene, str]:
    """Another scene and its caption: the given one with the word for one attribute changed."""
    old = getattr(scene, attribute)
    new = other_value(attribute, old, rng)
    return replace(scene, **{attribute: new}), with_other_word(text, attribute, old, new, rng)


def with_strange_words(text: str, rng: random.Random) -> str:
    """At times unknown words before, after or in between, so that the model does not mind them."""
    words = text.split()
    if rng.random() < STRANGE:
        words.insert(rng.randint(0, len(words)), free_words(rng, rng.randint(1, 3)))
    return " ".join(words)


def embed_texts(module: nn.Module, tokenizer: PromptTokenizer, texts: Sequence[str]) -> Tensor:
    """Unit vectors [N, WIDTH], read at each text's end; what stands behind it changes nothing."""
    ids = [tokenizer(text)[0] for text in texts]
    last = torch.tensor([len(row) - 1 for row in ids])
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.end)
    states = module.text_model(input_ids=padded).last_hidden_state
    return F.normalize(module.text_projection(states[range(len(ids)), last]), dim=-1)


def clip_config(tokenizer: PromptTokenizer) -> transformers.CLIPConfig:
    return transformers.CLIPConfig.from_dict(config_file(tokenizer))


def config_file(tokenizer: PromptTokenizer) -> dict[str, object]:
    """config.json. The end token is the last of the vocabulary and not 2.

    Old and new versions of transformers then look for the end of a text in different ways and find
    the same place.
    """
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "torch_dtype": "float32",
        "projection_dim": WIDTH,
        "logit_scale_init_value": math.log(SHARPNESS),
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": tokenizer.tokenizer.get_vocab_size(),
            "max_position_embeddings": TEXT_LENGTH,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "projection_dim": WIDTH,
            "bos_token_id": tokenizer.start,
            "eos_token_id": tokenizer.end,
            "pad_token_id": tokenizer.end,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": clips.SIDE,
            "patch_size": 16,
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_attention_heads": 3,
            "num_hidden_layers": 4,
            "projection_dim": WIDTH,
        },
    }


def write_tokenizer(folder: Path) -> None:
    """vocab.json, merges.txt and their settings: byte pairs learned from captions, CLIP's way.

    All 256 bytes are in the vocabulary, alone and as the end of a word, so any prompt can be told.
    """
    rng = random.Random(SEED)
    scenes = [clips.sample_scene(clips.training_seed(i)) for i in range(CAPTIONS)]
    learner = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORD_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=5000,
        min_frequency=LEAST_COUNT,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator([clips.prompt(scene, rng) for scene in scenes], trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    pieces = [*dict.fromkeys(pieces), TEXT_START, TEXT_END]
    write_json(folder / "vocab.json", {piece: index for index, piece in enumerate(pieces)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": TEXT_START, "eos_token": TEXT_END}
    special |= {"unk_token": TEXT_END, "pad_token": TEXT_END}
    write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_LENGTH}
    write_json(folder / "tokenizer_config.json", settings | {"do_lower_case": True} | special)


def write_preprocessor(folder: Path) -> None:
    """preprocessor_config.json: 64 pixels, values from -1 to 1."""
    side = clips.SIDE
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_convert_rgb": True,
    }
    write_json(folder / "preprocessor_config.json", settings)


def write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _optimisers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for all else; the sharpness stays as it is."""
    model.logit_scale.requires_grad_(False)
    inner = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and ".layers." in name
    }
    rest = [w for name, w in model.named_parameters() if w.requires_grad and name not in inner]
    adam = torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0)
    for group in adam.param_groups:
        group["full_rate"] = plan.rate
    return [Muon(inner.values(), plan.matrix_rate), adam]


def train(folder: Path, vae: WanVAE, plan: Plan) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    tokenizer = PromptTokenizer.from_folder(folder, TEXT_LENGTH, "training.train_clip")
    torch.manual_seed(SEED)
    trainer = Trainer(tokenizer, vae, plan)
    began, losses = time.monotonic(), 0.0
    for number in range(plan.steps):
        losses += trainer.step(number)
        if (number + 1) % 50 == 0:
            seconds = time.monotonic() - began
            print(f"{seconds:6.0f} s  step {number + 1}: {losses / 50:.4f}", flush=True)
            losses = 0.0
    weights = {name: weight.contiguous() for name, weight in trainer.average.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config_file(tokenizer))
    write_preprocessor(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small gain little from a second thread
    vae = WanVAE.from_state_dict(read_tensors(ROOT / "tiny_model" / VAE_FILE))
    train(options.output, vae, Plan(steps=options.steps))
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
