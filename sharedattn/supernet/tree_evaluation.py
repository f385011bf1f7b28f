"""Evaluate many placements of one network at once, computing shared parts once.

For each batch, the placements' tree is walked depth first. At a branching, the result of a step is
kept until the last branch has begun. Each placement's logits come from the same operations on
equal inputs as if it were evaluated alone, so its metrics are equal bit for bit, at equal batches
and threads.

Batch-norm statistics can be recalibrated for each prefix
(`sharedattn.supernet.prefix_statistics`), by walking calibration batches before the images to
evaluate.
Shape letters: B batch, N tokens, D embed_dim, C channels, Y x X grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from sharedattn.data import DataSource, Split
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.networks.state import Held, Key, StartedLayer, State
from sharedattn.placement import Placement
from sharedattn.recipe import Recipe
from sharedattn.supernet.placement_tree import Act, PlacementTree, Step
from sharedattn.supernet.prefix_statistics import PrefixStatistics
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.tasks.registry import task_training

Carried = tuple[Tensor, State] | StartedLayer
"""The result of a step: tokens and state, or a layer half done."""

_Give = Callable[[Step, Carried | Tensor], Carried]
_Finish = Callable[[Step, Tensor, State], None]


class TreeEvaluation:
    """Accuracy and loss of many placements of a network, by shared prefixes.

    Args:
        network: contains all placements.
        placements: the placements to evaluate; duplicates are evaluated once.
        data: the data.
        split: the split to evaluate on.
        batch_size: number of images per batch.
        device: device of the network.
        num_images: number of images, spread evenly over the split, or None for all of them.
        calibration: number of batches of training images, without augmentation, on which
            batch-norm statistics are recalibrated for each prefix; defaults to the network's own
            statistics.
        calibration_seed: seed of the choice of these images.

    Attributes:
        tree: the placements' tree.

    Raises:
        InputError: no placement, one that the network cannot run, or a number of calibration
            batches that is 0 or more than the data has.
    """

    def __init__(
        self,
        network: Network,
        placements: Iterable[Placement],
        data: DataSource,
        split: Split,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        num_images: int | None = None,
        calibration: int | None = None,
        calibration_seed: int = 0,
    ) -> None:
        self.tree = PlacementTree(placements)
        for placement in self.tree.placements:
            network.accepted(placement)
        self._network = network
        self._data = data
        self._split: Split = split
        self._batch_size = batch_size
        self._device = torch.device(device)
        self._num_images = num_images
        self._calibration = calibration
        self._calibration_seed = calibration_seed
        if calibration is not None:
            _check_calibration(data, calibration, batch_size)
        self._held = held_after_steps(network, self.tree)

    @property
    def _num_evaluated(self) -> int:
        total = self._data.num_images(self._split)
        return total if self._num_images is None else min(self._num_images, total)

    @torch.inference_mode()
    def run(self, on_batch: Callable[[float], None] | None = None) -> dict[Placement, Metrics]:
        """Evaluate all placements, in eval mode and float32.

        Args:
            on_batch: called after each batch with the share of batches done.

        Returns:
            The metrics of each placement, in the given order.

        Raises:
            FloatingPointError: the logits of a placement are not finite.
        """
        self._network.eval()
        tell = on_batch or _ignore
        num_calibrated = self._calibration or 0
        num_batches = num_calibrated + math.ceil(self._num_evaluated / self._batch_size)
        statistics = (
            None
            if self._calibration is None
            else self._calibrated(self._calibration, lambda done: tell(done / num_batches))
        )

        def give(step: Step, taken: Carried | Tensor) -> Carried:
            with nullcontext() if statistics is None else statistics.using(step):
                return compute(self._network, step, taken, self._held)

        task = task_training(self._network)
        tallies = {p: task.accumulator(self._device) for p in self.tree.placements}
        batches = self._data.eval_batches(
            self._split,
            batch_size=self._batch_size,
            device=self._device,
            at_most=self._num_images,
        )
        for done, (images, labels) in enumerate(batches, num_calibrated + 1):

            def finish(step: Step, tokens: Tensor, state: State, labels: Tensor = labels) -> None:
                [placement] = step.placements
                with nullcontext() if statistics is None else statistics.using(step):
                    logits = self._network.finish(tokens, state)
                tallies[placement].add(logits, labels)

            _walk(self.tree.root, images, give, finish)
            tell(done / num_batches)
        return {p: tally.metrics(f"{self._split} ({p})") for p, tally in tallies.items()}

    def _calibrated(self, num_batches: int, on_batch: Callable[[int], None]) -> PrefixStatistics:
        """Statistics of every prefix over `num_batches`; `on_batch` gets the number done."""
        statistics = PrefixStatistics(self._network, self.tree)
        batches = self._data.train_batches(
            # By default a recipe has no augmentation.
            Recipe(epochs=1, batch_size=self._batch_size),
            seed=self._calibration_seed,
            epoch=0,
            device=self._device,
        )
        for number, (images, _) in enumerate(islice(batches, num_batches)):

            def give(step: Step, taken: Carried | Tensor, number: int = number) -> Carried:
                with statistics.counting(step, number):
                    return compute(self._network, step, taken, self._held)

            def finish(step: Step, tokens: Tensor, state: State, number: int = number) -> None:
                with statistics.counting(step, number):
                    if self._network.finishing():
                        self._network.finish(tokens, state)

            _walk(self.tree.root, images, give, finish)
            on_batch(number + 1)
        return statistics


def _ignore(share: float) -> None:
    """Do nothing; the default of `on_batch`."""


def _check_calibration(data: DataSource, num_batches: int, batch_size: int) -> None:
    most = data.num_images("train") // batch_size
    if not 1 <= num_batches <= most:
        raise InputError(
            f"`calibration`={num_batches} is not from 1 to {most}, the number of batches of "
            f"{batch_size} training images that {data.name} has; change it"
        )


def compute(
    network: Network, step: Step, taken: Carried | Tensor, held: Mapping[int, Held]
) -> Carried:
    """Compute one step.

    Args:
        network: contains the step's placements.
        step: any but the last of a placement.
        taken: result of the previous step; images (B, C, Y, X) for the first step.
        held: by the number of a layer's step, the part of its state that later steps read.
    """
    if isinstance(taken, Tensor):
        return network.begin(taken)
    if isinstance(taken, StartedLayer):
        assert step.choice is not None
        tokens, state = network.layer(step.stage, step.index).complete(taken, step.choice)
        return tokens, state.keeping(held[step.number])
    if step.act is Act.ENTER:
        return network.enter(step.stage, *taken)
    assert step.choice is not None
    started = network.layer(step.stage, step.index).start(*taken, step.choice)
    return replace(started, state=started.state.keeping(held[step.number]))


def held_after_steps(network: Network, tree: PlacementTree) -> dict[int, Held]:
    """By the number of a layer's step, the part of its state that a later step reads."""
    held: dict[int, Held] = {}
    for step in reversed(list(tree.depth_first())):
        if step.act is Act.COMPLETE:
            held[step.number] = Held()
            for choices in {placement.stages[step.stage] for placement in step.placements}:
                held[step.number] |= network.held_after(step.stage, choices, step.index)
        elif step.act is Act.START:
            held[step.number] = Held()
            for completed in step.next:
                assert completed.choice is not None
                gate = completed.choice.gate
                cells = frozenset[Key]() if gate is None else frozenset[Key]({gate})
                held[step.number] |= held[completed.number] | Held(cells)
    return held


@dataclass(slots=True)
class _Branch:
    """A step on the path from the root, and the progress of its successors.

    Attributes:
        step: the step.
        given: its result, until its last successor has begun.
        begun: number of its successors that have begun.
    """

    step: Step
    given: Carried | None
    begun: int = 0

    @property
    def is_done(self) -> bool:
        """Whether all successors have begun."""
        return self.begun == len(self.step.next)


def _walk(root: Step, images: Tensor, give: _Give, finish: _Finish) -> None:
    """Run one batch through the tree, depth first.

    Args:
        root: the tree's first step.
        images: (B, C, Y, X).
        give: computes a step's result from the previous one.
        finish: takes a placement's last step, and the tokens and state before it.
    """
    path = [_Branch(root, give(root, images))]
    while path:
        branch = path[-1]
        if branch.is_done:
            path.pop()
            continue
        assert branch.given is not None
        following = branch.step.next[branch.begun]
        branch.begun += 1
        if following.act is Act.FINISH:
            assert isinstance(branch.given, tuple)
            finish(following, *branch.given)
        else:
            path.append(_Branch(following, give(following, branch.given)))
        if branch.is_done:
            branch.given = None
