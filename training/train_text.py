"""The tiny text encoder: a tokenizer trained on captions, and rows laid out by meaning.

Nothing of the encoder is trained. Its rows are random but ordered: synonyms share a direction, and
words that say nothing about the clip are all alike. One small UMT5 layer adds to every row what the
whole prompt says, as large text encoders do: what a shape looks like depends on its colour and its
background, and a row that knows all three can say it at once. What the words do is learned by the
transformer's own text embedding.
"""

import io
import random
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from stream_t1_core.tiny import TEXT_FILE
from stream_t1_core.tiny_text import TOKENIZER_KEY, TextEncoder, TextShape

from . import clips

ROOT = Path(__file__).resolve().parent.parent
SEED = 1
CAPTIONS = 6000
VOCABULARY = 320
ROW_SCALE = 0.25  # root mean square of the rows, about that of the real UMT5-XXL
SENTENCE_SCALE = 3.0  # of what the whole prompt adds to a row; an even share of a word is small
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-"


def free_words(rng: random.Random, count: int) -> str:
    """Made-up words, so that the model learns not to mind words it does not know."""
    lengths = [rng.randint(2, 9) for _ in range(count)]
    return " ".join("".join(rng.choices(LETTERS[:26], k=length)) for length in lengths)


def caption(scene: clips.Scene, rng: random.Random) -> str:
    """A training caption: the clip's, at times with unknown words before, after or in between."""
    words = clips.prompt(scene, rng).split()
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 2)):
            words.insert(rng.randint(0, len(words)), free_words(rng, rng.randint(1, 2)))
    return " ".join(words)


def train_tokenizer() -> bytes:
    """A SentencePiece model that folds case and spells out what it does not know."""
    rng = random.Random(SEED)
    scenes = [clips.sample_scene(clips.training_seed(i)) for i in range(CAPTIONS)]
    lines = [clips.prompt(scene, rng) for scene in scenes]
    lines += [" ".join(LETTERS)] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",  # frequent words become whole pieces
        vocab_size=VOCABULARY,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def make_encoder(tokenizer: bytes) -> TextEncoder:
    """One layer: attention, even over all words, and a feed-forward part that adds little."""
    torch.manual_seed(SEED)
    shape = TextShape(4096, d_kv=16, d_ff=16, num_heads=1, num_layers=1, vocab_size=VOCABULARY)
    encoder = TextEncoder(shape).requires_grad_(False)
    for weight in encoder.parameters():
        if weight.ndim == 2:
            weight.normal_(std=0.25 / weight.shape[1] ** 0.5)
    encoder.encoder.final_layer_norm.weight.fill_(ROW_SCALE)
    meaning_rows = rows_of_meanings(shape.d_model)
    encoder.shared.weight.copy_(word_rows(tokenizer, meaning_rows))
    attention = encoder.encoder.block[0].layer[0].SelfAttention
    for part in (attention.q, attention.k, attention.relative_attention_bias):
        part.weight.zero_()
    codes = torch.randn(len(meaning_rows), shape.d_kv)
    seen = torch.stack(list(meaning_rows.values()))
    attention.v.weight.copy_(codes.T @ seen / seen.square().sum(1).mean())
    attention.o.weight.normal_(std=SENTENCE_SCALE)
    return encoder


def rows_of_meanings(width: int) -> dict[tuple[str, str], Tensor]:
    """A random row [width] for each (kind, meaning)."""
    names = sorted(set(meaning_of_words().values()))
    return dict(zip(names, torch.randn(len(names), width), strict=True))


def word_rows(tokenizer: bytes, meaning_rows: dict[tuple[str, str], Tensor]) -> Tensor:
    """A row for each piece [vocabulary, width]: its kind, its meaning, and a little of its own.

    Words of one meaning are near each other, meanings of one kind a little less so, and all words
    without a meaning here are much alike: the order that a large text encoder learns from text.
    """
    meanings = meaning_of_words()
    kinds = sorted({kind for kind, _ in meanings.values()})
    width = len(next(iter(meaning_rows.values())))
    kind_rows = dict(zip(kinds, torch.randn(len(kinds), width), strict=True))
    plain = torch.randn(width)
    own = torch.randn(VOCABULARY, width)
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
    rows = plain + 0.2 * own
    for index in range(processor.get_piece_size()):
        word = processor.id_to_piece(index).removeprefix("\u2581")
        if word in meanings and processor.id_to_piece(index) != word:
            meaning = meanings[word]
            rows[index] = kind_rows[meaning[0]] + 1.5 * meaning_rows[meaning] + 0.2 * own[index]
    return rows


def meaning_of_words() -> dict[str, tuple[str, str]]:
    """Kind and meaning of every word that says something; a diagonal is said by its two words."""
    ways = {way: words for way, words in clips.MOTION_WORDS.items() if " " not in way}
    tables = {
        "colour": clips.COLOUR_WORDS,
        "shape": clips.SHAPE_WORDS,
        "way": ways,
        "background": clips.BACKGROUND_WORDS,
        "size": clips.SIZE_WORDS,
        "pace": clips.PACE_WORDS,
    }
    silent = {"to", "the", "grey"}
    return {
        word: (kind, meaning)
        for kind, table in tables.items()
        for meaning, phrases in table.items()
        for word in " ".join(phrases).split()
        if word not in silent
    }


def main() -> None:
    path = ROOT / "tiny_model" / TEXT_FILE
    tokenizer = train_tokenizer()
    weights = make_encoder(tokenizer).state_dict()
    tensors = {key: value.to(torch.bfloat16).contiguous() for key, value in weights.items()}
    stored = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({**tensors, TOKENIZER_KEY: stored}, path)


if __name__ == "__main__":
    main()
