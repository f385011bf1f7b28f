"""Object detection by anchors: RetinaNet's losses, and the mean average precision (`map50`).

Anchors, matching, losses and the selection of boxes are torchvision's. Of its defaults, which are
the paper's (Lin et al. 2017, arXiv:1708.02002), only the number of boxes of an image differs: 100,
as many as COCO counts.

Shape letters: B batch, A anchors of all levels, K classes, M most boxes of an image in a batch.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet

from sharedattn.data.labels import BOX_COLUMNS, CLASS_COLUMN, CROWD_COLUMN
from sharedattn.distributed import Rank
from sharedattn.errors import InputError
from sharedattn.heads.interface import PYRAMID_DIM
from sharedattn.heads.retinanet import RetinaNet
from sharedattn.networks.network import Network
from sharedattn.recipe import Recipe
from sharedattn.tasks import QUALITIES
from sharedattn.training.tasks.average_precision import ImageBoxes, average_precisions
from sharedattn.training.tasks.interface import MetricAccumulator, Metrics, TaskTraining

OCTAVES = (0.0, 1.0 / 3.0, 2.0 / 3.0)
"""Sizes of a level's anchors: powers of 2 of the smallest."""

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Heights of anchors over their widths."""

MAX_BOXES = 100
"""Boxes of an image that are kept, those of the highest scores."""


class Detection(TaskTraining):
    """Outputs are (B, A, K + 4): class logits, then offsets; targets are boxes (B, M, 6).

    An anchor is an object's if they overlap by 0.5 or if it is the object's best, none's below
    0.4, and ignored between. The loss of an image is the focal loss (alpha 0.25, gamma 2) of all
    anchors that are not ignored and the absolute error of the offsets of those with an object,
    both over the number of the latter. Boxes that hold a crowd are no objects.

    Raises:
        InputError: pycocotools is not installed.
    """

    is_taught = False

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        if find_spec("pycocotools") is None:
            raise InputError(
                "detectors are measured by pycocotools, which is not installed; install "
                "sharedattn[detect]"
            )
        head = network.pyramid_head
        assert isinstance(head, RetinaNet)
        self._torchvision, self._anchors_per_level = _torchvision(
            head, self.num_classes, network.backbone.anchor_scale
        )

    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        anchors_A4 = torch.cat(self._anchors(outputs.device))
        losses = self._torchvision.compute_loss(
            [_objects(rows_M6) for rows_M6 in targets],
            {
                "cls_logits": outputs[..., : self.num_classes],
                "bbox_regression": outputs[..., self.num_classes :],
            },
            [anchors_A4] * len(targets),
        )
        total: Tensor = losses["classification"] + losses["bbox_regression"]
        return total

    def taught_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        # Never called: `check_recipe` refuses distillation, since a teacher's outputs give anchors
        # no objects to be matched with.
        raise NotImplementedError

    def accumulator(self, device: torch.device) -> MetricAccumulator:
        return AveragePrecisionAccumulator(self, device)

    def random_targets(self, num_images: int, device: torch.device) -> Tensor:
        targets = torch.zeros((num_images, 1, BOX_COLUMNS), device=device)
        height, width = self.image_size
        targets[..., :4] = torch.tensor([width / 4, height / 4, width / 2, height / 2])
        targets[..., CLASS_COLUMN] = torch.randint(self.num_classes, (num_images, 1)).float()
        return targets

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.label_smoothing:
            raise InputError(
                f"`label_smoothing` of the recipe is {recipe.label_smoothing:g}, but the focal "
                f"loss of detectors has none; set it to 0"
            )

    def detections(self, outputs: Tensor) -> list[Detections]:
        """The boxes of each image of a batch, those of the highest scores first.

        Boxes with a score above 0.05, the best 1000 of each level, without those that overlap a
        better one of their class by more than 0.5.

        Args:
            outputs: (B, A, K + 4).
        """
        levels = self._anchors(outputs.device)
        per_level = torch.split(outputs, [len(anchors) for anchors in levels], dim=1)
        found = self._torchvision.postprocess_detections(
            {
                "cls_logits": [level[..., : self.num_classes] for level in per_level],
                "bbox_regression": [level[..., self.num_classes :] for level in per_level],
            },
            [levels] * len(outputs),
            [tuple(self.image_size)] * len(outputs),
        )
        return [Detections(one["boxes"], one["scores"], one["labels"]) for one in found]

    def _anchors(self, device: torch.device) -> list[Tensor]:
        """Anchors of each level, (A_i, 4) each."""
        if self._anchors_per_level[0].device != device:
            self._anchors_per_level = [level.to(device) for level in self._anchors_per_level]
        return self._anchors_per_level


class Detections(NamedTuple):
    """The boxes that a detector finds in an image.

    Attributes:
        boxes_N4: x0, y0, x1, y1 in pixels.
        scores_N: probabilities.
        labels_N: classes, int64.
    """

    boxes_N4: Tensor
    scores_N: Tensor
    labels_N: Tensor


class AveragePrecisionAccumulator(MetricAccumulator):
    """Collects true and found boxes; see `average_precisions`.

    Args:
        task: gives the loss and the boxes of outputs.
        device: device of the outputs.
    """

    def __init__(self, task: Detection, device: torch.device) -> None:
        super().__init__(device)
        self._task = task
        self._images: list[ImageBoxes] = []

    def _add(self, outputs: Tensor, targets: Tensor) -> Tensor:
        for rows_M6, found in zip(targets, self._task.detections(outputs), strict=True):
            is_box = rows_M6[:, CLASS_COLUMN] >= 0
            self._images.append(
                ImageBoxes(
                    truth=_numbers(rows_M6[is_box]),
                    boxes=_numbers(found.boxes_N4),
                    scores=_numbers(found.scores_N),
                    labels=_numbers(found.labels_N).astype(np.int64),
                )
            )
        loss = self._task.loss(outputs, targets, _NO_CHANGES)
        return loss.double() * len(targets)

    def _metrics(self, loss: float, num_images: int, rank: Rank) -> Metrics:
        found = average_precisions(rank.gathered(self._images), self._task.num_classes)
        return Metrics(
            found.map50, loss, num_images, QUALITIES["detect"], {"map": found.mean_over_overlaps}
        )


_NO_CHANGES = Recipe(epochs=1)


class _NoBackbone(nn.Module):
    """What torchvision's detector asks of a backbone, where the network has its own."""

    out_channels = PYRAMID_DIM


def _torchvision(
    head: RetinaNet, num_classes: int, anchor_scale: float
) -> tuple[TorchvisionRetinaNet, list[Tensor]]:
    """torchvision's detector around a head, and the anchors of each level, (A_i, 4) each."""
    sizes = tuple(
        tuple(anchor_scale * reduction * 2.0**octave for octave in OCTAVES)
        for reduction, _ in head.levels
    )
    generator = AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(sizes))
    anchors = generator.grid_anchors(
        [list(grid) for _, grid in head.levels],
        [[reduction, reduction] for reduction, _ in head.levels],
    )
    detector = TorchvisionRetinaNet(
        _NoBackbone(),
        num_classes,
        anchor_generator=generator,
        head=head.heads,
        detections_per_img=MAX_BOXES,
    )
    return detector, anchors


def _objects(rows_M6: Tensor) -> dict[str, Tensor]:
    """An image's objects as torchvision has them."""
    is_object = (rows_M6[:, CLASS_COLUMN] >= 0) & (rows_M6[:, CROWD_COLUMN] == 0)
    rows_N6 = rows_M6[is_object]
    return {"boxes": rows_N6[:, :4], "labels": rows_N6[:, CLASS_COLUMN].long()}


def _numbers(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.double().cpu().numpy()
