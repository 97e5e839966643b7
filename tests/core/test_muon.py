"""The optimiser's one idea: updates with all singular values near one."""

import torch

from training.muon import Muon, orthogonal


def test_updates_are_nearly_orthogonal():
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((24, 24), (48, 24), (24, 48)):
        values = torch.linalg.svdvals(
            orthogonal(torch.randn(3, rows, columns, generator=generator))
        )
        assert values.max() < 1.4
        assert values.median() > 0.6


def test_it_learns_a_linear_map():
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(8, 8, generator=generator)
    matrix = torch.nn.Parameter(torch.zeros(8, 8))
    optimiser = Muon([matrix], rate=0.05)
    for _ in range(200):
        loss = (matrix - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
