"""Count networks by the conventions of publications, to compare with their figures.

Our own convention is `sharedattn.costs.model.CONVENTION`, with the maps of less attention as they
run, factored. Publications count otherwise, often without saying how; each way that explains a
figure is an argument here.

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
    """Params and MACs of a network by a convention.

    Args:
        spec: the network.
        maps: how a less layer counts. `factored`: as it is run, maps on queries and keys and both
            token-token products. `paper`: as LaViT prints it (CVPR 2024, arXiv:2406.00427), Psi
            and Theta on the scores of every head, whatever the layer's form:

                params = n**2 + m**2
                macs = W * H*n*m*(n + m)

            and one product, the maps times the values, since the scores are not made anew.
            `free`: as `paper` without these two, which is what LaViT's figures amount to.
        attention_products: whether the token-token products of vanilla and less layers count; a
            counter that does not know the fused kernel leaves them out. External attention's
            stay: they are linear maps.
        norms: whether norms count.

    Returns:
        The cost; with the defaults, that of `CostModel`.

    Raises:
        InputError: a network that is not understood, or cannot be built.
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
    """What a less layer counts as printed, with or without its maps, less what it counts here."""
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
    """Token-token products that a layer counts."""
    if choice.branch is vanilla.VANILLA:
        return 2
    if choice.branch is less.LESS:
        return 2 if maps == "factored" else 1
    return 0


def _product_macs(stage: StageShape) -> int:
    """One token-token product over all heads: W n m D."""
    sizes = stage.attention
    return sizes.num_windows * sizes.num_queries * sizes.num_keys * stage.embed_dim
