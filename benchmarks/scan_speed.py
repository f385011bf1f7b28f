"""Seconds of the first scan of a folder of small images, and of the second.

    python benchmarks/scan_speed.py [--files 50000] [--size 32]

The first scan lists, opens and decodes every file; the second finds sizes and times unchanged, and
decodes none. Also timed: opening the data, and its fingerprint, which reads the contents.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from sharedattn.data import DataConfig
from sharedattn.search.data_plan import DataOptions, look_at, open_checked

OLD = 1_600_000_000  # seconds; files changed recently are scanned again


def write_images(folder: Path, count: int, size: int) -> None:
    """Write noise images in ten classes, half of them PNG and half JPEG."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / "train" / f"class-{number % 10}"
        if number < 10:
            place.mkdir(parents=True)
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        path = place / f"{number:06d}.{('png', 'jpg')[number // 10 % 2]}"
        Image.fromarray(pixels).save(path)
        os.utime(path, (OLD, OLD))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=32)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name, "data"), asked.files, asked.size)
        config = DataConfig(name=f"{name}/data", image_size=32)
        print(
            f"{asked.files:,} files of {asked.size} pixels, {len(os.sched_getaffinity(0))} cores"
        )
        for which in ("first", "second"):
            started = time.perf_counter()
            looked = look_at(config, DataOptions(), Path(name, "scans"))
            scanned = time.perf_counter()
            source = open_checked(looked, None)
            opened = time.perf_counter()
            source.fingerprint  # noqa: B018
            ended = time.perf_counter()
            print(
                f"{which:6} look: {scanned - started:.1f} s to look, {opened - scanned:.1f} s to "
                f"open, {ended - opened:.1f} s for the fingerprint; {ended - started:.1f} s in all"
            )


if __name__ == "__main__":
    main()
