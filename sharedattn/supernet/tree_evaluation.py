"""Many placements of one network evaluated at once: what they share is computed once.

Batch by batch, the placements' tree is walked depth first. Where it branches, what a step gave is
kept until the last branch has begun. Each placement's logits come from the operations of its own
run on equal inputs, so that its metrics are those of evaluating it alone, bit for bit, at equal
batches and threads.

With a bound on the memory, what the next step gives is made room for before it is computed: what
is kept nearest to the root goes first, since it is needed last, and is computed again when it is
needed, from the nearest step above that is still kept, or from the images. A step needs what it
takes and what it gives, and everything else can go; so any bound that holds the largest such pair
is enough, and no walk computes more steps than evaluating one placement at a time does.

Sizes are known beforehand: the steps are run on tensors without storage. Counted are tokens,
queries and keys, biases of scores, h and c, each storage once, and whole storages where a part is
kept. The images of the batch, and what one layer needs while it is computed, come on top, as they
do for one placement.

Statistics of batch norms can be recalibrated for each prefix
(`sharedattn.supernet.prefix_statistics`): in a walk of each calibration batch, before those of the
images that are evaluated.

Shape letters: B batch, N tokens, D embed_dim, C channels, Y x X grid.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor, nn

from sharedattn.data import DataSource, Split
from sharedattn.errors import InputError
from sharedattn.networks.legality import check_placement
from sharedattn.networks.network import Network
from sharedattn.networks.state import Held, Key, StartedLayer, State
from sharedattn.placement import Placement
from sharedattn.recipe import Recipe
from sharedattn.supernet.placement_tree import Act, PlacementTree, Step
from sharedattn.supernet.prefix_statistics import PrefixStatistics
from sharedattn.training.trainer import MetricAccumulator, Metrics

Carried = tuple[Tensor, State] | StartedLayer
"""What a step gives: tokens and state, or a layer half done."""

_Give = Callable[[Step, Carried | Tensor], Carried]
_Finish = Callable[[Step, Tensor], None]


class TreeEvaluation:
    """Accuracy and loss of many placements of a network, by shared prefixes.

    Args:
        network: holds all placements.
        placements: those to evaluate; one that stands there twice is evaluated once.
        data: its split is evaluated on.
        split: which one.
        batch_size: images of a batch.
        device: where the network is.
        memory_bytes: the most that may be kept between steps; None: no bound.
        num_images: so many images, spread evenly over the split; None: all of them.
        calibration: batches of training images, without augmentation, on which statistics of batch
            norms are recalibrated for each prefix; None: the network's own.
        calibration_seed: of the choice of these images.

    Attributes:
        tree: the placements' tree.
        peak_bytes: the most that was kept so far.
        num_again: steps that were computed again so far, for want of memory.

    Raises:
        InputError: no placement, one that the network cannot run, a bound below `least_bytes`, or
            more calibration batches than the data has, or none.
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
        memory_bytes: int | None = None,
        num_images: int | None = None,
        calibration: int | None = None,
        calibration_seed: int = 0,
    ) -> None:
        self.tree = PlacementTree(placements)
        for placement in self.tree.placements:
            network.accepted(placement)
            check_placement(network.shape, network.backbone.options, placement)
        self._network = network
        self._data = data
        self._split: Split = split
        self._batch_size = batch_size
        self._device = torch.device(device)
        self._memory_bytes = memory_bytes
        self._num_images = num_images
        self._calibration = calibration
        self._calibration_seed = calibration_seed
        if calibration is not None:
            _check_calibration(data, calibration, batch_size)
        self._held = held_after_steps(network, self.tree)
        self._statistics_bytes = (
            0 if calibration is None else PrefixStatistics(network, self.tree).num_bytes
        )
        self.peak_bytes = self.num_again = 0
        if memory_bytes is not None and memory_bytes < self.least_bytes:
            raise InputError(
                f"`the memory holds one path` must hold, but got memory_bytes={memory_bytes:,} "
                f"where the largest layer takes and gives "
                f"{self._sizes.least_bytes:,} bytes at batch_size={batch_size}"
                + (
                    f" and the statistics of all prefixes {self._statistics_bytes:,}"
                    if self._statistics_bytes
                    else ""
                )
                + f"; give at least {self.least_bytes:,}, or lower the batch size"
            )

    @cached_property
    def _sizes(self) -> _Sizes:
        """What steps give and take; without a bound on the memory nobody needs to know."""
        is_calibrated = self._calibration is not None
        largest = self._batch_size if is_calibrated else min(self._batch_size, self._num_evaluated)
        return _Sizes(self._network, self.tree, self._held, largest)

    @property
    def _num_evaluated(self) -> int:
        total = self._data.num_images(self._split)
        return total if self._num_images is None else min(self._num_images, total)

    @property
    def least_bytes(self) -> int:
        """The least that `memory_bytes` can be.

        It is what the largest step takes and gives, and the statistics of all prefixes.
        """
        return self._sizes.least_bytes + self._statistics_bytes

    @torch.inference_mode()
    def run(self, on_batch: Callable[[float], None] | None = None) -> dict[Placement, Metrics]:
        """Evaluate all placements, in eval mode and float32.

        Args:
            on_batch: called after each batch with the share of the batches that is done.

        Returns:
            The metrics of each, in the order given.

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

        tallies = {p: MetricAccumulator(self._device) for p in self.tree.placements}
        batches = self._data.eval_batches(
            self._split,
            batch_size=self._batch_size,
            device=self._device,
            at_most=self._num_images,
        )
        for done, (images, labels) in enumerate(batches, num_calibrated + 1):

            def finish(step: Step, tokens: Tensor, labels: Tensor = labels) -> None:
                [placement] = step.placements
                tallies[placement].add(self._network.finish(tokens), labels)

            self._walk(images, give, finish)
            tell(done / num_batches)
        return {p: tally.metrics(f"{self._split} ({p})") for p, tally in tallies.items()}

    def _calibrated(self, num_batches: int, on_batch: Callable[[int], None]) -> PrefixStatistics:
        """Statistics of every prefix over `num_batches`; `on_batch` is told those done."""
        statistics = PrefixStatistics(self._network, self.tree)
        batches = self._data.train_batches(
            # A recipe that says nothing else has no augmentation.
            Recipe(epochs=1, batch_size=self._batch_size),
            seed=self._calibration_seed,
            epoch=0,
            device=self._device,
        )
        for number, (images, _) in enumerate(islice(batches, num_batches)):

            def give(step: Step, taken: Carried | Tensor, number: int = number) -> Carried:
                with statistics.counting(step, number):
                    return compute(self._network, step, taken, self._held)

            self._walk(images, give, lambda step, tokens: None)
            on_batch(number + 1)
        return statistics

    def _walk(self, images: Tensor, give: _Give, finish: _Finish) -> None:
        """One batch through the tree."""
        left = None if self._memory_bytes is None else self._memory_bytes - self._statistics_bytes
        new_bytes = {} if left is None else self._sizes.new_bytes
        walk = _Walk(self.tree.root, images, give, new_bytes, left)
        walk.run(finish)
        self.peak_bytes = max(self.peak_bytes, walk.peak_bytes + self._statistics_bytes)
        self.num_again += walk.num_again


def _ignore(share: float) -> None:
    """What is called where nobody watches."""


def _check_calibration(data: DataSource, num_batches: int, batch_size: int) -> None:
    most = data.num_images("train") // batch_size
    if not 1 <= num_batches <= most:
        raise InputError(
            f"`1 <= calibration batches <= batches of training images` must hold, but got "
            f"calibration={num_batches} where {data.name} has {most} of {batch_size} images"
        )


def compute(
    network: Network, step: Step, taken: Carried | Tensor, held: Mapping[int, Held]
) -> Carried:
    """What one step gives.

    Args:
        network: holds the step's placements.
        step: any but the last of a placement.
        taken: what the step before gave; images (B, C, Y, X) where it is the first.
        held: by the number of a layer's step, what of its state later steps take.
    """
    if isinstance(taken, Tensor):
        return network.begin(taken)
    if isinstance(taken, StartedLayer):
        assert step.choice is not None
        tokens, state = network.complete_layer(step.stage, step.index, taken, step.choice)
        return tokens, state.keeping(held[step.number])
    if step.act is Act.ENTER:
        return network.enter(step.stage, *taken)
    assert step.choice is not None
    started = network.start_layer(step.stage, step.index, *taken, step.choice)
    return replace(started, state=started.state.keeping(held[step.number]))


def held_after_steps(network: Network, tree: PlacementTree) -> dict[int, Held]:
    """By the number of a layer's step, what of its state some placement's later steps take."""
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


def _tensors(carried: Carried) -> Iterator[Tensor]:
    if isinstance(carried, StartedLayer):
        yield carried.tokens
        if carried.branch is not None:
            yield carried.branch
        if carried.passed_by is not None:
            yield carried.passed_by
        yield from carried.state.tensors()
    else:
        yield carried[0]
        yield from carried[1].tensors()


def _storages(carried: Carried) -> dict[int, int]:
    """Bytes of each storage, by what tells storages apart while they live."""
    storages = (tensor.untyped_storage() for tensor in _tensors(carried))
    return {storage._cdata: storage.nbytes() for storage in storages}


class _Sizes:
    """What each step of a tree adds to the memory, of batches of one size.

    Steps that take the same, in sizes and in what shares a storage, are run once, without storage.

    Attributes:
        new_bytes: by a step's number, the bytes that it gives and did not take.
        least_bytes: the most that a step takes and gives.
    """

    def __init__(
        self, network: Network, tree: PlacementTree, held: Mapping[int, Held], batch_size: int
    ) -> None:
        network = _without_storage(network).eval()
        size = network.shape.image_size
        like = next(network.parameters())
        images = like.new_empty(batch_size, network.backbone.in_chans, size, size)
        self.new_bytes: dict[int, int] = {}
        self.least_bytes = 0
        # What steps give, one of those alike, and its place there by what tells it apart.
        alike: list[Carried] = []
        places: dict[object, int] = {}
        seen: dict[object, tuple[int, int, int]] = {}
        waiting: list[tuple[Step, int | None]] = [(tree.root, None)]
        while waiting:
            step, taken = waiting.pop()
            if step.act is Act.FINISH:
                continue
            held_here = held.get(step.number)
            key = (taken, step.act, step.stage, step.index, step.choice, held_here)
            if key not in seen:
                with torch.no_grad():
                    given = compute(network, step, images if taken is None else alike[taken], held)
                before = {} if taken is None else _storages(alike[taken])
                new = sum(n for i, n in _storages(given).items() if i not in before)
                place = places.setdefault(_kind(given), len(places))
                alike += [given] if place == len(alike) else []
                seen[key] = place, new, new + sum(before.values())
            place, self.new_bytes[step.number], both = seen[key]
            self.least_bytes = max(self.least_bytes, both)
            waiting.extend((following, place) for following in step.next)


def _kind(carried: Carried) -> object:
    """What tells apart what steps give, for those that follow: sizes, and what is one storage."""
    state = carried.state if isinstance(carried, StartedLayer) else carried[1]
    place: dict[int, int] = {}
    tensors = tuple(
        (
            tuple(tensor.shape),
            tensor.stride(),
            place.setdefault(tensor.untyped_storage()._cdata, len(place)),
            tensor.untyped_storage().nbytes(),
        )
        for tensor in _tensors(carried)
    )
    return type(carried), tuple(state.values), state.residual is None, tensors


def _without_storage(network: Network) -> Network:
    """A copy of a network whose weights have sizes and no values; shares nothing with it."""
    without: dict[int, Tensor] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in network.parameters()
    }
    without |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    # What is in the memo is taken in place of a copy.
    return copy.deepcopy(network, without)


@dataclass(slots=True)
class _Branch:
    """A step on the path from the root, and how far its followers have been walked.

    Attributes:
        step: the step.
        given: what it gave, while it is kept.
        begun: how many of its followers have begun.
    """

    step: Step
    given: Carried | None = None
    begun: int = 0

    @property
    def is_done(self) -> bool:
        """Whether all followers have begun."""
        return self.begun == len(self.step.next)


class _Walk:
    """One batch through the tree, depth first, within a bound on what is kept.

    Args:
        root: the tree's first step.
        images: (B, C, Y, X).
        give: what a step gives, of what it takes.
        new_bytes: by a step's number, the most bytes that it gives and did not take; used where
            there is a bound.
        memory_bytes: the most that may be kept; None: no bound.

    Attributes:
        peak_bytes: the most that was kept.
        num_again: steps that were computed again.
    """

    def __init__(
        self,
        root: Step,
        images: Tensor,
        give: _Give,
        new_bytes: Mapping[int, int],
        memory_bytes: int | None,
    ) -> None:
        self._images = images
        self._compute = give
        self._new_bytes = new_bytes
        self._memory_bytes = memory_bytes
        self._path = [_Branch(root)]
        # Of each storage that is kept, how many branches keep it, and its bytes.
        self._kept: dict[int, tuple[int, int]] = {}
        self._kept_bytes = 0
        self.peak_bytes = self.num_again = 0

    def run(self, finish: _Finish) -> None:
        """Walk the tree; `finish` takes a placement's last step and the tokens before it."""
        path = self._path
        self._give(0)
        while path:
            branch = path[-1]
            if branch.is_done:
                path.pop()
                continue
            self._restore()
            following = branch.step.next[branch.begun]
            branch.begun += 1
            if following.act is Act.FINISH:
                assert isinstance(branch.given, tuple)
                finish(following, branch.given[0])
            else:
                path.append(_Branch(following))
                self._give(len(path) - 1)
            if branch.is_done:
                self._drop(branch)

    def _restore(self) -> None:
        """Compute again what the last step of the path gave, where it was dropped."""
        path = self._path
        kept = len(path) - 1
        while kept >= 0 and path[kept].given is None:
            kept -= 1
        for index in range(kept + 1, len(path)):
            self._give(index)
            self.num_again += 1
            if index > 0 and path[index - 1].is_done:
                self._drop(path[index - 1])

    def _give(self, index: int) -> None:
        """Compute what a step of the path gives, from what the one before it gave."""
        branch = self._path[index]
        if self._memory_bytes is not None:
            left = self._memory_bytes - self._new_bytes[branch.step.number]
            self._make_room(left, before=index - 1)
        taken = self._path[index - 1].given if index > 0 else self._images
        assert taken is not None
        branch.given = self._compute(branch.step, taken)
        for storage, num_bytes in _storages(branch.given).items():
            count, _ = self._kept.get(storage, (0, 0))
            self._kept[storage] = count + 1, num_bytes
            self._kept_bytes += 0 if count else num_bytes
        self.peak_bytes = max(self.peak_bytes, self._kept_bytes)

    def _make_room(self, left: int, *, before: int) -> None:
        """Drop what is kept, nearest to the root first, until it takes no more than `left`."""
        for branch in self._path[: max(before, 0)]:
            if self._kept_bytes <= left:
                return
            if branch.given is not None:
                self._drop(branch)

    def _drop(self, branch: _Branch) -> None:
        assert branch.given is not None
        for storage in _storages(branch.given):
            count, num_bytes = self._kept.pop(storage)
            if count > 1:
                self._kept[storage] = count - 1, num_bytes
            else:
                self._kept_bytes -= num_bytes
        branch.given = None
