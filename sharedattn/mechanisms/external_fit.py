"""Fit the memories of external attention to the vanilla attention that they replace.

Given a layer's keys k on calibration images and the output y of its vanilla branch, the layer's
external branch starts with

    query  = the layer's own query map, whose bias the double norm ignores anyway
    M_k    = (c - mean(k)) / (H sqrt(K)), for the S centres c of a k-means of the keys: a slot's
             logit is the mean over heads of the scores that its centre would get
    M_v    = argmin of sum_s || A_s M_v[:s] - (y - mean(y)) ||^2 + ridge, with A_s the maps over
             the first s slots
    proj   = the identity, with mean(y) as its bias

Slots are nested, so the centres are ordered by how much each lowers the k-means error, and the sum
runs over several numbers of slots s: one M_v serves them all. It is a linear least-squares
problem, solved exactly. This is ours; the paper trains its memories from scratch.

External attention sees of an image's other tokens only how much they claim of each slot, so the
part of y that depends on which tokens they are cannot be fitted.

Shape letters: B batch, N tokens, M keys, D embed_dim, H heads, K head_dim, S slots, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sharedattn.mechanisms.interface import VanillaExample

RIDGE = 1e-3
"""The ridge of the least-squares problem, relative to the mean of its diagonal."""

MAX_POINTS = 2**14
"""The most points of a k-means; from more points, this number is drawn."""

KMEANS_ROUNDS = 10


def fit_keys(external: nn.Module, example: VanillaExample, generator: torch.Generator) -> None:
    """Set the query to the layer's own, and the key memory to centres of the layer's keys.

    Args:
        external: a single-head external attention.
        example: example of its layer.
        generator: random generator on the CPU.
    """
    query, memory_key = external.get_submodule("query"), external.get_parameter("memory_key")
    attention = example.attention
    joint = attention.get_submodule("qkv" if hasattr(attention, "qkv") else "q")
    assert isinstance(joint, nn.Linear) and isinstance(query, nn.Linear)
    query.weight.copy_(joint.weight[: query.in_features])
    centres_SD = nested_centres(example.keys_PD, len(memory_key), generator)
    centred_SD = centres_SD - example.keys_PD.mean(0)
    memory_key.copy_(centred_SD * attention.scale / attention.num_heads)


def fit_values(external: nn.Module, example: VanillaExample, nested: Sequence[int]) -> None:
    """Set the value memory to the least-squares solution; also output projection and its bias.

    Args:
        external: a single-head external attention.
        example: example of its layer.
        nested: the numbers of slots to serve.
    """
    memory_value, proj = external.get_parameter("memory_value"), external.get_submodule("proj")
    assert isinstance(proj, nn.Linear)
    S, D = memory_value.shape
    y_PD = example.branch_BND.flatten(0, -2).double()
    mean_D = y_PD.mean(0)
    gram_SS, moment_SD = y_PD.new_zeros(S, S), y_PD.new_zeros(S, D)
    for s in nested:
        maps_Ps = external(example.x_BND, s)[1].flatten(0, -2).double()
        gram_SS[:s, :s] += maps_Ps.t() @ maps_Ps
        moment_SD[:s] += maps_Ps.t() @ (y_PD - mean_D)
    diagonal_S = gram_SS.diagonal()
    # Slots that no number uses have no equation but the ridge, and stay at zero.
    diagonal_S += RIDGE * diagonal_S.mean()
    memory_value.copy_(torch.linalg.solve(gram_SS, moment_SD))
    nn.init.eye_(proj.weight)
    proj.bias.copy_(mean_D)


def nested_centres(points_PD: Tensor, num_centres: int, generator: torch.Generator) -> Tensor:
    """Centres of a k-means, ordered so that the first ones are a good choice by themselves.

    Args:
        points_PD: (P, D), at least one; if there are more than `MAX_POINTS`, that many are drawn.
        num_centres: S.
        generator: on the CPU; draws the initial centres.

    Returns:
        (S, D), greedily ordered: each centre lowers the sum of squared distances to the nearest
        earlier centre the most.
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
        # A centre without points stays where it is.
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
    """Draw `num` points, (S, D), each weighted by its squared distance from those before."""
    chosen = [int(torch.randint(len(points_PD), (), generator=generator))]
    least_P = torch.full_like(points_PD[:, 0], torch.inf)
    for _ in range(num - 1):
        latest_D = points_PD[chosen[-1]]
        least_P = torch.minimum(least_P, (points_PD - latest_D).square().sum(1))
        # If every point equals a chosen one, all have the same weight.
        weights_P = least_P.cpu() if least_P.any() else torch.ones(len(least_P))
        chosen.append(int(torch.multinomial(weights_P, 1, generator=generator)))
    return points_PD[chosen]
