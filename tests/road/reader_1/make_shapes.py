from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(20260101)
root = Path("shapes")
for split, n in (("train", 20), ("val", 8)):
    for k, name in enumerate(("bar", "cross", "dot")):
        f = root / split / name
        f.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            a = rng.integers(0, 60, (13, 11, 3))
            r, c = rng.integers(3, 9), rng.integers(3, 8)
            if k == 0:
                a[r, :] += 165
            if k == 1:
                a[r, :] += 165
                a[:, c] += 165
            if k == 2:
                a[r - 1 : r + 2, c - 1 : c + 2] += 165
            Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(f / f"{i:02d}.png")
