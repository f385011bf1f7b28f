"""The share of a GPU's memory that a trial may allocate."""

from __future__ import annotations

import torch


def limit_gpu_memory(gpus: float) -> None:
    """Let this process allocate no more than its trial's share of its GPU's memory.

    A trial that needs more runs out of memory by itself, and leaves the others theirs. The share
    is of torch's allocations; the process's CUDA context comes on top.
    Without a GPU, or with whole ones, nothing is limited.

    Args:
        gpus: GPUs of the trial; a fraction below 1 shares one.
    """
    if 0.0 < gpus < 1.0 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpus)
