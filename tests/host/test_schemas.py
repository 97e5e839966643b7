"""What the host says of every node: ids, sockets, tooltips, steps, help pages."""

from __future__ import annotations

import urllib.request

import pytest

from devtools.server import PACK_NAME, PACK_ROOT, ComfyServer

SETTINGS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
IDS = {
    "StreamT1Aesthetic",
    "StreamT1AestheticQuality",
    "StreamT1BackgroundConsistency",
    "StreamT1Budget",
    "StreamT1ChunkBeamSampler",
    "StreamT1ClipScore",
    "StreamT1ColorDrift",
    "StreamT1Director",
    "StreamT1Doctor",
    "StreamT1DynamicDegree",
    "StreamT1Evaluate",
    "StreamT1Flicker",
    "StreamT1HPSv3",
    "StreamT1ImageReward",
    "StreamT1ImagingQuality",
    "StreamT1LongLiveLoader",
    "StreamT1MemorySink",
    "StreamT1MotionAmount",
    "StreamT1MotionSmoothness",
    "StreamT1NoisePropagation",
    "StreamT1PickScore",
    "StreamT1PromptAt",
    "StreamT1PromptTimeline",
    "StreamT1Reel",
    "StreamT1Refiner",
    "StreamT1ReportPlot",
    "StreamT1RewardMix",
    "StreamT1RewardPruner",
    "StreamT1SaveReport",
    "StreamT1Sharpness",
    "StreamT1StartFrom",
    "StreamT1SubjectConsistency",
    "StreamT1TemporalConsistency",
    "StreamT1TemporalFlickering",
    "StreamT1TinyModel",
    "StreamT1VideoAlign",
    "StreamT1VideoWriter",
}


@pytest.fixture(scope="session")
def ours(object_info: dict[str, dict]) -> dict[str, dict]:
    return {name: info for name, info in object_info.items() if name.startswith("StreamT1")}


def inputs_of(info: dict) -> dict[str, tuple[object, dict]]:
    """Name -> (type, options); a list of choices is COMBO."""
    found = {}
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            kind = "COMBO" if isinstance(kind, list) else kind
            found[name] = (kind, options[0] if options else {})
    return found


def test_every_node_is_there(ours: dict[str, dict]) -> None:
    assert ours.keys() == IDS
    for info in ours.values():
        assert info["category"].startswith("Stream-T1")
        assert info["description"]


def test_every_input_says_what_it_does(ours: dict[str, dict]) -> None:
    for name, info in ours.items():
        for key, (kind, options) in inputs_of(info).items():
            assert len(options.get("tooltip", "")) > 15, f"{name}.{key}"
            assert kind in SETTINGS or kind.isupper(), f"{name}.{key}"


def test_numbers_survive_the_editor(ours: dict[str, dict]) -> None:
    """It rounds a FLOAT to its step, and JavaScript mangles integers above 2^53."""
    for name, info in ours.items():
        for key, (kind, options) in inputs_of(info).items():
            if kind == "FLOAT":
                assert options["step"] <= 0.01, f"{name}.{key}"
                assert (
                    abs(
                        round(options["default"] / options["step"]) * options["step"]
                        - options["default"]
                    )
                    < 1e-9
                ), f"{name}.{key}"
            if kind == "INT":
                assert options["max"] <= 2**53 - 1, f"{name}.{key}"


def test_the_samplers_sockets(ours: dict[str, dict]) -> None:
    sampler = ours["StreamT1ChunkBeamSampler"]
    assert sampler["output"] == ["LATENT", "IMAGE", "STRING"]
    assert sampler["output_name"] == ["latent", "images", "report"]
    inputs = inputs_of(sampler)
    optional = sampler["input"]["optional"]
    units = {"noise", "pruner", "memory", "refiner", "budget", "start"}
    units |= {"reel", "director", "writer"}
    newer = {"positions", "kv_place"}  # workflows saved before they came stay valid
    assert set(optional) == units | newer | {"scoring_vae"}
    assert all(inputs[unit][0] == f"STREAM_T1_{unit.upper()}" for unit in units)
    assert inputs["scoring_vae"][0] == "VAE"
    assert inputs["seed"][1]["control_after_generate"] is True
    folded = {key for key, (_, options) in inputs.items() if options.get("advanced")}
    assert folded == {"steps", "shift", "frames_per_chunk", "isolated"} | newer


def test_every_node_has_a_help_page(server: ComfyServer, ours: dict[str, dict]) -> None:
    for name in ours:
        with urllib.request.urlopen(f"{server.url}/extensions/{PACK_NAME}/docs/{name}.md") as page:
            text = page.read().decode()
        assert text.startswith("# " + ours[name]["display_name"])
    pages = {path.stem for path in (PACK_ROOT / "web" / "docs").glob("*.md")}
    assert pages == ours.keys()


def test_help_pages_name_every_input(ours: dict[str, dict]) -> None:
    for name, info in ours.items():
        if name == "StreamT1RewardMix":
            continue  # four sockets of a kind, described as one
        text = (PACK_ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for key in inputs_of(info):
            assert key in text, f"{name}.{key}"
