"""Memories of external attention, fitted to the vanilla attention that they take the place of.

On calibration images a layer's keys k and the output y of its vanilla branch are taken from the
all-vanilla network. The external branch of that layer then begins as

    query  = the layer's own query map, whose bias the double norm ignores anyway
    M_k    = (c - mean(k)) / (H sqrt(K)), of the S centres c of a k-means of the keys, the best
             approximation of the keys by S vectors that k-means finds: a slot's logit is the mean
             over heads of the scores that its centre would get
    M_v    = argmin of sum_s || A_s M_v[:s] - (y - mean(y)) ||^2 + ridge, A_s being the maps over
             the first s slots
    proj   = the identity, with mean(y) as its bias

Slots are nested, so the centres stand in the order in which they lower the k-means error most, and
the sum runs over several numbers of slots s: one M_v serves them all. It is a linear least-squares
problem, solved exactly. Ours; the paper trains its memories from scratch.

What a fit cannot reach: external attention sees of the other tokens of an image only how much they
claim of each slot, so the part of y that depends on who else is there remains.

Shape letters: B batch, N tokens, M keys, D embed_dim, H heads, K head_dim, S slots, P points,
C channels, Y x X grid.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.external import ExternalAttention
from sharedattn.mechanisms.vanilla import ScoredAttention
from sharedattn.networks.block import Block
from sharedattn.networks.network import Network
from sharedattn.placement import Placement

RIDGE = 1e-3
"""Of the least-squares problem, as a share of the mean of its diagonal."""

MAX_POINTS = 2**14
"""The most keys that a k-means takes; of more it draws so many."""

KMEANS_ROUNDS = 10

MemoryErrors = dict[tuple[int, int], dict[int, float]]
"""By stage and index of a layer, and by slots: || external - vanilla || / || vanilla ||."""


@torch.no_grad()
def fit_memories(
    network: Network,
    images_BCYX: Tensor,
    *,
    slots: Collection[int] | None = None,
    seed: int = 0,
) -> None:
    """Fit every single-head external branch to its layer's vanilla branch, in place.

    Nothing else of the network changes; the multi-head form keeps its values.

    Args:
        network: one with trained weights whose envelope holds vanilla attention in every layer.
        images_BCYX: (B, C, Y, X), calibration images, run in one batch.
        slots: the numbers of slots that placements use; those beyond what a layer holds are passed
            over there. None: all that a layer holds, a half and a quarter of it.
        seed: of the k-means.

    Raises:
        InputError: no images or images of another size, a layer without vanilla attention, or no
            number of slots that a layer holds.
    """
    generator = torch.Generator().manual_seed(seed)
    with closing(_layers(network, images_BCYX)) as layers:
        for layer in layers:
            nested = _nested(layer, slots)
            _fit_keys(layer, generator)
            _fit_values(layer, nested)


@torch.no_grad()
def memory_errors(
    network: Network, images_BCYX: Tensor, *, slots: Collection[int] | None = None
) -> MemoryErrors:
    """How far external branches are from the vanilla branches of their layers, on images.

    Args:
        network: as `fit_memories`, as are the two that follow.
        images_BCYX: (B, C, Y, X).
        slots: numbers of slots.

    Returns:
        The relative errors, 1 being that of a branch that gives nothing; of layers with
        single-head external attention alone.

    Raises:
        InputError: as `fit_memories`.
    """
    errors: MemoryErrors = {}
    with closing(_layers(network, images_BCYX)) as layers:
        for layer in layers:
            norm = layer.vanilla_BND.norm()
            errors[layer.stage, layer.index] = {
                s: float((layer.external(layer.x_BND, s)[0] - layer.vanilla_BND).norm() / norm)
                for s in _nested(layer, slots)
            }
    return errors


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer with external attention as the all-vanilla network runs it.

    Attributes:
        stage: index of its stage.
        index: index in its stage.
        x_BND: what its attention branch takes, normed.
        vanilla_BND: what its vanilla branch gives.
        keys_PD: its keys of all images and windows, heads beside each other.
        attention: its vanilla attention.
        external: its external attention.
    """

    stage: int
    index: int
    x_BND: Tensor
    vanilla_BND: Tensor
    keys_PD: Tensor
    attention: ScoredAttention
    external: ExternalAttention


def _layers(network: Network, images_BCYX: Tensor) -> Generator[_Layer]:
    """The layers with single-head external attention, one after the other."""
    vanilla = Placement.all_vanilla([len(positions) for positions in network.envelope.stages])
    try:
        network.envelope.check(vanilla)
    except InputError as error:
        raise InputError(
            f"`memories are fitted where every layer can be vanilla` must hold, but {error}; fit "
            f"them in a network over an envelope with {str(vanilla)!r}"
        ) from error
    if not len(images_BCYX):
        raise InputError("`there are calibration images` must hold, but got none")
    training = network.training
    network.eval()
    try:
        tokens, state = network.begin(images_BCYX)
        for stage, choices in enumerate(vanilla.stages):
            for index, choice in enumerate(choices):
                block = network.block(stage, index)
                with _branch_of(block) as seen:
                    tokens, state = network.run_layer(stage, index, tokens, state, choice)
                external = getattr(block, "external", None)
                if isinstance(external, ExternalAttention):
                    group = network.shape.stages[stage].attention.score_group(index)
                    yield _Layer(
                        stage,
                        index,
                        x_BND=seen["x"],
                        vanilla_BND=seen["out"],
                        keys_PD=state.scores[group]
                        .k_BHMK.transpose(1, 2)
                        .flatten(2)
                        .flatten(0, 1),
                        attention=block.attn,
                        external=external,
                    )
    finally:
        network.train(training)


