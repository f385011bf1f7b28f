"""How much faster an update of Muon is where products of bfloat16 matrices are made in float32.

    python benchmarks/muon_products.py

Times timm's Newton-Schulz iteration on one thread, as it is and inside `update_products`. On a
processor with AVX-512 both are the same, since nothing is replaced there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from timm.optim.muon import zeropower_via_newtonschulz

from sharedattn.training.acceleration import update_products

SHAPES = ((24, 96), (64, 192), (64, 576), (256, 256))
NUM_STEPS = 5
COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]  # Keller Jordan's, for every step
REPEATS = 20


def median_ms(call: Callable[[], object]) -> float:
    """The median time of a call in milliseconds, after one that is not counted."""
    call()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def main() -> None:
    torch.set_num_threads(1)
    print(torch.backends.cpu.get_cpu_capability())
    print("| matrix | as it is (ms) | in `update_products` (ms) | ratio |")
    print("|" + "---|" * 4)
    for shape in SHAPES:
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))

        def step(gradient: torch.Tensor = gradient) -> torch.Tensor:
            return zeropower_via_newtonschulz(gradient, NUM_STEPS, COEFFICIENTS)

        plain = median_ms(step)
        with update_products([gradient]):
            replaced = median_ms(step)
        print(
            f"| {' x '.join(map(str, shape))} | {plain:.2f} | {replaced:.2f} | "
            f"{plain / replaced:.1f} |"
        )


if __name__ == "__main__":
    main()
