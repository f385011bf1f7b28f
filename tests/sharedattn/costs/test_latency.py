"""Latencies are times of whole forwards."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sharedattn.backbones import build
from sharedattn.costs import latency
from sharedattn.costs.latency import LatencySetting, measure_network
from sharedattn.costs.timing import Timing
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.testing.tiny_backbones import tiny_backbone

VIT = tiny_backbone("vit")
SETTING = LatencySetting(
    device="cpu",
    device_name="a processor",
    threads=1,
    torch_version="2.14",
    dtype="float32",
    batch_size=3,
)


def test_what_is_timed_is_a_forward_of_the_stand_alone_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a device whose time is what torch's counter counts."""

    def time_call(step: Callable[[], object], device: str) -> Timing:
        with FlopCounterMode(display=False) as counter:
            step()
        return Timing(float(counter.get_total_flops()), repeats=31)

    monkeypatch.setattr(latency, "time_call", time_call)
    for text in ("V3", "V1L1", "V1E1/s3/dia1"):
        placement = Placement.parse(text)
        network = build(NetworkSpec(VIT, placement)).eval()
        shape = (SETTING.batch_size, VIT.in_chans, *network.shape.image_size)
        images_BCYX = torch.zeros(shape)
        with torch.inference_mode():
            counted = time_call(partial(network, images_BCYX), "cpu").median_ms
        assert measure_network(NetworkSpec(VIT, placement), SETTING).median_ms == counted > 0


def test_a_real_measurement_leaves_torch_as_it_was() -> None:
    before = torch.get_rng_state()
    timing = measure_network(
        NetworkSpec(VIT, Placement.parse("V1L1")), LatencySetting.here("cpu", 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert timing.repeats == 31
    assert 0 < timing.median_ms < 1000
    assert timing.peak_bytes is None


def test_a_setting_says_what_latencies_depend_on() -> None:
    setting = LatencySetting.here("cpu", 5)
    assert setting.to_json() == {
        "device": "cpu",
        "device_name": setting.device_name,
        "threads": torch.get_num_threads(),
        "torch_version": torch.__version__,
        "dtype": "float32",
        "batch_size": 5,
    }
    assert str(SETTING) == "a processor, 1 thread, float32, batch of 3, torch 2.14"
    with pytest.raises(InputError, match="`batch_size` of a latency is 0; give 1 or more"):
        LatencySetting.here("cpu", 0)
