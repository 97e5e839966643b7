"""The Tiny Model node gives the host the weights that the core loads."""

import torch
from boot import Pack


def check_the_node_drifts_as_the_core_does(pack: Pack) -> None:
    node, core = pack.module("nodes.loaders").StreamT1TinyModel, pack.module("stream_t1_core.tiny")
    folder = pack.module("nodes.host.tiny").FOLDER
    for inputs in ({}, {"drift": 0.1}):
        wanted = core.load_tiny(folder, **inputs).backbone.state_dict()
        found = node.execute(**inputs)[0].model.diffusion_model.state_dict()
        assert all(torch.equal(value, found[name].to(value)) for name, value in wanted.items())