@contextmanager
def _branch_of(block: Block) -> Iterator[dict[str, Tensor]]:
    """What a block's attention branch takes, `x`, and gives, `out`, while the context is open."""
    seen: dict[str, Tensor] = {}

    def see_input(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen["x"] = output

    def see_output(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        [seen["out"]] = inputs

    handles = (
        block.norm1.register_forward_hook(see_input),
        block.ls1.register_forward_pre_hook(see_output),
    )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _nested(layer: _Layer, slots: Collection[int] | None) -> list[int]:
    """The numbers of slots that a layer is fitted for, largest first."""
    most = layer.external.memory_key.shape[0]
    asked = {most, most // 2, most // 4} - {0} if slots is None else set(slots)
    nested = sorted((s for s in asked if 0 < s <= most), reverse=True)
    if not nested:
        raise InputError(
            f"`slots holds a number that the layers hold` must hold, but got {sorted(asked)} and "
            f"layer {layer.index + 1} of stage {layer.stage + 1} holds 1 to {most}"
        )
    return nested


def _fit_keys(layer: _Layer, generator: torch.Generator) -> None:
    """The layer's own query, and centres of its keys as the key memory."""
    external, attention = layer.external, layer.attention
    D = external.query.in_features
    joint = attention.get_submodule("qkv" if hasattr(attention, "qkv") else "q")
    assert isinstance(joint, nn.Linear)
    external.query.weight.copy_(joint.weight[:D])
    centres_SD = nested_centres(layer.keys_PD, len(external.memory_key), generator)
    centred_SD = centres_SD - layer.keys_PD.mean(0)
    external.memory_key.copy_(centred_SD * attention.scale / attention.num_heads)


def _fit_values(layer: _Layer, nested: list[int]) -> None:
    """The least-squares value memory behind the key memory; output projection and its bias."""
    external = layer.external
    S, D = external.memory_value.shape
    y_PD = layer.vanilla_BND.flatten(0, -2).double()
    mean_D = y_PD.mean(0)
    gram_SS, moment_SD = y_PD.new_zeros(S, S), y_PD.new_zeros(S, D)
    for s in nested:
        maps_Ps = external(layer.x_BND, s)[1].flatten(0, -2).double()
        gram_SS[:s, :s] += maps_Ps.t() @ maps_Ps
        moment_SD[:s] += maps_Ps.t() @ (y_PD - mean_D)
    diagonal_S = gram_SS.diagonal()
    # Slots that no number asks for have no equation but the ridge: they stay at zero.
    diagonal_S += RIDGE * diagonal_S.mean()
    external.memory_value.copy_(torch.linalg.solve(gram_SS, moment_SD))
    nn.init.eye_(external.proj.weight)
    external.proj.bias.copy_(mean_D)


def nested_centres(points_PD: Tensor, num_centres: int, generator: torch.Generator) -> Tensor:
    """Centres of a k-means whose first ones are by themselves a good choice of so few.

    Args:
        points_PD: (P, D), at least one; of more than `MAX_POINTS` so many are drawn.
        num_centres: S.
        generator: on the CPU; draws the first guess.

    Returns:
        (S, D), in the order in which each lowers the sum of squared distances to the nearest
        centre before it most.
    """
    P = len(points_PD)
    if P > MAX_POINTS:
        drawn = torch.randperm(P, generator=generator)[:MAX_POINTS]
        points_PD = points_PD[drawn.to(points_PD.device)]
    centres_SD = _spread_points(points_PD, num_centres, generator)
    for _ in range(KMEANS_ROUNDS):
        nearest_P = torch.cdist(points_PD, centres_SD).argmin(1)
        sums_SD = torch.zeros_like(centres_SD).index_add_(0, nearest_P, points_PD)
        count_S = nearest_P.bincount(minlength=num_centres)
        # A centre that is nobody's nearest stays where it is.
        held = count_S > 0
        centres_SD[held] = sums_SD[held] / count_S[held].unsqueeze(1)
    distances_PS = torch.cdist(points_PD, centres_SD).square()
    least_P = torch.full_like(distances_PS[:, 0], torch.inf)
    order: list[int] = []
    for _ in range(num_centres):
        sums_S = torch.minimum(least_P.unsqueeze(1), distances_PS).sum(0)
        sums_S[order] = torch.inf
        order.append(int(sums_S.argmin()))
        least_P = torch.minimum(least_P, distances_PS[:, order[-1]])
    return centres_SD[order]


def _spread_points(points_PD: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """So many points, (S, D), each drawn by its squared distance from those before."""
    chosen = [int(torch.randint(len(points_PD), (), generator=generator))]
    least_P = torch.full_like(points_PD[:, 0], torch.inf)
    for _ in range(num - 1):
        latest_D = points_PD[chosen[-1]]
        least_P = torch.minimum(least_P, (points_PD - latest_D).square().sum(1))
        # Where every point is chosen, or equal to one that is, all are drawn alike.
        weights_P = least_P.cpu() if least_P.any() else torch.ones(len(least_P))
        chosen.append(int(torch.multinomial(weights_P, 1, generator=generator)))
    return points_PD[chosen]
