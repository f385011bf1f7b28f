"""Measure a network on images: means over images of named values.

A name is a tuple of a measure and the layers measured, numbered from 0 through the network.

Shape letters: B images, W windows of an image, H heads, N queries, M keys, D channels.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedattn.mechanisms.interface import SCORES, MapShape
from sharedattn.networks.measures import (
    PooledCorrelation,
    correlation,
    cosine,
    diagonality_by_image,
    row_entropy,
)
from sharedattn.networks.network import Network, RunResult
from sharedattn.placement import LayerChoice, MechanismOptions, Placement
from sharedattn.shape import BackboneShape, StageShape

MAX_MAP_BYTES = 2**28
"""Largest memory of one batch's attention maps, all layers together."""

Name = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a placement, with the sizes that measures need.

    Attributes:
        position: number in the network, from 0.
        stage: number of its stage, from 0.
        index: number in the stage, from 0.
        choice: the layer's choice.
        sizes: its stage's sizes.
        maps: sizes of its attention maps for one image, or None without maps.
        frame: layers of one stage and frame attend from the same queries to the same keys.
    """

    position: int
    stage: int
    index: int
    choice: LayerChoice
    sizes: StageShape
    maps: MapShape | None
    frame: int

    @property
    def label(self) -> str:
        """Stage and layer, counted from 1."""
        return f"{self.stage + 1}.{self.index + 1}"

    @property
    def has_scores(self) -> bool:
        """Whether its maps come from token-to-token scores, as in vanilla and less layers."""
        return self.maps is not None and SCORES in self.choice.branch.leaves

    @property
    def num_prefix_keys(self) -> int:
        """Number of prefix tokens among its keys."""
        if not self.has_scores:
            return 0
        rows, columns = self.sizes.attention.key_grid
        return self.sizes.attention.num_keys - rows * columns

    @property
    def is_square(self) -> bool:
        """Whether its maps have a diagonal."""
        sizes = self.sizes.attention
        return self.has_scores and sizes.num_queries == sizes.num_keys


Pair = tuple[Layer, Layer]


def layers_of(
    shape: BackboneShape, placement: Placement, options: MechanismOptions
) -> tuple[Layer, ...]:
    """The layers of a placement on a backbone.

    Args:
        shape: the backbone's sizes, with `score_groups` as for equal shift, whatever score reuse
            the placement allows, since they tell which layers attend within the same windows.
        placement: a placement that the backbone supports.
        options: options of the mechanisms.
    """
    positions = itertools.count()
    return tuple(
        Layer(
            position=next(positions),
            stage=i,
            index=j,
            choice=choice,
            sizes=stage,
            maps=choice.branch.map_shape(choice.options, stage, options)
            if choice.branch.has_branch(stage)
            else None,
            frame=stage.attention.score_group(j),
        )
        for i, (stage, choices) in enumerate(zip(shape.stages, placement.stages, strict=True))
        for j, choice in enumerate(choices)
    )


def comparable_pairs(layers: Sequence[Layer]) -> Iterator[Pair]:
    """Pairs of layers with scores over the same queries and keys."""
    with_scores = [layer for layer in layers if layer.has_scores]
    for one, other in itertools.combinations(with_scores, 2):
        if (one.stage, one.frame) == (other.stage, other.frame):
            yield one, other


def consecutive_pairs(layers: Sequence[Layer]) -> Iterator[Pair]:
    """Those of `comparable_pairs` with no comparable layer between them."""
    seen: set[int] = set()
    for one, other in comparable_pairs(layers):
        if one.position not in seen:
            seen.add(one.position)
            yield one, other


def gate_pairs(layers: Sequence[Layer]) -> Iterator[Pair]:
    """Pairs of gated layers of one stage, which have equal channels."""
    gated = [layer for layer in layers if layer.choice.gate is not None]
    for one, other in itertools.combinations(gated, 2):
        if one.stage == other.stage:
            yield one, other


def share_unit(one: Layer, other: Layer) -> bool:
    """Whether two gated layers of a stage share their gate's cell."""
    return one.choice.gate == other.choice.gate


