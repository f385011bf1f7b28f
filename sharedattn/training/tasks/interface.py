"""The interface of a task: its loss, its metrics, and the recipes that serve it.

Shape letters: B batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.recipe import Recipe
from sharedattn.tasks import CLASSIFY, QUALITIES


@dataclass(frozen=True, slots=True)
class Metrics:
    """The result of an evaluation.

    Attributes:
        quality: how good the network is, 0 to 1: `top1` of a classifier, `miou` of a segmenter,
            `map50` of a detector, `denoise_r2` of a generator.
        loss: mean loss over images.
        num_images: number of images evaluated.
        name: which of these `quality` is.
        further: other measures by name, such as a detector's `map`.
    """

    quality: float
    loss: float
    num_images: int
    name: str = QUALITIES[CLASSIFY]
    further: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, the quality by its name."""
        return {
            self.name: self.quality,
            "loss": self.loss,
            "num_images": self.num_images,
            **self.further,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Metrics:
        """Invert `to_json`."""
        [name] = set(QUALITIES.values()) & set(document)
        known = {name, "loss", "num_images"}
        return cls(
            document[name],
            document["loss"],
            document["num_images"],
            name,
            {other: value for other, value in document.items() if other not in known},
        )


class Example(NamedTuple):
    """What a network is given, and what it is to say.

    Attributes:
        inputs: the network's arguments before the placement, (B, ...) each.
        targets: (B, ...), as losses and metrics of the task take them.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor


class MetricAccumulator(ABC):
    """Accumulates the metrics of one network, batch by batch.

    Args:
        device: device of the outputs.
    """

    def __init__(self, device: torch.device) -> None:
        # Loss and images; float64 counts exactly far beyond any data set.
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: the network's outputs (B, ...), and targets (B, ...) of its task."""
        self._sums[0] += self._add(outputs, targets)
        self._sums[1] += len(targets)

    def metrics(self, what: str, rank: Rank = ALONE) -> Metrics:
        """Compute the metrics over all batches of all processes.

        Args:
            what: name of the split, for the error message.
            rank: rank of this process among those that share the batches.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        rank.sum_(self._sums)
        loss_sum, num_images = self._sums.tolist()
        loss = loss_sum / num_images
        if not math.isfinite(loss):
            raise FloatingPointError(f"the {what} loss is {loss}, not a finite number")
        return self._metrics(loss, int(num_images), rank)

    @abstractmethod
    def _add(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Count a batch, and return the sum of its images' losses, a scalar."""

    @abstractmethod
    def _metrics(self, loss: float, num_images: int, rank: Rank) -> Metrics:
        """The metrics over all processes, whose mean loss and number of images are given."""


class TaskTraining(ABC):
    """How networks of one task are trained and measured.

    Every loss is a mean over images, so that parts of a batch and shards of processes add up.

    Args:
        network: the network; also one without storage.

    Attributes:
        num_classes: number of classes.
        image_size: height and width of images.
        is_taught: whether a teacher's outputs can stand for targets.
    """

    is_taught = True

    def __init__(self, network: Network) -> None:
        self.num_classes = network.backbone.num_classes
        self.image_size = network.shape.image_size

    def training_example(self, images: Tensor, targets: Tensor) -> Example:
        """What to train on for a batch of data; may draw from torch's generator.

        Args:
            images: (B, C, Y, X).
            targets: (B, ...), as the data gives them.
        """
        return Example((images,), targets)

    def evaluation_example(self, images: Tensor, targets: Tensor) -> Example:
        """What to measure by for a batch of data, always the same; as `training_example`."""
        return Example((images,), targets)

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        """The loss on a batch, a scalar.

        Args:
            outputs: (B, ...), what the network says, float32 or float64.
            targets: (B, ...), those of `training_example`.
            recipe: gives label smoothing.
        """

    @abstractmethod
    def taught_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """The loss on a batch whose targets are a teacher's outputs, a scalar; if `is_taught`.

        Args:
            outputs: (B, ...), what the network says.
            teacher: the same shape, what the teacher says.
        """

    @abstractmethod
    def accumulator(self, device: torch.device) -> MetricAccumulator:
        """An empty accumulator of the task's metrics, for outputs on `device`."""

    @abstractmethod
    def random_targets(self, num_images: int, device: torch.device) -> Tensor:
        """Targets (B, ...) like the data's to time a step with; draws from torch's generator."""

    def check_recipe(self, recipe: Recipe) -> None:
        """Check that the recipe has nothing that the task does not serve.

        Augmentation is the data's to check.

        Raises:
            InputError: it has.
        """
        self.check_distillation(recipe.distillation)

    def check_distillation(self, share: float) -> None:
        """Check that a share of the loss can come from a teacher.

        Raises:
            InputError: it cannot.
        """
        if share and not self.is_taught:
            raise InputError(
                f"`distillation` of the recipe is {share:g}, but detectors are not taught by a "
                f"teacher's outputs here; set it to 0"
            )
