"""The checks of a GPU, on the CPU and on whatever GPU there is."""

import pytest
import torch
from gpu_checks import CHECKS, NEEDS_GPU

ON_A_GPU_ALONE = {"peak memory", "activation checkpointing", "share of the memory"}

on_cuda = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        # What it tests is on a GPU alone; where there is one it runs with all the others.
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


@pytest.mark.parametrize("device", ["cpu", on_cuda])
@pytest.mark.parametrize("name", CHECKS)
def test_a_check_passes(name: str, device: str) -> None:
    found = CHECKS[name](device)
    assert (found is NEEDS_GPU) == (device == "cpu" and name in ON_A_GPU_ALONE)
    assert all(number == number for number in found.values())


def test_on_a_cpu_nothing_differs_from_the_cpu() -> None:
    assert CHECKS["families as on a CPU"]("cpu")["largest_difference"] == 0.0
    assert CHECKS["training as on a CPU"]("cpu") == {"from_cpu": 0.0, "resumed": 0.0}


def test_a_check_notices_a_device_that_computes_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sharedattn.networks.network import Network

    real, calls = Network.run, []

    def off_at_times(self, *arguments, **named):  # type: ignore[no-untyped-def]
        calls.append(self)
        result = real(self, *arguments, **named)
        result.logits.data += 0.1 * (len(calls) % 2)
        return result

    monkeypatch.setattr(Network, "run", off_at_times)
    with pytest.raises(AssertionError, match="logits of vit"):
        CHECKS["families as on a CPU"]("cpu")