def batch_size_for(layers: Sequence[Layer], most: int) -> int:
    """The batch size that `MAX_MAP_BYTES` allows in float32, at most `most`."""
    elements = sum(layer.maps.num_elements for layer in layers if layer.maps is not None)
    return max(1, min(most, MAX_MAP_BYTES // (4 * elements))) if elements else most


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over images.

    Attributes:
        value: the mean of the defined values, or None if none is defined.
        num_defined: number of defined values.
        num_undefined: number of NaN values, which the mean leaves out.
    """

    value: float | None
    num_defined: int
    num_undefined: int


class MeanAccumulator:
    """Accumulates means of values by name, batch by batch; NaN is left out and counted."""

    def __init__(self) -> None:
        """Start without values."""
        self._sum: dict[Name, float] = defaultdict(float)
        self._num_defined: dict[Name, int] = defaultdict(int)
        self._num_undefined: dict[Name, int] = defaultdict(int)

    def add(self, name: Name, values: Tensor) -> None:
        """Add a batch's values, of any shape."""
        is_defined = ~values.isnan()
        self._sum[name] += values[is_defined].sum().item()
        self._num_defined[name] += int(is_defined.sum())
        self._num_undefined[name] += int((~is_defined).sum())

    def means(self) -> dict[Name, Mean]:
        """The means of the values so far."""
        return {
            name: Mean(
                self._sum[name] / defined if defined else None, defined, self._num_undefined[name]
            )
            for name, defined in self._num_defined.items()
        }


@torch.inference_mode()
def measure(
    network: Network,
    layers: Sequence[Layer],
    placement: Placement,
    batches: Sequence[Tensor],
    *,
    gates_alone: bool = False,
) -> dict[Name, Mean]:
    """Compute every measure that applies to a placement on images.

    Args:
        network: network in eval mode whose envelope contains the placement.
        layers: the placement's layers.
        placement: the placement.
        batches: images (B, C, Y, X), on the network's device.
        gates_alone: whether to leave out the measures of attention, computing no maps.

    Returns:
        Means by name: for each layer with attention, `entropy` and, with prefix tokens,
        `entropy without prefix`; `cosine` and `correlation` of comparable pairs; `diagonality`
        of layers with square maps; `gates` and `gates pooled` of pairs of gated layers, with
        means over all pairs and those `of stage`, `of shared` and `of independent`.
    """
    collect = {"gates"} if gates_alone else {"gates", "attention"}
    tally, pooled = MeanAccumulator(), dict[int, PooledCorrelation]()
    for images_BCYX in batches:
        result = network.run(images_BCYX, placement, collect=collect)
        if result.attention is not None:
            _measure_attention(tally, layers, result.attention, len(images_BCYX))
        _measure_gates(tally, pooled, layers, result)
    means = tally.means()
    return means | _pooled_means(layers, pooled)


def _measure_attention(
    tally: MeanAccumulator,
    layers: Sequence[Layer],
    maps: Sequence[Tensor | None],
    num_images: int,
) -> None:
    mean_maps: dict[int, Tensor] = {}
    for layer, layer_maps in zip(layers, maps, strict=True):
        if layer_maps is None:
            continue
        maps_BWHNM = layer_maps.reshape(num_images, -1, *layer_maps.shape[1:])
        tally.add(("entropy", layer.position), row_entropy(maps_BWHNM))
        if layer.sizes.num_prefix_tokens:
            entropy_B = row_entropy(
                maps_BWHNM,
                num_prefix_queries=layer.sizes.num_prefix_tokens,
                num_prefix_keys=layer.num_prefix_keys,
            )
            tally.add(("entropy without prefix", layer.position), entropy_B)
        if layer.has_scores:
            # Average over heads, since head numbers do not correspond between vanilla layers.
            mean_maps[layer.position] = maps_BWHNM.mean(2).flatten(1)
        if layer.is_square:
            tally.add(("diagonality", layer.position), diagonality_by_image(maps_BWHNM))
    for one, other in comparable_pairs(layers):
        pair = (mean_maps[one.position], mean_maps[other.position])
        tally.add(("cosine", one.position, other.position), cosine(*pair))
        tally.add(("correlation", one.position, other.position), correlation(*pair))


def _measure_gates(
    tally: MeanAccumulator,
    pooled: dict[int, PooledCorrelation],
    layers: Sequence[Layer],
    result: RunResult,
) -> None:
    assert result.gates is not None
    values: dict[Pair, Tensor] = {}
    for one, other in gate_pairs(layers):
        gates = (result.gates[one.position], result.gates[other.position])
        assert gates[0] is not None and gates[1] is not None
        values[one, other] = correlation(gates[0], gates[1])
        tally.add(("gates", one.position, other.position), values[one, other])
    for group, pairs in _groups(values).items():
        # Average over pairs, then over images; an image without a defined pair gives NaN.
        mean_B = torch.stack([values[pair] for pair in pairs]).nanmean(0)
        tally.add(("gates mean", *group), mean_B)
    for stage in {one.stage for one, _ in values}:
        gates_of_stage = [
            gate
            for layer, gate in zip(layers, result.gates, strict=True)
            if layer.stage == stage and gate is not None
        ]
        pooled.setdefault(stage, PooledCorrelation()).add(torch.stack(gates_of_stage, dim=1))


def _groups(pairs: Iterable[Pair]) -> dict[Name, list[Pair]]:
    """Groups of gated pairs to average: all, by stage, and by sharing a cell."""
    groups: dict[Name, list[Pair]] = defaultdict(list)
    for one, other in pairs:
        sharing = "shared" if share_unit(one, other) else "independent"
        for group in ((), ("of stage", one.stage), (f"of {sharing}",)):
            groups[group].append((one, other))
    return groups


def _pooled_means(
    layers: Sequence[Layer], pooled: Mapping[int, PooledCorrelation]
) -> dict[Name, Mean]:
    values: dict[Pair, float] = {}
    for stage, of_stage in pooled.items():
        gated = [x for x in layers if x.stage == stage and x.choice.gate is not None]
        matrix = of_stage.result().tolist()
        for (i, one), (j, other) in itertools.combinations(enumerate(gated), 2):
            values[one, other] = matrix[i][j]
    tally = MeanAccumulator()
    for (one, other), value in values.items():
        tally.add(("gates pooled", one.position, other.position), torch.tensor(value))
    for group, pairs in _groups(values).items():
        of_pairs = torch.tensor([values[pair] for pair in pairs])
        tally.add(("gates pooled mean", *group), of_pairs.nanmean())
    return tally.means()
