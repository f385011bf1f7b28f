"""Semantic segmentation: cross entropy of pixels, and the mean intersection over union (`miou`).

Logits are resized to the mask, bilinear, before anything is computed of them. Pixels whose label
is `IGNORED` count nowhere.

Shape letters: B batch, K classes, Y x X pixels of the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sharedattn.data.labels import IGNORED
from sharedattn.distributed import Rank
from sharedattn.heads.interface import resized
from sharedattn.recipe import Recipe
from sharedattn.tasks import QUALITIES
from sharedattn.training.tasks.interface import MetricAccumulator, Metrics, TaskTraining


class Segmentation(TaskTraining):
    """Outputs are logits (B, K, y, x) on any grid; targets are masks (B, Y, X), whole numbers."""

    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        return _pixel_loss(outputs, targets, recipe.label_smoothing) / targets.numel()

    def taught_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        return F.cross_entropy(outputs, teacher.to(outputs.dtype).softmax(dim=1))

    def accumulator(self, device: torch.device) -> MetricAccumulator:
        return MeanIoUAccumulator(self.num_classes, device)

    def random_targets(self, num_images: int, device: torch.device) -> Tensor:
        return torch.randint(self.num_classes, (num_images, *self.image_size), device=device)


class MeanIoUAccumulator(MetricAccumulator):
    """Counts pixels by true and predicted class.

    Over all pixels of all images together, with TP_k those of class k that are predicted as such,
    FN_k those predicted as others, and FP_k those of others predicted as k:

        IoU_k = TP_k / (TP_k + FN_k + FP_k),    mIoU = mean of IoU_k

    over the classes that have a pixel in masks or predictions; with none of either, IoU is
    undefined.

    Args:
        num_classes: number of classes.
        device: device of the logits.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        super().__init__(device)
        shape = (num_classes, num_classes)
        self._confusion_KK = torch.zeros(shape, dtype=torch.int64, device=device)

    def _add(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=outputs.device)
        # One by one: full-size logits of a batch with many classes would fill the memory.
        for logits_Kyx, mask_YX in zip(outputs, targets, strict=True):
            mask_1YX, grid = mask_YX[None], (mask_YX.shape[0], mask_YX.shape[1])
            logits_1KYX = resized(logits_Kyx[None], grid)
            loss += _pixel_loss(logits_1KYX, mask_1YX).double() / mask_1YX.numel()
            counted = mask_1YX != IGNORED
            self._count(mask_1YX[counted].long(), logits_1KYX.argmax(dim=1)[counted])
        return loss

    def _count(self, true_N: Tensor, predicted_N: Tensor) -> None:
        num = len(self._confusion_KK)
        cells = torch.bincount(true_N * num + predicted_N, minlength=num * num)
        self._confusion_KK += cells.view(num, num)

    def _metrics(self, loss: float, num_images: int, rank: Rank) -> Metrics:
        rank.sum_(self._confusion_KK)
        confusion = self._confusion_KK.double()
        both = confusion.diagonal()
        either = confusion.sum(dim=0) + confusion.sum(dim=1) - both
        is_seen = either > 0
        miou = (both[is_seen] / either[is_seen]).mean().item()
        return Metrics(miou, loss, num_images, QUALITIES["segment"])


def _pixel_loss(logits_BKyx: Tensor, mask_BYX: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The sum of the cross entropies of all pixels with a label.

    Divided by the number of all pixels, as mmsegmentation does, not of those with a label: parts
    of a batch then add up to the whole, and an image without any label is no division by 0.
    """
    return F.cross_entropy(
        resized(logits_BKyx, (mask_BYX.shape[1], mask_BYX.shape[2])),
        mask_BYX.long(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
