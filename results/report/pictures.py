"""Pictures of what a segmenter or a detector says of validation images, beside the truth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from sharedattn.data import DataSource
from sharedattn.data.labels import CLASS_COLUMN, IGNORED
from sharedattn.heads.interface import resized
from sharedattn.networks.network import Network
from sharedattn.results.artifacts.atomic import atomic_write
from sharedattn.results.report.page import LEAST_SCORE
from sharedattn.training.tasks.detection import Detection, Detections
from sharedattn.training.tasks.registry import task_training

NUM_IMAGES = 6
LEAST_WIDTH = 192  # of a drawn image in pixels; smaller ones are enlarged by a whole factor
GAP = 6
LEGEND_HEIGHT = 24
MAX_NAMED = 20  # classes of the legend
COLOURS = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
    *((213, 94, 0), (86, 180, 233), (240, 228, 66), (150, 90, 200)),
)
"""Of classes, repeated: seven of Okabe and Ito, told apart by colour-blind readers, and purple."""

Pixels = npt.NDArray[np.uint8]


@torch.inference_mode()
def write_pictures(path: Path, network: Network, data: DataSource) -> None:
    """Draw some validation images, the truth above, what the network says below.

    Args:
        path: the PNG file; its folder exists.
        network: a trained segmenter or detector, on the CPU.
        data: its data.
    """
    network.eval()
    batches = data.eval_batches(
        "validation", batch_size=NUM_IMAGES, device=torch.device("cpu"), at_most=NUM_IMAGES
    )
    images, targets = next(iter(batches))
    outputs = network(images)
    task = task_training(network)
    shown = [_pixels(image, data) for image in images.numpy()]
    names = data.class_names or tuple(map(str, range(data.num_classes)))
    if isinstance(task, Detection):
        truth = [
            _boxes(one, _true_boxes(rows), names) for one, rows in zip(shown, targets, strict=True)
        ]
        found = [
            _boxes(one, _found_boxes(boxes), names)
            for one, boxes in zip(shown, task.detections(outputs), strict=True)
        ]
        sheet = _sheet([truth, found])
    else:
        labels = resized(outputs, (targets.shape[1], targets.shape[2])).argmax(dim=1)
        truth = [_masked(one, mask) for one, mask in zip(shown, targets.numpy(), strict=True)]
        found = [_masked(one, mask) for one, mask in zip(shown, labels.numpy(), strict=True)]
        sheet = _with_legend(_sheet([truth, found]), names)
    file = io.BytesIO()
    sheet.save(file, format="PNG", optimize=True)
    atomic_write(path, file.getvalue())


def _pixels(image_CYX: npt.NDArray[np.float32], data: DataSource) -> Pixels:
    """An image as it was before it was normalised, (Y, X, 3)."""
    pixels = data.pixels
    assert pixels is not None
    mean, std = np.array(pixels.mean)[:, None, None], np.array(pixels.std)[:, None, None]
    raw = np.clip(np.rint(255 * (image_CYX * std + mean)), 0, 255).astype(np.uint8)
    return np.broadcast_to(raw.transpose(1, 2, 0), (*raw.shape[1:], 3)).copy()


def _enlarged(pixels: Pixels) -> tuple[Image.Image, int]:
    """An image at a whole factor that makes it wide enough, and the factor."""
    height, width = pixels.shape[:2]
    factor = max(1, -(-LEAST_WIDTH // width))
    image = Image.fromarray(pixels)
    return image.resize((width * factor, height * factor), Image.Resampling.NEAREST), factor


def _masked(pixels: Pixels, mask_YX: npt.NDArray[np.integer]) -> Image.Image:
    """An image under the colours of its classes; class 0 and what is ignored have none."""
    coloured = pixels.astype(float)
    for label in np.unique(mask_YX):
        if label not in (0, IGNORED):
            colour = np.array(_colour(int(label)))
            is_of = mask_YX == label
            coloured[is_of] = 0.4 * coloured[is_of] + 0.6 * colour
    return _enlarged(np.rint(coloured).astype(np.uint8))[0]


def _true_boxes(rows_M6: torch.Tensor) -> list[tuple[list[float], int, float | None]]:
    rows = rows_M6[rows_M6[:, CLASS_COLUMN] >= 0].tolist()
    return [(row[:4], int(row[CLASS_COLUMN]), None) for row in rows]


def _found_boxes(found: Detections) -> list[tuple[list[float], int, float | None]]:
    boxes, scores, labels = (values.tolist() for values in found)
    together = zip(boxes, labels, scores, strict=True)
    return [one for one in together if one[2] >= LEAST_SCORE]


def _boxes(
    pixels: Pixels,
    boxes: Sequence[tuple[list[float], int, float | None]],
    names: Sequence[str],
) -> Image.Image:
    """An image with boxes, their classes, and scores where there are any."""
    image, factor = _enlarged(pixels)
    draw = ImageDraw.Draw(image)
    for corners, label, score in boxes:
        colour = COLOURS[label % len(COLOURS)]
        x0, y0, x1, y1 = (factor * corner for corner in corners)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=2)
        text = names[label] if score is None else f"{names[label]} {score:.2f}"
        box = draw.textbbox((x0 + 1, max(0, y0 - 11)), text)
        draw.rectangle(box, fill=colour)
        draw.text(box[:2], text, fill="white", anchor="la")
    return image


def _with_legend(sheet: Image.Image, names: Sequence[str]) -> Image.Image:
    """A sheet with the names of the classes, which have colours, below it."""
    above = Image.new("RGBA", (sheet.width, sheet.height + LEGEND_HEIGHT))
    above.paste(sheet)
    draw, x = ImageDraw.Draw(above), 0.0
    for label, name in enumerate(names[1 : MAX_NAMED + 1], start=1):
        place = (x + 4, sheet.height + GAP + 2)
        box = draw.textbbox(place, name)
        draw.rectangle((box[0] - 4, box[1] - 2, box[2] + 4, box[3] + 3), fill=_colour(label))
        draw.text(place, name, fill="white")
        x = box[2] + 4 + GAP
    return above


def _colour(label: int) -> tuple[int, int, int]:
    """The colour of a class of masks, whose class 0 is the background."""
    return COLOURS[(label - 1) % len(COLOURS)]


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Images in rows, with transparent gaps."""
    width, height = rows[0][0].size
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    sheet = Image.new("RGBA", size)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * (width + GAP), y * (height + GAP)))
    return sheet
