"""The Doctor: what it finds, what it misses and where, its exit code, and memory by arithmetic."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stream_t1_core import doctor, footprint
from stream_t1_core.config import Memory, Search, StreamConfig
from stream_t1_core.doctor import ABSENT, OK, WRONG, Plan, main, places_below
from stream_t1_core.rewards import aesthetic, aesthetic_quality, amt, hpsv3, musiq, raft
from stream_t1_core.rewards.catalogue import (
    LONGLIVE,
    REWARDS,
    REWARDS_FOLDER,
    KnownReward,
    known_reward,
)
from stream_t1_core.rewards.upstream_text import HPSV3_TEXT, VIDEOALIGN_TEXT
from stream_t1_core.streaming_vae import walk_decoder
from stream_t1_core.taehv import TAEHVConfig
from stream_t1_core.wan_vae import WanVAE, WanVAEConfig

HW = (60, 104)  # 480 x 832 pixels
each_reward = pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.id)


def install(reward: KnownReward, models: Path) -> dict[str, Path]:
    """Empty files where a reward wants them; path by the table's name."""
    made = {}
    for file in reward.files:
        name = file.names[0]
        made[name] = models / REWARDS_FOLDER / reward.folder / name.replace("*", "1")
        made[name].parent.mkdir(parents=True, exist_ok=True)
        made[name].touch()
    return made


def report(models: Path, capsys: pytest.CaptureFixture, *more: str) -> tuple[int, str]:
    code = main(["--models", str(models), *more])
    return code, capsys.readouterr().out


def line_of(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line[6:].startswith(f"{name}:")]
    return line


def test_what_ships_works_and_nothing_else_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, text = report(tmp_path, capsys)
    assert code == 0
    assert "what ships with the pack works" in text.splitlines()[0]
    assert "9 frames made, decoded and scored" in text
    for reward in REWARDS:
        assert line_of(text, reward.name).startswith("  --  ")
        assert all(file.comfyui_has_it or file.source in text for file in reward.files)
    for known in LONGLIVE:
        assert line_of(text, known.what).startswith("  --  ") and known.source in text
        assert f"looked in {tmp_path / known.kind}" in text
    assert f"torch {torch.__version__}" in text and "cpu: " in text


def test_a_missing_tiny_model_is_told_with_its_place_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PACK", tmp_path / "pack" / "in" / "custom_nodes")
    code, text = report(tmp_path, capsys)
    assert code == 1
    assert "what ships with the pack DOES NOT WORK" in text.splitlines()[0]
    assert f"looked at {doctor.PACK / 'tiny_model' / 'wan_tiny.safetensors'}" in text
    assert "tiny model: no video: FileNotFoundError" in text


@each_reward
def test_a_complete_reward_is_found_and_each_missing_file_is_named(
    reward: KnownReward, tmp_path: Path
) -> None:
    roots = places_below([tmp_path])[REWARDS_FOLDER]
    for other in reward.also:
        install(known_reward(other), tmp_path)
    made = install(reward, tmp_path)
    found = doctor.look_for_reward(reward, roots)
    assert (found.state, found.details) == (OK, ())
    assert str(tmp_path / REWARDS_FOLDER / reward.folder) in found.text
    for file in reward.files:
        path = made[file.names[0]]
        others = [p for p in made.values() if p != path]
        path.unlink()
        found = doctor.look_for_reward(reward, roots)
        if file.comfyui_has_it:
            assert found.state == OK
        elif others:
            assert found.state == WRONG
            (detail,) = found.details
            assert detail.startswith(str(tmp_path / REWARDS_FOLDER / reward.folder))
            assert detail.endswith(f"{file.names[0]}  from {file.source}")
        path.touch()


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        ("videoalign", VIDEOALIGN_TEXT.name),
        ("hpsv3", HPSV3_TEXT.name),
        ("hpsv3", hpsv3.WEIGHTS_FILES[0]),
        ("aesthetic", aesthetic.HEAD),
        ("aesthetic_quality", aesthetic_quality.WEIGHTS),
        ("dynamic_degree", raft.WEIGHTS),
        ("imaging_quality", musiq.WEIGHTS),
        ("motion_smoothness", amt.WEIGHTS),
    ],
)
def test_the_table_and_the_loaders_speak_of_the_same_files(reward: str, name: str) -> None:
    assert name in [file.names[0] for file in known_reward(reward).files]


