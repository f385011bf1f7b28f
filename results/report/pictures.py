"""Pictures of what a segmenter or a detector says of images, and of what a generator draws."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from sharedattn.data import DataSource
from sharedattn.data.labels import CLASS_COLUMN, IGNORED
from sharedattn.generation.frechet import NUM_DRAWN, digit_distances
from sharedattn.generation.sampling import draw_images
from sharedattn.heads.interface import resized
from sharedattn.networks.network import Network
from sharedattn.results.artifacts.atomic import atomic_write
from sharedattn.results.report.page import LEAST_SCORE, NOTE
from sharedattn.training.tasks.denoising import Denoising
from sharedattn.training.tasks.detection import Detection, Detections
from sharedattn.training.tasks.registry import task_training

NUM_IMAGES = 6
LEAST_WIDTH = 192  # of a drawn image in pixels; smaller ones are enlarged by a whole factor
NUM_COLUMNS, LEAST_COLUMN_WIDTH = 12, 96  # the same of generators' images
NUM_ROWS = 3  # of images that a generator draws, below one of real ones
GAP = 6
LEGEND_HEIGHT = 24
MAX_NAMED = 20  # classes of the legend
COLOURS = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
    *((213, 94, 0), (86, 180, 233), (240, 228, 66), (150, 90, 200)),
)
"""Of classes, repeated: seven of Okabe and Ito, told apart by colour-blind readers, and purple."""

Pixels = npt.NDArray[np.uint8]


def write_pictures(path: Path, network: Network, data: DataSource) -> str:
    """Draw some validation images, the truth above, what the network says below.

    Of a generator, images that it draws are below, which are of no image above.

    Args:
        path: the PNG file; its folder exists.
        network: a trained segmenter, detector or generator, on the CPU.
        data: its data.

    Returns:
        A note on the pictures, which the file holds as well: of a generator of digits, its
        Fréchet distance from real ones; of others "".
    """
    network.eval()
    if isinstance(task_training(network), Denoising):
        sheet, note = _drawn_sheet(network, data)
    else:
        sheet, note = _judged_sheet(network, data), ""
    file, texts = io.BytesIO(), PngInfo()
    if note:
        texts.add_itxt(NOTE, note)
    sheet.save(file, format="PNG", optimize=True, pnginfo=texts)
    atomic_write(path, file.getvalue())
    return note


def _drawn_sheet(network: Network, data: DataSource) -> tuple[Image.Image, str]:
    """A row of real images above rows of drawn ones, and how near these are if they are digits."""
    batches = data.eval_batches(
        "validation", batch_size=NUM_COLUMNS, device=torch.device("cpu"), at_most=NUM_COLUMNS
    )
    real, _ = next(iter(batches))
    of_digits = data.name == "digits"
    drawn = draw_images(network, NUM_DRAWN if of_digits else NUM_ROWS * NUM_COLUMNS)
    shown = [real, *torch.split(drawn[: NUM_ROWS * NUM_COLUMNS], NUM_COLUMNS)]
    rows = [
        [_enlarged(_pixels(image, data), LEAST_COLUMN_WIDTH)[0] for image in row.numpy()]
        for row in shown
    ]
    return _sheet(rows), str(digit_distances(drawn)) if of_digits else ""


@torch.inference_mode()
def _judged_sheet(network: Network, data: DataSource) -> Image.Image:
    """Images with the truth, above, and with what the network says of them, below."""
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
        return _sheet([truth, found])
    labels = resized(outputs, (targets.shape[1], targets.shape[2])).argmax(dim=1)
    truth = [_masked(one, mask) for one, mask in zip(shown, targets.numpy(), strict=True)]
    found = [_masked(one, mask) for one, mask in zip(shown, labels.numpy(), strict=True)]
    return _with_legend(_sheet([truth, found]), names)


def _pixels(image_CYX: npt.NDArray[np.float32], data: DataSource) -> Pixels:
    """An image as it was before it was normalised, (Y, X, 3); embedded ones go from -1 to 1."""
    pixels = data.pixels
    means, stds = ((0.5,), (0.5,)) if pixels is None else (pixels.mean, pixels.std)
    mean, std = np.array(means)[:, None, None], np.array(stds)[:, None, None]
    raw = np.clip(np.rint(255 * (image_CYX * std + mean)), 0, 255).astype(np.uint8)
    return np.broadcast_to(raw.transpose(1, 2, 0), (*raw.shape[1:], 3)).copy()


def _enlarged(pixels: Pixels, least_width: int = LEAST_WIDTH) -> tuple[Image.Image, int]:
    """An image at a whole factor that makes it wide enough, and the factor."""
    height, width = pixels.shape[:2]
    factor = max(1, -(-least_width // width))
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
