"""Mean average precision of boxes, by COCO's own code (pycocotools)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import numpy.typing as npt

from sharedattn.data.labels import CLASS_COLUMN, CROWD_COLUMN

_MAP, _MAP50 = 0, 1  # places in COCO's summary

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBoxes:
    """True and found boxes of an image, in its pixels.

    Attributes:
        truth: (n, 6), see `sharedattn.data.labels`.
        boxes: (m, 4), x0, y0, x1, y1 of those found.
        scores: (m,), how sure the detector is of each.
        labels: (m,), the class of each.
    """

    truth: Floats
    boxes: Floats
    scores: Floats
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePrecisions:
    """Mean average precisions, 0 to 1.

    Attributes:
        map50: a found box is right if it overlaps a true one by 0.5.
        mean_over_overlaps: the mean over 0.5, 0.55, ..., 0.95; COCO's main figure.
    """

    map50: float
    mean_over_overlaps: float


def average_precisions(images: Sequence[ImageBoxes], num_classes: int) -> AveragePrecisions:
    """Mean average precisions over all images together, as COCO defines them.

    Of each class, found boxes are taken in the order of their scores, at most 100 an image. One is
    right if it overlaps a true box of its image and class that no earlier one did, by as much as
    is asked: intersection over union. The average precision is the mean, over 101 recalls from 0
    to 1, of the highest precision at that recall or a higher one. The mean is over the classes
    that have a true box. Boxes that hold a crowd count neither for nor against.

    Args:
        images: the boxes of each image.
        num_classes: number of classes.

    Returns:
        The figures; 0 if nothing is found.

    Raises:
        ValueError: no image has a true box that is no crowd.
    """
    # Imported here, since only detectors need the extra.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = _documents(images)
    if not any(not one["iscrowd"] for one in truth):
        raise ValueError("mean average precision needs a true box, but no image has one")
    if not found:
        return AveragePrecisions(map50=0.0, mean_over_overlaps=0.0)
    with redirect_stdout(StringIO()):  # pycocotools tells of each step
        annotated = COCO()
        annotated.dataset = {
            "images": [{"id": number} for number in range(1, len(images) + 1)],
            "annotations": truth,
            "categories": [{"id": number} for number in range(num_classes)],
        }
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return AveragePrecisions(
        map50=float(evaluation.stats[_MAP50]), mean_over_overlaps=float(evaluation.stats[_MAP])
    )


def _documents(images: Sequence[ImageBoxes]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """True and found boxes in COCO's format; ids are from 1, as pycocotools takes 0 for none."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for row in image.truth:
            box = _with_sides(row)
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": number,
                    "category_id": int(row[CLASS_COLUMN]),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(row[CROWD_COLUMN]),
                }
            )
        for row, score, label in zip(image.boxes, image.scores, image.labels, strict=True):
            found.append(
                {
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": _with_sides(row),
                    "score": float(score),
                }
            )
    return truth, found


def _with_sides(row: Floats) -> list[float]:
    """x, y, width and height of a row that begins with x0, y0, x1, y1."""
    x0, y0, x1, y1 = row[:4].tolist()
    return [x0, y0, x1 - x0, y1 - y0]
