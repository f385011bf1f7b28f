"""Folders of images that are learnt at once, and a space to search on them."""

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
SPACE = """\
name: colours
backbone: vit(depth=1,embed_dim=12,num_heads=2,patch_size=8)@16
order: any
stages: [{depth: 1, counts: {V: 0..1, N: 0..1}}]
"""
RECIPE = "{epochs: 6, batch_size: 8, lr: 1.0e-2, loader_workers: 0}"


def picture(colour, seed, size=16):
    noise = np.random.default_rng(seed).normal(0, 25, (size, size, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def put(folder, colour, count, start=0, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        picture(COLOURS[colour], i).save(folder / f"{i:03d}{suffix}")
