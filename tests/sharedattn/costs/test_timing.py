"""Medians of repeats after a warm-up; nothing of the process is left changed."""

import itertools

import pytest
import torch

from sharedattn.costs import timing
from sharedattn.costs.timing import Timing, device_name, elapsed_ms, time_call, torch_threads


def test_a_call_is_timed_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((2.0, 2.25))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert elapsed_ms(lambda: None, "cpu") == 250.0


def test_the_median_is_of_the_repeats_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Clock readings by twos, so that the five calls take 1, 7, 3, 100 and 5 seconds.
    ends = itertools.accumulate((0, 1, 0, 7, 0, 3, 0, 100, 0, 5))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ends)))
    calls: list[int] = []
    measured = time_call(lambda: calls.append(1), "cpu", repeats=5, warm_ups=3)
    assert measured == Timing(median_ms=5000.0, repeats=5, peak_bytes=None)
    assert len(calls) == 8


def test_the_processor_has_a_name() -> None:
    assert isinstance(device_name("cpu"), str)


def test_threads_are_as_before_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ArithmeticError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ArithmeticError
    assert torch.get_num_threads() == before


@pytest.mark.gpu
# What it tests is on a GPU alone; where there is one it runs with all the others.
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_of_memory_is_of_what_the_call_allocates() -> None:
    measured = time_call(lambda: torch.zeros(3 << 20, device="cuda"), "cuda", repeats=3)
    assert measured.peak_bytes is not None
    assert measured.peak_bytes >= 12 << 20
    assert measured.median_ms > 0