def test_a_tokenizer_may_come_as_vocabulary_and_merges(tmp_path: Path) -> None:
    clip = known_reward("clip_score")
    tokenizer = install(clip, tmp_path)["tokenizer.json"]
    tokenizer.unlink()
    tokenizer.with_name("vocab.json").touch()
    roots = places_below([tmp_path])[REWARDS_FOLDER]
    assert doctor.look_for_reward(clip, roots).state == WRONG
    tokenizer.with_name("merges.txt").touch()
    assert doctor.look_for_reward(clip, roots).state == OK


def test_aesthetic_needs_clip_too(tmp_path: Path) -> None:
    install(known_reward("aesthetic"), tmp_path)
    roots = places_below([tmp_path])[REWARDS_FOLDER]
    found = doctor.look_for_reward(known_reward("aesthetic"), roots)
    assert (found.state, found.details) == (WRONG, ("all that CLIPScore needs",))


def test_the_first_folder_that_has_a_reward_counts(tmp_path: Path) -> None:
    """As the loaders do: an incomplete one hides a complete one behind it."""
    dino = known_reward("dino")
    (tmp_path / "a" / REWARDS_FOLDER / dino.folder).mkdir(parents=True)
    install(dino, tmp_path / "b")
    roots = [tmp_path / "a" / REWARDS_FOLDER, tmp_path / "b" / REWARDS_FOLDER]
    assert doctor.look_for_reward(dino, roots).state == WRONG
    assert doctor.look_for_reward(dino, roots[::-1]).state == OK


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("diffusion_models", "longlive_base.pt"),
        ("unet", "wan/LongLive-1.3B/longlive_base.safetensors"),
        ("loras", "lora.pt"),
        ("loras", "LongLive_lora_rank256.safetensors"),
        ("clip", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
        ("text_encoders", "umt5-xxl-enc-bf16.safetensors"),
        ("vae", "wan_2.1_vae.safetensors"),
        ("vae", "Wan2_1_VAE_bf16.safetensors"),
        ("vae", "Wan2.1_VAE.pth"),
    ],
)
def test_longlives_files_are_known_by_the_names_they_go_by(
    kind: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / kind / name
    path.parent.mkdir(parents=True)
    path.touch()
    places = places_below([tmp_path])
    found = [known for known in LONGLIVE if known.find(places[known.kind])]
    assert len(found) == 1 and found[0].find(places[found[0].kind]) == path


def test_a_linked_folder_of_models_is_looked_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / "wan"
    elsewhere.mkdir(parents=True)
    (elsewhere / "longlive_base.pt").touch()
    (tmp_path / "diffusion_models").mkdir()
    (tmp_path / "diffusion_models" / "link").symlink_to(elsewhere, target_is_directory=True)
    found = LONGLIVE[0].find(places_below([tmp_path])["diffusion_models"])
    assert found == tmp_path / "diffusion_models" / "link" / "longlive_base.pt"


def test_without_a_folder_to_look_in_the_report_says_so(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_models_around", list)
    assert main([]) == 0
    assert capsys.readouterr().out.count(doctor.NO_FOLDER) == 1 + len(LONGLIVE)


def test_packages_missing_or_old_come_with_the_command() -> None:
    assert doctor.check_package("torch", (2, 0)).state == OK
    old = doctor.check_package("torch", (99, 0))
    assert old.state == WRONG and old.text.endswith("99.0 or newer is needed: pip install -U torch")
    missing = doctor.check_package("no-such-package", (1, 0))
    assert missing.state == WRONG and missing.text.endswith("pip install no-such-package")


def test_an_old_transformers_is_told_with_the_rewards_that_need_more() -> None:
    assert doctor.check_transformers("4.45.2").state == OK
    for version in ("4.37.2", None):
        found = doctor.check_transformers(version)
        assert found.state == ABSENT
        assert "HPSv3" in found.text and "ImageReward" not in found.text
        assert found.details == ('4.45 or newer is needed: pip install -U "transformers>=4.45"',)


@pytest.mark.parametrize(
    ("version", "enough"),
    [("4.45.0", True), ("5.23.0", True), ("4.44.2", False), ("3.99", False), ("4.45.0.dev0", True)],
)
def test_versions_are_compared_by_number(version: str, enough: bool) -> None:
    assert doctor.at_least(version, (4, 45)) == enough


def test_the_users_name_is_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home" / "ada")
    _, text = report(tmp_path / "home" / "ada" / "models", capsys)
    assert "ada" not in text
    assert str(Path("~") / "models" / "stream_t1") in text


def test_memory_of_longlive_is_what_its_sizes_say() -> None:
    config = StreamConfig(search=Search(2, 2), memory=Memory())
    parts = footprint.footprint(footprint.LONGLIVE, config, HW)
    frame = 2 * 1560 * 1536 * 30 * 2  # 1560 tokens a latent frame, 30 layers, bfloat16
    window, sinks = 12, 12  # latent frames; 15 of sinks, of which the window holds 3
    assert parts["model"] == 2 * 1_418_996_800
    assert parts["keys and values of the window"] == frame * (3 * window + 4 * 3)
    assert parts["keys and values of all sinks that may be appended"] == frame * 3 * sinks
    state = footprint.decoder_state_bytes(footprint.LONGLIVE.vae, HW, 2)
    assert state == pytest.approx(1.9e9, rel=0.01)
    assert parts["decoder's memory of paths and candidates"] == 6 * state
    assert parts["frames of candidates"] == 2 * 4 * 12 * 832 * 480 * 3 * 4  # float32


def test_memory_grows_with_settings_and_not_with_length() -> None:
    def total(config: StreamConfig) -> int:
        return sum(footprint.footprint(footprint.LONGLIVE, config, HW).values())

    plain = StreamConfig()
    searched = replace(plain, search=Search(2, 2))
    remembering = replace(searched, memory=Memory())
    assert total(plain) < total(searched) < total(remembering)
    assert total(replace(searched, isolated=True)) < total(searched)
    assert total(replace(plain, latent_frames=210)) == total(plain)


def test_decoder_state_is_as_large_as_a_real_one() -> None:
    config = WanVAEConfig(dim=8)
    with torch.inference_mode():
        _, state = walk_decoder(WanVAE(config), torch.zeros(1, 16, 1, 4, 6), None)
    assert footprint.decoder_state_bytes(config, (4, 6), 4) == state.nbytes
    tiny = footprint.decoder_state_bytes(TAEHVConfig(), HW, 2)  # of LongLive's videos: 1.9 GB
    assert tiny == 2 * 3 * (256 + 4 * 128 + 16 * 64) * HW[0] * HW[1]


def test_the_report_tells_memory_for_the_chosen_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = "--width 64 --height 64 --beam-width 1 --branch-factor 3 --reward hpsv3".split()
    _, text = report(tmp_path, capsys, *options)
    assert "Memory for LongLive at 64 x 64 pixels" in text
    assert "beam width 1, branch factor 3, window 12 latent frames, up to 15 of sinks" in text
    assert "14.44 GiB  reward HPSv3" in text


@pytest.mark.parametrize("size", [(0, 480), (832, 470), (-16, 480)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        Plan(StreamConfig(), *size)
