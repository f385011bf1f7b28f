"""Make data sets for experiments: folders of small images, made of real material.

    python benchmarks/data_makers.py KIND DIR [--images 2000] [--size 32|64x96] [--seed 0]

Each makes `train/`, `val/` and `test/` of 70, 15 and 15 % of the images, PNG files, by default one
folder per class. KIND is one of

- `clutter`: which digit is it? One at a random place, size and colour, on pieces of other digits
  and noise; 10 classes;
- `pairs`: which is the larger of two digits? Each at a random place of its half; 10 classes;
- `textures`: how many different textures have the four quadrants? Stripes of 4 directions and 3
  widths over pieces of photographs; 4 classes, 1 to 4;
- `shapes`: how many others are of the coloured one's kind? Four drawn shapes of 3 kinds, turned
  and of any size; 4 classes, 0 to 3;
- `masks`: where are digits, and which? One to three, not one over another, at any place, size and
  colour, on pieces of other digits and noise; `images/` and `masks/` of 6 classes, the background
  and the digits 0 to 4, with the digits' faint edges ignored;
- `boxes`: the same pictures in COCO's format, with boxes of 5 categories around what shows of each
  digit.

Only `masks` and `boxes` make pictures that are not square, of height x width 64x96 for example.

Digits are scikit-learn's handwritten ones (real images), photographs are its two sample images. No
handwritten digit and no part of a photograph is in two splits.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits, load_sample_images

SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


class Material(NamedTuple):
    """What the images of one split are made of."""

    images: np.ndarray  # (n, 8, 8), uint8: every digit, of all splits
    target: np.ndarray  # (n,)
    own: np.ndarray  # which digits are the split's
    photographs: list[np.ndarray]  # (Y, X, 3), uint8: the split's parts


class Example(NamedTuple):
    """An image and its class."""

    picture: np.ndarray  # (size, size, 3), uint8
    label: str


# Draws the split's image of a number.
Draw = Callable[[Material, int, int, np.random.Generator], Example]


def make(kind: str, folder: Path, count: int, size: int | tuple[int, int], seed: int = 0) -> None:
    """Write a folder.

    Args:
        kind: one of `KINDS` or `SCENE_KINDS`.
        folder: output folder; created, and refused if it is not empty.
        count: total number of images.
        size: image height and width in pixels, which are one number but of `SCENE_KINDS`.
        seed: seed of all random choices.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if kind in KINDS and height != width:
        raise SystemExit(f"{kind} makes square pictures; give one number as the size")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty; name another folder")
    rng = np.random.default_rng(seed)
    digits = load_digits()
    images = (digits.images * (255.0 / 16.0)).astype(np.uint8)
    order = rng.permutation(len(images))
    start, begun = 0, 0.0
    for split, share in SPLITS.items():
        own = order[start : start + round(share * len(order))]
        start += len(own)
        material = Material(images, digits.target, own, _parts_of_photographs(begun, share))
        begun += share
        numbers = range(round(share * count))
        if kind in SCENE_KINDS:
            scenes = (draw_scene(material, number, (height, width), rng) for number in numbers)
            SCENE_KINDS[kind](folder, split, scenes)
            continue
        for number in numbers:
            example = KINDS[kind](material, number, height, rng)
            place = folder / split / example.label
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example.picture).save(place / f"{number:04d}.png")


@cache
def _photographs() -> list[np.ndarray]:
    return list(load_sample_images().images)


def _parts_of_photographs(begun: float, share: float) -> list[np.ndarray]:
    """The same vertical strip of each photograph."""
    return [
        photograph[:, round(begun * photograph.shape[1]) :][
            :, : math.floor(share * photograph.shape[1])
        ]
        for photograph in _photographs()
    ]


