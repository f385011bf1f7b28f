"""Batch-norm statistics for each prefix of placements, recalibrated under shared weights.

Shared weights see different tokens in every placement, so the running statistics of their batch
norms mix all of them. The input of a batch norm depends on the earlier layers alone, so the
statistics of a prefix serve all placements that begin with it. They are computed once per node of
the tree, as the mean over batches of what a norm in training mode finds in each, and are given to
the norms while that node is computed. The network's own statistics are neither read nor changed,
except those of a norm that several layers share (in a gate's unit, by the option `bn=shared`),
which no prefix has for itself: they are used as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sharedattn.networks.batch_norms import Statistics, in_place_of, statistics_of
from sharedattn.networks.network import Network
from sharedattn.supernet.placement_tree import Act, PlacementTree, Step


class PrefixStatistics:
    """Statistics of each step that has batch norms.

    A layer's batch norms belong to its two halves, those after the last layer to the head, all
    others to the stem.

    Args:
        network: contains the placements.
        tree: the placements' tree.
    """

    def __init__(self, network: Network, tree: PlacementTree) -> None:
        self._of_steps: dict[tuple[Act, int, int], Statistics] = {}
        for step in tree.depth_first():
            position = step.act, step.stage, step.index
            if step.act in (Act.START, Act.COMPLETE) and position not in self._of_steps:
                self._of_steps[position] = _of_half(network, *position)
        in_blocks = {
            norm
            for stage, positions in enumerate(network.envelope.stages)
            for index in range(len(positions))
            for norm, _, _ in statistics_of(network.block(stage, index))
        }
        self._of_head = [own for part in network.finishing() for own in statistics_of(part)]
        shared = {norm for part in network.shared() for norm, _, _ in statistics_of(part)}
        elsewhere = in_blocks | shared | {norm for norm, _, _ in self._of_head}
        self._of_stem = [own for own in statistics_of(network) if own[0] not in elsewhere]
        self._counted: dict[int, list[Tensor]] = {}
        self._last_batch: dict[int, int] = {}

    @contextmanager
    def counting(self, step: Step, batch: int) -> Iterator[None]:
        """Put batch norms in training mode, and accumulate the step's statistics.

        Args:
            step: the step being computed.
            batch: number of the batch; a repeated batch is not counted again.
        """
        own = self._own(step)
        kept = self._counted.get(step.number)
        if kept is None:
            kept = self._counted[step.number] = [_fresh(name, buffer) for _, name, buffer in own]
        elif self._last_batch[step.number] == batch:
            kept = [buffer.clone() for buffer in kept]
        self._last_batch[step.number] = batch
        norms = {norm: (norm.training, norm.momentum) for norm, _, _ in own}
        with in_place_of(own, kept):
            for norm in norms:
                # Without a momentum, all batches have equal weight.
                norm.training, norm.momentum = True, None
            try:
                yield
            finally:
                for norm, (training, momentum) in norms.items():
                    norm.training, norm.momentum = training, momentum

    @contextmanager
    def using(self, step: Step) -> Iterator[None]:
        """Give batch norms the step's accumulated statistics."""
        with in_place_of(self._own(step), self._counted[step.number]):
            yield

    def _own(self, step: Step) -> Statistics:
        if step.act is Act.BEGIN:
            return self._of_stem
        if step.act is Act.FINISH:
            return self._of_head
        return self._of_steps.get((step.act, step.stage, step.index), [])


def _of_half(network: Network, act: Act, stage: int, index: int) -> Statistics:
    """The statistics that starting or completing a layer uses."""
    block = network.block(stage, index)
    last = [own for part in block.completing() for own in statistics_of(part)]
    if act is Act.COMPLETE:
        return last
    norms = {norm for norm, _, _ in last}
    return [own for own in statistics_of(block) if own[0] not in norms]


def _fresh(name: str, buffer: Tensor) -> Tensor:
    """Initial statistics, which do not affect the mean over batches."""
    return torch.ones_like(buffer) if name == "running_var" else torch.zeros_like(buffer)
