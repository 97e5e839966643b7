"""Golden sets on disk: find them, read them, and hold our code against them, one check per kind.

Sizes, names and settings come from the files; nothing of one particular set is known here, except
the reward formulas of the shipped searches, which are checked where a set states exactly those.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import golden_vae
import torch
from safetensors.torch import load_file
from torch import Tensor

from stream_t1_core import denoise, noise
from stream_t1_core.backbone import BackboneShape, WanBackbone
from stream_t1_core.candidates import add_noise, plan
from stream_t1_core.causal_wan import CausalWan, Text
from stream_t1_core.compiled import Runner
from stream_t1_core.config import Memory, NoisePropagation, Schedule, Search, StreamConfig
from stream_t1_core.events import ChunkDone, RunDone
from stream_t1_core.finish import finish
from stream_t1_core.generate import Tools, run_chunk, stream
from stream_t1_core.kv import ChunkKV, Past
from stream_t1_core.recache import recache, recompute
from stream_t1_core.rewards.base import Clips
from stream_t1_core.scoring import Critic
from stream_t1_core.state import StreamState

ROUTES = {"discard": "drop", "ema": "blend", "append": "append", None: None}


@dataclass(frozen=True)
class GoldenSet:
    """One json of a golden folder."""

    folder: Path
    name: str
    spec: dict = field(repr=False)
    compile: dict | None = None  # torch.compile's options; None: it runs as it is

    @property
    def kind(self) -> str:
        return self.spec["kind"]

    @property
    def frames_per_chunk(self) -> int:
        return self.spec["num_frame_per_block"]

    def tensors(self, name: str | None = None) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name or self.name}.safetensors")

    def other(self, name: str) -> "GoldenSet":
        return GoldenSet(self.folder, name, json.loads((self.folder / f"{name}.json").read_text()))

    def model(self) -> CausalWan:
        model = load_model(self.other(self.spec["model"]))
        model.run = Runner(self.compile)
        return model

    def schedule(self) -> Schedule:
        spec = {**self.other(self.spec["model"]).spec, **self.spec, **self.spec.get("config", {})}
        steps = tuple(int(step) for step in spec["denoising_step_list"])
        return Schedule(steps, spec["timestep_shift"], float(spec.get("context_noise", 0)))

    def prompt(self, name: str) -> Tensor:
        return self.tensors(self.spec["prompt_file"])[name]


def find(folder: Path) -> list[GoldenSet]:
    """Every set below ``folder``: every json that states a ``kind``."""
    sets = []
    for path in sorted(folder.rglob("*.json")):
        spec = json.loads(path.read_text())
        if isinstance(spec, dict) and "kind" in spec:
            sets.append(GoldenSet(path.parent, path.stem, spec))
    return sets


def load_model(golden: GoldenSet) -> CausalWan:
    spec = golden.spec
    shape = BackboneShape(
        dim=spec["dim"],
        ffn_dim=spec["ffn_dim"],
        num_layers=spec["num_layers"],
        num_heads=spec["num_heads"],
        text_dim=spec["text_dim"],
        text_len=spec["text_len"],
        freq_dim=spec["freq_dim"],
        in_dim=spec["in_dim"],
        out_dim=spec["out_dim"],
        patch_size=tuple(spec["patch_size"]),
        eps=spec["eps"],
    )
    weights = golden.tensors(spec["weights"])
    assert BackboneShape.of(weights, spec["num_heads"]) == shape  # sizes can be read off the file
    return CausalWan(WanBackbone.from_state_dict(weights, shape))


def close(actual: Tensor, expected: Tensor, atol: float, what: str) -> None:
    assert actual.shape == expected.shape, f"{what}: {actual.shape} against {expected.shape}"
    error = (actual - expected).abs().max().item()
    assert error <= atol, f"{what}: off by {error:.2e}, allowed {atol:.0e}"


def channels_first(x: Tensor) -> Tensor:
    """Goldens' [..., F, C, H, W] -> our [..., C, F, H, W]; its own inverse."""
    return x.transpose(-4, -3)


# --- one check per kind ---------------------------------------------------------------------------


