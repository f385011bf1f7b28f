"""Costs of networks under the counting conventions of publications, for comparison.

Our own convention is `sharedattn.costs.model.CONVENTION`, with less attention's maps factored, as
they run. Publications count otherwise, often without saying how; each convention that explains a
published figure is an argument here.

Shape letters: n queries and m keys of a window, D embed_dim, H heads, W windows.
"""

from __future__ import annotations

from typing import Literal

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.mechanisms import less, vanilla
from sharedattn.mechanisms.interface import PartCost
from sharedattn.placement import LayerChoice, NetworkSpec
from sharedattn.shape import StageShape

Maps = Literal["free", "factored", "paper"]


def counted(
    spec: NetworkSpec,
    *,
    maps: Maps = "factored",
    attention_products: bool = True,
    norms: bool = True,
) -> PartCost:
    """Params and MACs of a network under a convention.

    Args:
        spec: the network.
        maps: how to count a less layer. `factored`: as it runs, with maps on queries and keys and
            both token-token products. `paper`: as LaViT prints it (CVPR 2024,
            arXiv:2406.00427), with Psi and Theta on every head's scores, whatever the form:

                params = n**2 + m**2
                macs = W * H*n*m*(n + m)

            and one product, maps times values, since the scores are reused. `free`: as `paper`
            without these two terms, which reproduces LaViT's figures.
        attention_products: whether to count the token-token products of vanilla and less layers,
            which counters unaware of the fused kernel leave out. External attention's always
            count: they are linear maps.
        norms: whether to count norms.

    Returns:
        The cost; with the defaults, that of `CostModel`.

    Raises:
        InputError: the network is not supported, or cannot be built.
    """
    spec = resolve(spec)
    model = CostModel(spec.backbone)
    cost = model.cost(spec.placement)
    total = PartCost(cost.params, cost.macs if norms else cost.matmul_macs)
    for i, choices in enumerate(spec.placement.stages):
        for choice in choices:
            if choice.branch is less.LESS and maps != "factored":
                total += _instead_of_factored(model, i, choice, maps)
            if not attention_products:
                products = _num_products(choice, maps) * _product_macs(model.shape.stages[i])
                total += PartCost(0, -products)
    return total


def _instead_of_factored(model: CostModel, i: int, choice: LayerChoice, maps: Maps) -> PartCost:
    """A less layer's cost as printed, with or without maps, minus its factored cost."""
    stage = model.shape.stages[i]
    sizes = stage.attention
    n, m, W = sizes.num_queries, sizes.num_keys, sizes.num_windows
    D, H = stage.embed_dim, stage.num_heads
    own = less.paper_form_macs(n, D, H, num_keys=m, num_windows=W)
    as_run = model.attention(i, choice).macs - sizes.context_macs
    change = PartCost(-less.map_params(less.form_of(choice.options, sizes), n, m), own - as_run)
    if maps == "paper":
        return change + PartCost(less.map_params("full", n, m), 0)
    return change + PartCost(0, -less.paper_map_macs(n, m, H, num_windows=W))


def _num_products(choice: LayerChoice, maps: Maps) -> int:
    """Number of token-token products that a layer counts."""
    if choice.branch is vanilla.VANILLA:
        return 2
    if choice.branch is less.LESS:
        return 2 if maps == "factored" else 1
    return 0


def _product_macs(stage: StageShape) -> int:
    """MACs of one token-token product over all heads: W n m D."""
    sizes = stage.attention
    return sizes.num_windows * sizes.num_queries * sizes.num_keys * stage.embed_dim
