"""A small space, a small folder of images, and studies that cost nothing."""

import numpy as np
import pytest
from lab import SPACE
from PIL import Image

import sharedattn as sa


@pytest.fixture
def space():
    """9,000 placements or so of a network of 8 channels, and two classes."""
    return sa.Space.from_document(SPACE)


@pytest.fixture
def images(tmp_path):
    """A folder of 48 images of two classes, dark and light."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    for split, count in (("train", 16), ("val", 8)):
        for level, name in ((60, "dark"), (180, "light")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(level, 20, (16, 16)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder
