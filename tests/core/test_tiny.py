"""The shipped tiny model: its files load, fit together, and stay small."""

from pathlib import Path

import pytest
import torch

from stream_t1_core import tiny
from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import StreamConfig
from stream_t1_core.generate import Tools, generate
from stream_t1_core.scoring import Critic
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.taehv import TAEHVDecoder

FOLDER = Path(__file__).resolve().parents[2] / "tiny_model"
PROMPT = "a red circle moving left on a dark background"


@pytest.fixture(scope="module")
def model():
    return tiny.load_tiny(FOLDER)


def test_files_stay_under_twenty_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 20_000_000


def test_sizes_are_what_hosts_expect(model):
    """Hosts read the width off the file, but take 128 wide heads and 4096 wide text as given."""
    shape = model.backbone.shape
    assert shape.dim // shape.num_heads == 128
    assert (shape.text_dim, shape.text_len, shape.freq_dim) == (4096, 512, 256)
    assert (shape.in_dim, shape.out_dim, shape.patch_size) == (16, 16, (1, 2, 2))


def test_prompt_is_512_rows_and_zero_after_the_end_token(model):
    rows = model.encode_prompt(PROMPT)
    count = len(model.encode_prompt.tokens(PROMPT))
    assert rows.shape == (1, 512, 4096)
    assert rows[0, :count].abs().sum(1).min() > 0
    assert rows[0, count:].abs().max() == 0


def test_prompt_ends_with_the_end_token_however_long_it_is(model):
    tokens = model.encode_prompt.tokens("red circle " * 400)
    assert len(tokens) == 512
    assert tokens[-1] == 1
    assert model.encode_prompt.tokens("").tolist() == [1]


def test_case_and_unknown_words_are_tolerated(model):
    assert torch.equal(model.encode_prompt(PROMPT.upper()), model.encode_prompt(PROMPT))
    assert torch.isfinite(model.encode_prompt("Ein ñandú \u2603 (red:1.3)")).all()


def test_words_of_one_meaning_are_near_each_other(model):
    ball, circle, square = (
        model.encode_prompt.encoder.shared(model.encode_prompt.tokens(word))[0]
        for word in ("ball", "circle", "square")
    )
    assert torch.cosine_similarity(ball, circle, dim=0) > 0.9
    assert torch.cosine_similarity(ball, square, dim=0) < 0.5


def stream(model, seed):
    wan = CausalWan(model.backbone)
    text = wan.encode_text(model.encode_prompt(PROMPT))
    tools = Tools(wan, text, Critic(decoder=StreamingDecoder(model.vae)))
    with torch.inference_mode():
        return generate(tools, StreamConfig(latent_frames=6, seed=seed), (8, 8)).frames


def test_streams_the_same_frames_twice(model):
    first, second = (stream(model, seed=5) for _ in range(2))
    assert first.shape == (21, 64, 64, 3)
    assert torch.equal(first, second)


def test_drift_makes_videos_differ_with_the_seed(model):
    """And nothing but the last layer is another."""

    def apart(model):
        return (stream(model, seed=5) - stream(model, seed=6)).abs().mean()

    trained = tiny.load_tiny(FOLDER, drift=0.0)
    assert apart(model) > 1.5 * apart(trained)
    own, scaled = trained.backbone.state_dict(), model.backbone.state_dict()
    changed = {name for name in own if not torch.equal(own[name], scaled[name])}
    assert changed == {"head.head.weight", "head.head.bias"}


def test_the_scoring_decoder_is_small_and_near_the_vae(model):
    path = FOLDER / tiny.SCORING_FILE
    assert path.stat().st_size <= 500_000
    scorer = tiny.load_scorer(FOLDER)
    assert scorer.normalised
    still = model.vae.encode(torch.full((1, 3, 9, 64, 64), -0.4))
    ours, _ = TAEHVDecoder(scorer, normalised=True).decode(still, None)
    theirs, _ = StreamingDecoder(model.vae).decode(still, None)
    assert ours.shape == theirs.shape and (ours - theirs).abs().mean() < 0.02


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="wan_tiny.safetensors, wan_tiny_vae"):
        tiny.load_tiny(tmp_path)
