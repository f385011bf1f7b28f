"""The DIA cell: by its equations, its gate's range and start, its published parameter counts."""

from __future__ import annotations

import pytest
import torch

from sharedattn.backbones import build
from sharedattn.errors import InputError
from sharedattn.mechanisms import dia
from sharedattn.mechanisms.dia import DIA_GATE, DIACell
from sharedattn.placement import MechanismOptions, NetworkSpec
from sharedattn.testing import check_mechanism
from sharedattn.testing.tiny_backbones import tiny_backbone
from sharedattn.training.trainer import initialise

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
    with pytest.raises(InputError, match="`dia_reduction` is 12, more than `embed_dim`, 11"):
        DIACell(D, 12)


def chain(cell: DIACell, num_blocks: int) -> list[torch.Tensor]:
    """The gates (B, D) of so many blocks, each with an input of its own."""
    gates, state = [], None
    for _ in range(num_blocks):
        state = cell(5 * torch.randn(B, D), state)
        gates.append(state[0])
    return gates


def test_the_start_at_one_is_exact_in_every_block_of_a_chain() -> None:
    cell = DIACell(D, REDUCTION, "one")
    for gate in chain(cell, 7):
        assert torch.equal(gate, torch.ones(B, D))
    # A recipe that draws all linear maps anew leaves the start as it is.
    initialise(cell, "torch")
    assert cell.input_net[0].weight.any() and not cell.input_net[2].weight.any()
    assert torch.equal(chain(cell, 2)[1], torch.ones(B, D))


def test_the_start_at_one_is_four_times_the_published_gate_of_a_block_alone() -> None:
    published, ours = DIACell(D, REDUCTION), DIACell(D, REDUCTION, "one")
    ours.load_state_dict(published.state_dict())
    s = torch.randn(B, D)
    torch.testing.assert_close(ours(s, None)[0], 4 * published(s, None)[0])
    assert torch.equal(ours(s, None)[1], published(s, None)[1])
    assert sum(p.numel() for p in ours.parameters()) == dia.params(D, REDUCTION)


def test_all_parameters_of_the_start_at_one_are_trained() -> None:
    """The zero maps move in the first step; what is before them, and the forget gate, after it."""
    cell = DIACell(D, REDUCTION, "one")
    for net in (cell.input_net, cell.hidden_net):
        torch.nn.init.constant_(net[0].bias, 9.0)  # no bottleneck whose ReLUs are all closed
    optimizer = torch.optim.SGD(cell.parameters(), lr=1e-3)
    forget = slice(D, 2 * D)
    for step in range(3):
        optimizer.zero_grad()
        sum((gate - 0.5).square().sum() for gate in chain(cell, 3)).backward()
        for net in (cell.input_net, cell.hidden_net):
            last = net[2].weight.grad
            assert last[:D].any() == last[forget].any() == net[0].weight.grad.any() == (step > 0)
            assert last[2 * D :].all()  # of the update and the output gate, from the first step on
        optimizer.step()


def test_a_network_with_units_that_start_at_one_is_the_network_without() -> None:
    backbone = "vit(depth=3,dia_start=one,embed_dim=14,num_heads=2,num_classes=3,patch_size=5)@15"
    gated, plain = (
        build(NetworkSpec.parse(f"{backbone}: V3{unit}")).eval() for unit in ("/dia2", "")
    )
    gated.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(2, 3, 15, 15)
    assert torch.equal(gated(images), plain(images))
    assert len(list(gated.dia_cells[0])) == 2


def test_two_calls_of_the_light_cell_by_its_equations() -> None:
    cell = DIACell(D, REDUCTION, form="light").double()
    state = None
    h = c = torch.zeros(B, D, dtype=torch.float64)
    for _ in range(2):
        s = torch.randn(B, D, dtype=torch.float64)
        net = cell.input_net
        hidden = ((s + h) @ net[0].weight.T + net[0].bias).clamp(min=0)
        i, f, u, o = (hidden @ net[2].weight.T + net[2].bias).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * u.tanh()
        h = o.sigmoid() * c.sigmoid()
        state = cell(s, state)
        torch.testing.assert_close(state[0], h)
        torch.testing.assert_close(state[1], c)


@pytest.mark.parametrize("start", ["paper", "one"])
def test_the_light_cell_has_half_of_the_parameters_and_products(start: str) -> None:
    cell = DIACell(D, REDUCTION, start, "light")  # type: ignore[arg-type]
    built = sum(p.numel() for p in cell.parameters())
    assert built == dia.params(D, REDUCTION, light=True) == 5 * D * 2 + 2 + 4 * D
    assert 2 * built == dia.params(D, REDUCTION)
    assert dia.macs(D, REDUCTION, light=True) == 5 * D * 2
    if start == "one":
        assert all(torch.equal(gate, torch.ones(B, D)) for gate in chain(cell, 3))


@pytest.mark.parametrize("family", ["vit", "resnet", "resnet_cifar"])
def test_the_light_cell_passes_the_contract(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sharedattn.testing.mechanisms.tiny_backbone", lambda n: tiny_backbone(n, "dia_form=light")
    )
    check_mechanism(DIA_GATE, backbones=(family,), num_placements=5)


def test_the_form_is_stored_only_if_it_is_changed() -> None:
    assert "dia_form" not in MechanismOptions().to_json()
    spec = NetworkSpec.parse("resnet20_cifar(dia_form=light,num_classes=10): V3/dia1 | V3 | V3")
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert str(spec) == "resnet20_cifar(dia_form=light,num_classes=10): V3/dia1 | V3 | V3"
