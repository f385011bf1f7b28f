"""Folders of tiny pictures with masks or boxes: coloured rectangles, two classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 22, 34
COLOURS = ((200, 40, 40), (40, 60, 220))
SPLITS = {"train": 23, "val": 11, "test": 7}


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[tuple[int, list[int]]]]:
    """A picture, its mask (0 the background, 1 + class), and class and x, y, w, h of its boxes.

    One rectangle a half of the picture at most, so that none lies over another.
    """
    picture = rng.integers(90, 130, (HEIGHT, WIDTH, 3))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    boxes = []
    for half in range(int(rng.integers(1, 3))):
        which = int(rng.integers(2))
        height, width = (int(n) for n in rng.integers(9, 15, 2))
        y = int(rng.integers(0, HEIGHT - height))
        x = half * WIDTH // 2 + int(rng.integers(0, WIDTH // 2 - width))
        picture[y : y + height, x : x + width] = COLOURS[which]
        mask[y : y + height, x : x + width] = 1 + which
        boxes.append((which, [x, y, width, height]))
    return picture.astype(np.uint8), mask, boxes


def write_masks(folder: Path, splits: dict[str, int] = SPLITS, *, names: bool = True) -> Path:
    """Images and masks; every fifth mask is of a palette."""
    rng = np.random.default_rng(5)
    for split, count in splits.items():
        for number in range(count):
            picture, mask, _ = draw(rng)
            image = Image.fromarray(mask)
            if number % 5 == 0:
                image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
            for kind, made in (("images", Image.fromarray(picture)), ("masks", image)):
                place = folder / kind / split
                place.mkdir(parents=True, exist_ok=True)
                made.save(place / f"{number:03d}.png")
    if names:
        (folder / "classes.txt").write_text("background\nred\nblue\n")
    return folder


def write_boxes(folder: Path, splits: dict[str, int] = SPLITS, *, suffix: str = "2017") -> Path:
    """COCO's format; categories have the ids 7 and 3, the latter the first class."""
    rng = np.random.default_rng(5)
    (folder / "annotations").mkdir(parents=True)
    for split, count in splits.items():
        (folder / f"{split}{suffix}").mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            picture, _, boxes = draw(rng)
            name = f"{number:03d}.png"
            Image.fromarray(picture).save(folder / f"{split}{suffix}" / name)
            images.append(
                {"id": 100 + number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            )
            annotations += [
                {
                    "id": 1000 + len(annotations) + place,
                    "image_id": 100 + number,
                    "category_id": (3, 7)[which],
                    "bbox": box,
                    "iscrowd": 0,
                }
                for place, (which, box) in enumerate(boxes)
            ]
        document = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "blue"}, {"id": 3, "name": "red"}],
        }
        path = folder / "annotations" / f"instances_{split}{suffix}.json"
        path.write_text(json.dumps(document))
    return folder