def check_model(golden: GoldenSet) -> None:
    model = load_model(golden).backbone
    assert sum(p.numel() for p in model.parameters()) == golden.spec["num_params"]


def check_inputs(golden: GoldenSet) -> None:
    """Noise and re-noise tensors; where the recipe is one seed per chunk, our own draws."""
    tensors = golden.tensors()
    eps, renoise = channels_first(tensors["noise"]), channels_first(tensors["renoise"])
    assert eps.shape[0] == renoise.shape[0] and eps.shape[1:] == renoise.shape[2:]
    for chunk in range(len(eps) if "seed_base" in golden.spec else 0):
        seed = golden.spec["seed_base"] + chunk
        draws = noise.draw(seed, 1 + renoise.shape[1], tuple(eps.shape[1:]))
        close(draws[0], eps[chunk], 1e-6, f"noise of chunk {chunk}")
        close(draws[1:], renoise[chunk], 1e-6, f"re-noise of chunk {chunk}")


def check_scheduler(golden: GoldenSet) -> None:
    spec, t = golden.spec, golden.tensors()
    schedule = Schedule(tuple(spec["denoising_step_list_in"]), spec["shift"])
    sigmas = denoise.shifted_sigmas(spec["shift"])
    close(sigmas, t["sigmas"], 1e-6, "sigmas")
    close(sigmas * spec["num_train_timesteps"], t["timesteps"], 1e-6, "timesteps")
    warped = denoise.warped_timesteps(schedule)
    close(warped, t["denoising_step_list"], 1e-6, "warped steps")
    step_sigmas = denoise.sigma_of(warped, spec["shift"])
    close(step_sigmas, torch.tensor(spec["step_sigmas"]), 1e-6, "step sigmas")
    sigma = denoise.sigma_of(t["sample_timesteps"], spec["shift"])
    close(sigma, t["sample_sigma"], 1e-6, "sigma of a timestep")
    sigma = sigma[:, None, None, None]
    close(denoise.add_noise(t["x0"], t["noise"], sigma), t["add_noise"], 1e-6, "noising")
    clean = denoise.clean_estimate(t["xt"], t["flow"], sigma)
    close(clean, t["flow_to_x0"], 1e-6, "clean estimate")


def check_single_forward(golden: GoldenSet) -> None:
    """Three calls from an empty cache, activations of every layer included."""
    model, expected = golden.model(), golden.tensors()
    seen = _watch(model.backbone)
    text = model.encode_text(golden.prompt(golden.spec.get("prompt", "prompt_a")))
    schedule = golden.schedule()
    stored: dict[int, ChunkKV] = {}
    calls = sorted(key for key in golden.spec if re.fullmatch(r"fwd\d+", key))
    for call in calls:
        spec = golden.spec[call]
        first_frame = spec["current_start_frame"]
        timesteps = torch.tensor(spec["timesteps"])
        x = channels_first(expected[f"{call}.x"])
        past = model.lay_out(
            [stored[frame] for frame in sorted(stored) if frame < first_frame], x.shape[-2:]
        )
        flow = model.flow(x, timesteps, first_frame, text, past)
        kv = stored[first_frame] = model.context_pass(x, timesteps, first_frame, text, past)
        sigma = denoise.sigma_of(timesteps, schedule.shift)[:, None, None]
        seen |= {
            "flow": channels_first(flow),
            "x0": channels_first(denoise.clean_estimate(x, flow, sigma)),
        }
        for layer, (keys, values) in enumerate(zip(kv.keys, kv.values, strict=True)):
            seen |= {f"cache_k.layer{layer}": keys, f"cache_v.layer{layer}": values}
        for name, tensor in expected.items():
            owner, _, what = name.partition(".")
            if owner == call and what != "x":
                atol = 2e-4 if what.startswith("cache") else 1e-4
                close(_sample(seen, what, tensor), tensor, atol, name)


