"""Time calls on a device, and measure their memory.

A figure is the median of repeats after a warm-up, each of them waited for until the device has
done it. It is of this process alone: whoever times sees to it that nothing else runs.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

WARM_UPS = 5
REPEATS = 31  # odd, so that the median is one of them


@dataclass(frozen=True, slots=True)
class Timing:
    """The time and memory of a call.

    Attributes:
        median_ms: milliseconds, the median of the repeats.
        repeats: how often it was timed, warm-up apart.
        peak_bytes: the most memory that tensors had on a CUDA device meanwhile, those that were
            there before among them; None on a CPU, where torch does not count.
    """

    median_ms: float
    repeats: int
    peak_bytes: int | None = None


def elapsed_ms(step: Callable[[], object], device: str) -> float:
    """Milliseconds of one call, until the device has done all of it.

    Args:
        step: what is timed.
        device: where it computes, such as "cpu" or "cuda".
    """
    _synchronize(device)
    started = time.perf_counter()
    step()
    _synchronize(device)
    return 1e3 * (time.perf_counter() - started)


def time_call(
    step: Callable[[], object],
    device: str,
    *,
    repeats: int = REPEATS,
    warm_ups: int = WARM_UPS,
) -> Timing:
    """The median time of a call, and the most memory it had.

    Args:
        step: what is timed; every call does the same work.
        device: where it computes.
        repeats: timed calls; > 0.
        warm_ups: calls before them, which choose kernels and fill caches; > 0.
    """
    counts_memory = _is_cuda(device)
    if counts_memory:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(warm_ups):
        step()
    median = statistics.median(elapsed_ms(step, device) for _ in range(repeats))
    peak = torch.cuda.max_memory_allocated(device) if counts_memory else None
    return Timing(median, repeats, peak)


def device_name(device: str) -> str:
    """The name of a device's model; of a CPU, the processor's.

    Args:
        device: such as "cpu" or "cuda".
    """
    if _is_cuda(device):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of torch threads inside the block, and restore it afterwards.

    Args:
        count: threads; > 0.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"


def _synchronize(device: str) -> None:
    if _is_cuda(device):
        torch.cuda.synchronize(device)
