"""The DIA cell: by its equations, its gate's range, its published parameter counts."""

from __future__ import annotations

import pytest
import torch

from sharedattn.attention import dia
from sharedattn.attention.dia import DIACell
from sharedattn.errors import InputError

B, D, REDUCTION = 3, 11, 4


def test_two_calls_by_the_equations() -> None:
    cell = DIACell(D, REDUCTION).double()
    state = None
    h = c = torch.zeros(B, D, dtype=torch.float64)
    for _ in range(2):
        s = torch.randn(B, D, dtype=torch.float64)
        sums = 0
        for net, x in ((cell.input_net, s), (cell.hidden_net, h)):
            hidden = (x @ net[0].weight.T + net[0].bias).clamp(min=0)
            sums = sums + hidden @ net[2].weight.T + net[2].bias
        i, f, u, o = sums[:, :D], sums[:, D : 2 * D], sums[:, 2 * D : 3 * D], sums[:, 3 * D :]
        c = f.sigmoid() * c + i.sigmoid() * u.tanh()
        h = o.sigmoid() * c.sigmoid()
        state = cell(s, state)
        torch.testing.assert_close(state[0], h)
        torch.testing.assert_close(state[1], c)


def test_without_last_weights_the_gate_is_a_quarter() -> None:
    cell = DIACell(D, REDUCTION)
    for net in (cell.input_net, cell.hidden_net):
        torch.nn.init.zeros_(net[2].weight)
        torch.nn.init.zeros_(net[2].bias)
    state = None
    for _ in range(3):
        state = cell(torch.randn(B, D), state)
        assert torch.equal(state[0], torch.full((B, D), 0.25))


def test_a_new_gate_is_near_a_quarter_and_inside_the_unit_interval() -> None:
    state = None
    cell = DIACell(64, REDUCTION)
    for _ in range(12):
        state = cell(torch.randn(B, 64), state)
        assert 0 < state[0].min() and state[0].max() < 1
        assert state[0].mean().item() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    ("widths", "reduction", "params"),
    [
        ((16, 32, 64), 4, 14_392),  # ResNet-20 on CIFAR
        ((64, 128, 256), 4, 218_848),  # ResNet-164
        ((64, 128, 256), 32, 30_492),
        ((256, 512, 1024, 2048), 20, 2_801_020),  # ResNet-50 on ImageNet
        ((256, 512, 1024, 2048), 4, 13_959_040),
    ],
)
def test_published_params(widths: tuple[int, ...], reduction: int, params: int) -> None:
    assert sum(dia.params(width, reduction) for width in widths) == params


def test_params_and_macs_of_a_built_cell() -> None:
    cell = DIACell(D, REDUCTION)
    assert sum(p.numel() for p in cell.parameters()) == dia.params(D, REDUCTION)
    weights = [p for p in cell.parameters() if p.ndim == 2]
    assert sum(w.numel() for w in weights) == dia.macs(D, REDUCTION) == 10 * D * (D // REDUCTION)


def test_a_bottleneck_has_channels() -> None:
    with pytest.raises(InputError, match="dia_reduction <= embed_dim.*=12, embed_dim=11"):
        DIACell(D, 12)