def check_longlive_rollout(golden: GoldenSet) -> None:
    spec, expected = golden.spec, golden.tensors()
    model = golden.model()
    config = StreamConfig(
        latent_frames=spec["num_chunks"] * spec["num_frame_per_block"],
        frames_per_chunk=spec["num_frame_per_block"],
        seed=0,
        schedule=golden.schedule(),
        memory=Memory(spec["local_attn_size"], spec["sink_size"], spec["sink_size"], routing=False),
    )
    tools = recorded_tools(golden, model, Critic())
    cached: list[ChunkKV] = []
    before = StreamState()
    for state in stream(tools, config, latent_hw(golden)):
        beam, parent = state.beams[0], before.beams[0]
        new = [kv for kv in beam.kv if kv not in parent.kv]
        cached, before = [*parent.kv, *new], state
        chunk = beam.chunk.index
        close(channels_first(beam.chunk.latent), expected["output"][chunk], 1e-4, f"chunk {chunk}")
    past = model.lay_out(cached, latent_hw(golden))
    check_cache(past, expected, "final")


def check_longlive_prompt_switch(golden: GoldenSet) -> None:
    """Plain streaming whose context is recomputed under the next prompt at given frames."""
    spec, expected = golden.spec, golden.tensors()
    model, frames = golden.model(), spec["num_frame_per_block"]
    texts = [model.encode_text(golden.prompt(name)) for name in spec["prompts"]]
    switches = list(spec["switch_frame_indices"])
    inputs = golden.other(spec["inputs"])
    config = StreamConfig(
        latent_frames=inputs.spec["num_chunks"] * frames,
        frames_per_chunk=frames,
        seed=0,
        schedule=golden.schedule(),
        memory=Memory(spec["local_attn_size"], spec["sink_size"], spec["sink_size"], routing=False),
    )
    tools = recorded_tools(golden, model, Critic(), texts.pop(0))
    before = state = StreamState()
    for chunk in range(config.chunks):
        if switches and chunk * frames >= switches[0]:
            switches.pop(0)
            tools = replace(tools, text=texts.pop(0))
            (beam,) = state.beams
            switch = (model, tools.text, config, spec["global_sink"])
            cached = sum(recompute(beam, *switch), ())
            past = model.lay_out(cached, latent_hw(golden))
            check_cache(past, expected, "recached", f".frame{chunk * frames}")
            state = replace(state, beams=(recache(beam, *switch),))
        before = state
        state = run_chunk(state, tools, config, latent_hw(golden), lambda event: None)
        latent = channels_first(state.beams[0].chunk.latent)
        close(latent, expected["output"][chunk], 1e-4, f"chunk {chunk}")
    check_cache(whole_cache(before, state, model, golden), expected, "final")


def check_stream_t1_rollout(golden: GoldenSet) -> None:
    """Forced routes: replayed rewards lead our own gates to the recorded decisions."""
    spec, expected = golden.spec, golden.tensors()
    frames = spec["num_frame_per_block"]
    decisions = [spec["decisions"].get(str(n * frames), {}) for n in range(spec["num_chunks"])]
    shorts, longs = scores_leading_to(decisions)
    config = StreamConfig(
        latent_frames=spec["num_chunks"] * frames,
        frames_per_chunk=frames,
        seed=0,
        schedule=golden.schedule(),
        memory=Memory(
            spec["local_attn_size"], spec["sink_size"], spec["max_sink_size"], spec["ema_alpha"]
        ),
    )
    critic = Critic(LatentsAsFrames(), Replay("short", shorts), Replay("long", [*longs, 0.0]))
    tools = recorded_tools(golden, golden.model(), critic)
    in_use: tuple[ChunkKV, ...] = ()
    for state in stream(tools, config, latent_hw(golden)):
        beam = state.beams[0]
        chunk = beam.chunk.index
        sinks = in_use or beam.sinks  # what this chunk attended to; the first is its own sink
        in_use = beam.sinks
        latent = channels_first(beam.chunk.latent)
        close(latent, expected["output"][chunk], 1e-4, f"chunk {chunk}")
        recorded = spec["states"][chunk]
        assert len(sinks) * frames == recorded["current_sink_size"]
        fixed = spec["sink_size"] // frames
        assert [s.first_frame for s in sinks[fixed:]] == recorded["append_sink_start_frame"]
        check_sinks(sinks, expected, chunk)