def draw_clutter(material: Material, number: int, size: int, rng: np.random.Generator) -> Example:
    """One digit on clutter."""
    which = int(material.own[number % len(material.own)])
    canvas = _cluttered(material, (size, size), rng)
    side = int(rng.integers(size // 2, 3 * size // 4 + 1))
    alpha = _resized(material.images[which], side)
    y, x = rng.integers(0, size - side + 1, 2)
    _paint(canvas, alpha, y, x, rng.uniform(150, 255, 3))
    return Example(canvas.clip(0, 255).astype(np.uint8), str(material.target[which]))


def _cluttered(
    material: Material, size: tuple[int, int], rng: np.random.Generator, num_pieces: int = 6
) -> np.ndarray:
    """Noise and pieces of digits, (*size, 3), float."""
    canvas = rng.normal(60, 20, (*size, 3)) + rng.uniform(-30, 30, 3)
    for _ in range(num_pieces):
        # A quarter of another digit, too little to recognise it.
        y, x = rng.integers(0, 5, 2)
        piece = material.images[int(rng.choice(material.own))][y : y + 4, x : x + 4] / 255.0
        y, x = rng.integers(0, (size[0] - 4, size[1] - 4))
        canvas[y : y + 4, x : x + 4] += piece[..., None] * rng.uniform(20, 90, 3)
    return canvas


def _resized(digit: np.ndarray, side: int) -> np.ndarray:
    """A digit as opacities, (side, side), 0 to 1."""
    resized = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float64) / 255.0


def _paint(canvas: np.ndarray, alpha: np.ndarray, y: int, x: int, colour: np.ndarray) -> None:
    """Paint a colour over a part of the canvas, by opacities."""
    part = canvas[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    part[:] = (1 - alpha[..., None]) * part + alpha[..., None] * colour


def draw_pair(material: Material, number: int, size: int, rng: np.random.Generator) -> Example:
    """Two digits, the larger one the class."""
    larger = number % 10
    pair = (larger, int(rng.integers(larger + 1)))
    canvas = _cluttered(material, (size, size), rng, num_pieces=3)
    half = size // 2
    for side_of_canvas, digit in enumerate(rng.permutation(pair)):
        own = material.own[material.target[material.own] == digit]
        side = int(rng.integers(3 * half // 4, half + 1))
        alpha = _resized(material.images[int(rng.choice(own))], side)
        y = int(rng.integers(0, size - side + 1))
        x = side_of_canvas * half + int(rng.integers(0, half - side + 1))
        _paint(canvas, alpha, y, x, rng.uniform(150, 255, 3))
    return Example(canvas.clip(0, 255).astype(np.uint8), str(larger))


NUM_DIRECTIONS = 4
STRIPE_PERIODS = (3.0, 4.5, 7.0)  # in pixels


def draw_textures(material: Material, number: int, size: int, rng: np.random.Generator) -> Example:
    """Four quadrants; how many different textures they have is the class."""
    different = number % 4 + 1
    num_textures = NUM_DIRECTIONS * len(STRIPE_PERIODS)
    own = rng.permutation(num_textures)[:different]
    # Each of the different ones once, then any of them again.
    again = rng.choice(own, 4 - different)
    half = size // 2
    canvas = np.zeros((size, size, 3))
    for place, texture in enumerate(rng.permutation([*own, *again])):
        y, x = place // 2 * half, place % 2 * half
        canvas[y : y + half, x : x + half] = _textured(material, int(texture), half, rng)
    return Example(canvas.clip(0, 255).astype(np.uint8), str(different))


def _textured(material: Material, texture: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes over a piece of a photograph, (side, side, 3), float."""
    photograph = material.photographs[int(rng.integers(len(material.photographs)))]
    y, x = (int(rng.integers(0, length - side)) for length in photograph.shape[:2])
    piece = photograph[y : y + side, x : x + side].astype(np.float64)
    angle = math.pi * (texture % NUM_DIRECTIONS + rng.uniform(-0.15, 0.15)) / NUM_DIRECTIONS
    period = STRIPE_PERIODS[texture // NUM_DIRECTIONS] * rng.uniform(0.93, 1.07)
    rows, columns = np.mgrid[:side, :side]
    along = rows * math.sin(angle) + columns * math.cos(angle)
    wave = np.sin(2 * math.pi * along / period + rng.uniform(0, 2 * math.pi))
    stripes = wave[..., None] * rng.uniform(25, 60) * rng.uniform(0.6, 1.0, 3)
    return 0.6 * piece + 50 + stripes


SHAPE_KINDS = ("triangle", "circle", "cross")
NUM_SHAPES = 4
OVERSAMPLING = 4


def draw_shapes(material: Material, number: int, size: int, rng: np.random.Generator) -> Example:
    """Four shapes, one of them coloured; how many others are of its kind is the class."""
    same = number % NUM_SHAPES
    kind = int(rng.integers(len(SHAPE_KINDS)))
    others = [k for k in range(len(SHAPE_KINDS)) if k != kind]
    kinds = [kind] * (1 + same) + [int(rng.choice(others)) for _ in range(NUM_SHAPES - 1 - same)]
    canvas = rng.normal(70, 15, (size, size, 3)) + rng.uniform(-30, 30, 3)
    half = size // 2
    for index, place in enumerate(rng.permutation(NUM_SHAPES)):
        side = int(rng.integers(half * 2 // 3, half + 1))
        y, x = (int(rng.integers(0, half - side + 1)) for _ in range(2))
        alpha = _shape(SHAPE_KINDS[kinds[index]], side, rng)
        grey = np.full(3, rng.uniform(150, 230))
        colour = np.array([230.0, 80.0, 80.0]) + rng.uniform(-25, 25, 3) if index == 0 else grey
        _paint(canvas, alpha, place // 2 * half + y, place % 2 * half + x, colour)
    return Example(canvas.clip(0, 255).astype(np.uint8), str(same))


def _shape(kind: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """A shape turned by any angle, as opacities, (side, side), 0 to 1."""
    large = side * OVERSAMPLING
    image = Image.new("L", (large, large))
    draw = ImageDraw.Draw(image)
    radius, centre, turn = 0.48 * large, large / 2, float(rng.uniform(0, 360))
    if kind == "circle":
        radius *= 0.85
        low, high = centre - radius, centre + radius
        draw.ellipse([low, low, high, high], fill=255)
    elif kind == "triangle":
        draw.regular_polygon((centre, centre, radius), 3, rotation=turn, fill=255)
    else:
        for angle in (turn, turn + 90):
            dy, dx = math.sin(math.radians(angle)), math.cos(math.radians(angle))
            ends = [(centre + s * radius * dx, centre + s * radius * dy) for s in (-1, 1)]
            draw.line(ends, fill=255, width=round(0.3 * large))
    small = image.resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255.0


SCENE_DIGITS = 5  # the digits of scenes are 0 to 4
MOST_IN_SCENE = 3
CLEAR = 0.5  # opacity from which on a pixel is the digit's
FAINT = 0.15  # opacity below which it is the background's; those between are ignored
IGNORED = 255


class Scene(NamedTuple):
    """A picture of several digits."""

    picture: np.ndarray  # (Y, X, 3), uint8
    mask: np.ndarray  # (Y, X), uint8: 0 the background, 1 + digit, `IGNORED` between
    boxes: list[tuple[int, tuple[int, int, int, int]]]  # digit, and x, y, width, height


def draw_scene(
    material: Material, number: int, size: tuple[int, int], rng: np.random.Generator
) -> Scene:
    """One to three digits on clutter, none over another."""
    height, width = size
    canvas = _cluttered(material, size, rng, num_pieces=height * width // 170)
    mask = np.zeros(size, dtype=np.uint8)
    own = material.own[material.target[material.own] < SCENE_DIGITS]
    boxes: list[tuple[int, tuple[int, int, int, int]]] = []
    wanted = number % MOST_IN_SCENE + 1
    while len(boxes) < wanted:
        # Smaller with each digit: three of the largest would leave no room for each other.
        side = int(rng.integers(height // 3, height * 3 // 5 - 4 * len(boxes)))
        which = int(rng.choice(own))
        alpha = _resized(material.images[which], side)
        y, x = (int(n) for n in rng.integers(0, (height - side + 1, width - side + 1)))
        part = mask[y : y + side, x : x + side]
        if part.any():
            continue
        _paint(canvas, alpha, y, x, rng.uniform(150, 255, 3))
        digit = int(material.target[which])
        part[alpha >= FAINT] = IGNORED
        part[alpha >= CLEAR] = 1 + digit
        rows, columns = np.nonzero(alpha >= CLEAR)
        top, left = int(rows.min()), int(columns.min())
        shown = (int(columns.max()) - left + 1, int(rows.max()) - top + 1)
        boxes.append((digit, (x + left, y + top, *shown)))
    return Scene(canvas.clip(0, 255).astype(np.uint8), mask, boxes)


def write_masks(folder: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Images and masks."""
    for kind in ("images", "masks"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    names = ["background", *map(str, range(SCENE_DIGITS))]
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    for number, scene in enumerate(scenes):
        name = Path(split, f"{number:04d}.png")
        Image.fromarray(scene.picture).save(folder / "images" / name)
        Image.fromarray(scene.mask).save(folder / "masks" / name)


def write_boxes(folder: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Images and an annotation file in COCO's format."""
    for name in ("annotations", split):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        name = f"{number:04d}.png"
        Image.fromarray(scene.picture).save(folder / split / name)
        height, width = scene.mask.shape
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations += [
            {"image_id": number, "category_id": digit, "bbox": list(box), "iscrowd": 0}
            for digit, box in scene.boxes
        ]
    document = {
        "images": images,
        "annotations": [{"id": i, **one} for i, one in enumerate(annotations)],
        "categories": [{"id": digit, "name": str(digit)} for digit in range(SCENE_DIGITS)],
    }
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


SCENE_KINDS: dict[str, Callable[[Path, str, Iterable[Scene]], None]] = {
    "masks": write_masks,
    "boxes": write_boxes,
}

KINDS: dict[str, Draw] = {
    "clutter": draw_clutter,
    "pairs": draw_pair,
    "textures": draw_textures,
    "shapes": draw_shapes,
}


def _size(text: str) -> int | tuple[int, int]:
    """A size as the command line has it: one number, or height x width."""
    sides = [int(side) for side in text.split("x")]
    if len(sides) == 1:
        return sides[0]
    height, width = sides
    return height, width


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=(*KINDS, *SCENE_KINDS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=_size, default=32)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    make(asked.kind, asked.folder, asked.images, asked.size, asked.seed)


if __name__ == "__main__":
    main()
