"""Time calls on a device, and measure their memory.

A figure is the median of repeats after a warm-up, each synchronised with the device. It covers
this process only; the caller makes sure that nothing else runs.
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
    """Time and memory of a call.

    Attributes:
        median_ms: median of the repeats in milliseconds.
        repeats: number of timed calls, without the warm-up.
        peak_bytes: peak memory of tensors on a CUDA device, including those from before the call;
            None on a CPU, where torch does not count.
    """

    median_ms: float
    repeats: int
    peak_bytes: int | None = None


def elapsed_ms(step: Callable[[], object], device: str) -> float:
    """Time one call in milliseconds, until the device has finished.

    Args:
        step: the call to time.
        device: device that it runs on, such as "cpu" or "cuda".
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
    """Measure the median time of a call, and its peak memory.

    Args:
        step: the call to time; does the same work every time.
        device: device that it runs on.
        repeats: number of timed calls; > 0.
        warm_ups: number of earlier calls, which choose kernels and fill caches; > 0.
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
    """The name of a device's model, or of the processor for a CPU.

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
        count: number of threads; > 0.
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
