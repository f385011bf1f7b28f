"""Classification: cross entropy, and the share of images classified correctly (`top1`).

Shape letters: B batch, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sharedattn.distributed import Rank
from sharedattn.recipe import Recipe
from sharedattn.training.tasks.interface import MetricAccumulator, Metrics, TaskTraining


class Classification(TaskTraining):
    """Outputs are logits (B, C); targets are labels (B,), or probabilities (B, C) if mixed."""

    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        # timm's Mixup already smooths mixed labels (B, classes).
        smoothing = recipe.label_smoothing if targets.ndim == 1 else 0.0
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def taught_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        return F.cross_entropy(outputs, teacher.to(outputs.dtype).softmax(dim=1))

    def accumulator(self, device: torch.device) -> MetricAccumulator:
        return Top1Accumulator(device)

    def random_targets(self, num_images: int, device: torch.device) -> Tensor:
        return torch.randint(self.num_classes, (num_images,), device=device)


class Top1Accumulator(MetricAccumulator):
    """Counts correct answers; logits (B, C), labels (B,), int64."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._correct = torch.zeros((), dtype=torch.float64, device=device)

    def _add(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self._correct += (outputs.argmax(dim=1) == targets).sum()
        return F.cross_entropy(outputs, targets, reduction="sum").double()

    def _metrics(self, loss: float, num_images: int, rank: Rank) -> Metrics:
        rank.sum_(self._correct)
        return Metrics(self._correct.item() / num_images, loss, num_images)