def check_stream_t1_search(golden: GoldenSet) -> None:
    """A whole search on replayed rewards: every decision equal, every tensor close."""
    spec, settings, expected = golden.spec, golden.spec["config"], golden.tensors()
    model = golden.model()
    config = search_config(golden)
    recorded = spec["candidates"]
    formula = SHIPPED_REWARDS if spec.get("rewards") == SHIPPED_REWARDS_TEXT else (None, None)
    longs = [*(c["long"] for c in recorded), *spec["final"]["scores"]]
    critic = Critic(
        LatentsAsFrames(),
        Replay("short", [c["short"] for c in recorded], formula[0]),
        Replay("long", longs, formula[1]),
    )
    tools = Tools(model, model.encode_text(golden.prompt(spec["prompt"])), critic)
    reports: list[ChunkDone | RunDone] = []
    states = [StreamState()]
    states += stream(tools, config, latent_hw(golden), reports.append)
    final = finish(states[-1], tools, config, reports.append)

    chunks = [event for event in reports if isinstance(event, ChunkDone)]
    ours = [(event.chunk, i, c) for event in chunks for i, c in enumerate(event.candidates)]
    assert len(ours) == len(recorded)
    for (chunk, order, candidate), golden_candidate in zip(ours, recorded, strict=True):
        parent = states[chunk].beams[candidate.parent]
        where = f"chunk {chunk} candidate {order}"
        assert (chunk, order) == (golden_candidate["block"], golden_candidate["order"])
        assert candidate.parent == golden_candidate["parent"], where
        assert candidate.seed == golden_candidate["seed"], where
        assert candidate.route == ROUTES[golden_candidate["decision"]], where
        assert candidate.rank == golden_candidate["rank"], where
        assert abs(candidate.fused - golden_candidate["score"]) <= 5e-4, where
        sinks = parent.sinks or (None,) * (settings["sink_size"] // config.frames_per_chunk)
        assert len(sinks) * config.frames_per_chunk == golden_candidate["sink_size"], where
        fixed = settings["sink_size"] // config.frames_per_chunk
        appended = [sink.first_frame for sink in parent.sinks[fixed:]]
        assert appended == golden_candidate["append_frames"], where
    for event, survivors in zip(chunks, spec["survivors"], strict=True):
        ranked = [i for i, c in enumerate(event.candidates) if c.rank is not None]
        assert sorted(ranked, key=lambda i: event.candidates[i].rank) == survivors

    assert final.best_beam == spec["final"]["best_beam"]
    paths = [beam.chunk.path() for beam in states[-1].beams]
    assert [[c.seed for c in path] for path in paths] == spec["final"]["history_seeds"]
    routes = [[c.route.value if c.route else None for c in path] for path in paths]
    assert routes == [[ROUTES[d] for d in path] for path in spec["final"]["decisions"]]
    latents = torch.stack([torch.stack([channels_first(c.latent) for c in p]) for p in paths])
    close(latents, expected["final_latents"], 1e-4, "final latents")

    made = torch.stack(critic.decoder.seen[: len(recorded)])
    mixed = [
        channels_first(add_noise(c, tools, config, latent_hw(golden)).noise)
        for state in states[:-1]
        for c in plan(state, config)
    ]
    for name, ours_all, atol in (("latents", made, 1e-4), ("noise", torch.stack(mixed), 1e-6)):
        if f"candidate_{name}" in expected:
            close(ours_all, expected[f"candidate_{name}"], atol, f"candidate {name}")
        for key in expected:
            if match := re.fullmatch(rf"candidate_{name}_sub(\d+)", key):
                step = int(match[1])
                close(ours_all[..., ::step, ::step], expected[key], atol, key)


def check_wan_vae(golden: GoldenSet) -> None:
    golden_vae.check(golden.folder, golden.spec)


CHECKS: dict[str, Callable[[GoldenSet], None]] = {
    "model": check_model,
    "inputs": check_inputs,
    "scheduler": check_scheduler,
    "single_forward": check_single_forward,
    "longlive_rollout": check_longlive_rollout,
    "longlive_prompt_switch": check_longlive_prompt_switch,
    "stream_t1_rollout": check_stream_t1_rollout,
    "stream_t1_search": check_stream_t1_search,
    "wan_vae": check_wan_vae,
}


# --- what the checks share ------------------------------------------------------------------------


class LatentsAsFrames:
    """A decoder for searches that score latents: hands them on as "frames", frame first."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []  # every chunk decoded, [F, C, H, W], in order

    def decode(self, latents: Tensor, state: None) -> tuple[Tensor, None]:
        self.seen += channels_first(latents)
        return latents.permute(0, 2, 3, 4, 1), None  # (B, F, H, W, C)


class Replay:
    """A reward that gives recorded values in order, and can check a formula against them."""

    def __init__(
        self, name: str, values: list[float], formula: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.name = name
        self.values = list(values)
        self.formula = formula

    def __call__(self, clips: Clips) -> Tensor:
        batch = len(clips.frames)
        values = torch.tensor(self.values[:batch], dtype=torch.float64)
        del self.values[:batch]
        if self.formula is not None:
            computed = torch.stack([self.formula(clip.double()) for clip in clips.frames])
            close(computed, values, 5e-4, f"{self.name} by its formula")
        return values


def _short(x: Tensor) -> Tensor:
    half = x.shape[1] // 2  # x is [F, H, W, C]
    return 40 * (x[:, :half].mean() - x[:, half:].mean())


def _long(w: Tensor) -> Tensor:
    return 15 * (w[0] * w[-1]).mean() - 3 * (w[1:] - w[:-1]).abs().mean()


SHIPPED_REWARDS = (_short, _long)
SHIPPED_REWARDS_TEXT = {
    "short": "40*(mean(top half rows) - mean(bottom half rows)) of the chunk latents",
    "long": "15*mean(w[:,0]*w[:,-1]) - 3*mean(|w[:,1:]-w[:,:-1]|)",
    "final": "same as long, over all frames",
    "precision": "float64",
}


def search_config(golden: GoldenSet) -> StreamConfig:
    settings = golden.spec["config"]
    return StreamConfig(
        latent_frames=settings["num_output_frames"],
        frames_per_chunk=settings["num_frame_per_block"],
        seed=settings["seed"],
        schedule=golden.schedule(),
        noise=NoisePropagation(settings["noise_fusion_sigma"]),
        search=Search(
            beam_width=settings["top_k"],
            branch_factor=settings["beam_size"],
            span_chunks=settings["sliding_window_size"],
            tau=settings["short_score_fusion_threshold"],
        ),
        memory=Memory(
            settings["local_attn_size"],
            settings["sink_size"],
            settings["max_sink_size"],
            settings["ema_alpha"],
            settings["short_threshold"],
            settings["long_threshold"],
        ),
    )


def latent_hw(golden: GoldenSet) -> tuple[int, int]:
    return tuple(golden.other(golden.spec["model"]).spec["latent_hw"])


def recorded_tools(
    golden: GoldenSet, model: CausalWan, critic: Critic, text: Text | None = None
) -> Tools:
    """Tools that draw the recorded noise: with base seed 0 the seed of chunk n is 1000 n."""
    inputs = golden.tensors(golden.spec["inputs"])
    eps, renoise = channels_first(inputs["noise"]), channels_first(inputs["renoise"])

    def draw(seed: int, steps: int, shape: tuple[int, int, int, int]) -> Tensor:
        draws = torch.cat([eps[seed // 1000][None], renoise[seed // 1000]])
        assert draws.shape == (steps, *shape)
        return draws

    text = text or model.encode_text(golden.prompt(golden.spec["prompt"]))
    return Tools(model, text, critic, draw)


def scores_leading_to(decisions: list[dict[str, bool]]) -> tuple[list[float], list[float]]:
    """Short and long scores from which default gates decide as recorded, chunk by chunk."""
    shorts, longs = [0.0], [0.0]
    for decision in decisions[1:]:
        keep = decision.get("ema") or decision.get("append")
        shorts.append(sum(shorts) / len(shorts) + (1 if keep else -1))
        longs.append(longs[-1] - (1 if decision.get("append") else 0))
    return shorts, longs


def whole_cache(
    before: StreamState, after: StreamState, model: CausalWan, golden: GoldenSet
) -> Past:
    """The cache as the reference holds it after a chunk: nothing evicted for the next one yet."""
    parent, beam = before.beams[0], after.beams[0]
    own = [kv for kv in beam.kv if kv.first_frame == beam.chunk.index * golden.frames_per_chunk]
    return model.lay_out([*parent.kv, *own], latent_hw(golden))


def check_cache(past: Past, expected: dict[str, Tensor], prefix: str, mark: str = "") -> None:
    """Whole caches, rotated keys: ``PREFIX_k.layerLMARK`` or ``PREFIX_k.layerLMARK_strideN``."""
    pattern = rf"{prefix}_([kv])\.layer(\d+){re.escape(mark)}(?:_stride(\d+))?"
    for name, tensor in expected.items():
        if match := re.fullmatch(pattern, name):
            which, layer = "kv".index(match[1]), int(match[2])
            cached = torch.cat([chunk.layer(layer)[which][0] for chunk in past.chunks])
            cached = cached[:: int(match[3] or 1)]
            close(cached, tensor[: len(cached)], 2e-4, name)
            assert not tensor[len(cached) :].any(), f"{name}: slots in use that we do not have"
        else:
            assert not (name.startswith(f"{prefix}_") and mark in name), f"{name} is not checked"


def check_sinks(sinks: tuple[ChunkKV, ...], expected: dict[str, Tensor], chunk: int) -> None:
    """Sink region after a chunk, un-rotated keys, every 11th slot."""
    for name, tensor in expected.items():
        if match := re.fullmatch(r"sink_([kv])\.layer(\d+)\.chunk(\d+)(?:_stride(\d+))?", name):
            if int(match[3]) != chunk:
                continue
            layer, stride = int(match[2]), int(match[4] or 11)
            parts = [(s.keys if match[1] == "k" else s.values)[layer][0] for s in sinks]
            close(torch.cat(parts)[::stride], tensor, 2e-4, name)


def _watch(backbone: WanBackbone) -> dict[str, Tensor]:
    """Record activations of the last call under the goldens' names."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        return lambda module, args, output: seen.__setitem__(name, output)

    def keep_input(name: str) -> Callable:
        return lambda module, args: seen.__setitem__(name, args[0])

    backbone.patch_embedding.register_forward_hook(
        lambda module, args, output: seen.__setitem__(
            "patch_embedding", output.flatten(2).transpose(1, 2)
        )
    )
    backbone.text_embedding.register_forward_hook(keep("text_embedding"))
    backbone.time_embedding.register_forward_hook(keep("time_embedding"))
    backbone.time_projection.register_forward_hook(keep("time_projection"))
    backbone.head.head.register_forward_hook(keep("head"))
    after = [*(block.norm1 for block in backbone.blocks[1:]), backbone.head.norm]
    for i, block in enumerate(backbone.blocks):
        block.self_attn.o.register_forward_hook(keep(f"block{i}.self_attn"))
        block.cross_attn.o.register_forward_hook(keep(f"block{i}.cross_attn"))
        after[i].register_forward_pre_hook(keep_input(f"block{i}"))
    return seen


def _sample(seen: dict[str, Tensor], what: str, like: Tensor) -> Tensor:
    """The recorded part of an activation: some rows of the text, one frame of the head, ..."""
    if match := re.fullmatch(r"(text_embedding)_rows_(\d+)_(\d+)_step_(\d+)_and_(\d+)", what):
        first, end, step, last = (int(number) for number in match.groups()[1:])
        return seen[match[1]][:, [*range(first, end, step), last]]
    tensor = seen[what]
    if what == "head":  # its first frame
        return tensor[:, : like.shape[2]].unflatten(1, (1, -1))
    if what in ("time_embedding", "time_projection"):
        return tensor.reshape(like.shape)
    if what in ("flow", "x0"):
        return tensor
    return tensor[:, :: tensor.shape[1] // like.shape[1]]  # every n-th token
