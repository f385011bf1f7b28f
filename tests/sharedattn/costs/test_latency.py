"""Predicted latencies are sums of parts, in every family, and are used only where they hold."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from contract import random_placements
from torch.utils.flop_counter import FlopCounterMode

from sharedattn.backbones import describe
from sharedattn.costs import latency
from sharedattn.costs.latency import (
    MAX_ERROR,
    LatencyCheck,
    LatencySetting,
    LatencyTable,
    measure_network,
    measure_table,
    part_names,
)
from sharedattn.costs.timing import Timing
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, Placement
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone

VIT = tiny_backbone("vit")
SETTING = LatencySetting(
    device="cpu",
    device_name="a processor",
    threads=1,
    torch_version="2.14",
    dtype="float32",
    batch_size=3,
)
MADE_UP = LatencyTable(
    backbone=VIT,
    setting=SETTING,
    shape=describe(VIT),
    parts={"stem": 2.0, "layer 1.0 V": 3.0, "layer 1.0 L/cb": 5.0, "head": 7.0},
    factor=0.5,
    repeats=93,
)


def check(*measured_ms: float) -> LatencyCheck:
    return LatencyCheck(placement="V1", predicted_ms=10.0, measured_ms=measured_ms)


@pytest.fixture
def flops_as_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose time is what torch's counter counts: exact, and additive over parts."""

    def time_call(step: Callable[[], object], device: str) -> Timing:
        with FlopCounterMode(display=False) as counter:
            step()
        return Timing(float(counter.get_total_flops()), repeats=31)

    monkeypatch.setattr(latency, "time_call", time_call)
    monkeypatch.setattr(latency, "SESSION_GAP_S", 0.0)


def test_parts_stand_in_the_order_in_which_they_run() -> None:
    swin = describe(tiny_backbone("swin"))
    assert part_names(swin, Placement.parse("V1/dia1 | V,E/s3/cb,L/d0")) == [
        "stem",
        "layer 1.0 V/d0",
        "entry 2",
        "layer 2.0 V",
        "layer 2.1 E/s3/cb",
        "layer 2.0 L/d0",
        "head",
    ]


def test_layers_of_shifted_windows_are_parts_of_their_own() -> None:
    shape = describe(BackboneSpec.parse("swin(depths=2-2,window_size=4-4)@64"))
    layers = [n for n in part_names(shape, Placement.parse("V2 | V2")) if "layer" in n]
    assert layers == ["layer 1.0 V", "layer 1.1 V", "layer 2.0 V", "layer 2.1 V"]


def test_which_cell_gates_a_layer_makes_no_part() -> None:
    names = part_names(describe(VIT), Placement.parse("V3/dia3"))
    assert names == ["stem", *3 * ["layer 1.0 V/d0"], "head"]


def test_a_prediction_is_the_scaled_sum_of_parts() -> None:
    assert MADE_UP.predict_ms(Placement.parse("V,V,L/cb")) == 0.5 * (2 + 3 + 3 + 5 + 7)


def test_a_part_that_was_not_measured() -> None:
    placement = Placement.parse("V1L1")
    assert not MADE_UP.holds(placement)
    assert MADE_UP.holds(Placement.parse("V1"))
    with pytest.raises(InputError, match=r"holds every part.*lacks layer 1\.0 L; measure"):
        MADE_UP.predict_ms(placement)


def test_the_error_of_a_check_is_its_worst_session() -> None:
    assert check(10.0, 8.0, 12.5).error == 0.25
    assert check(10.0).error == 0.0


@pytest.mark.parametrize(
    ("checks", "is_trusted"),
    [
        ((check(10.4), check(9.6)), True),
        ((check(10.4), check(10.0, 9.5)), False),  # 0.5 / 9.5 is beyond 0.05
        ((), False),
    ],
)
def test_a_table_is_trusted_where_every_check_holds(
    checks: tuple[LatencyCheck, ...], is_trusted: bool
) -> None:
    assert MAX_ERROR == 0.05
    assert replace(MADE_UP, checks=checks).is_trusted is is_trusted


@pytest.mark.usefixtures("flops_as_ms")
@pytest.mark.parametrize("family", sorted(TINY))
def test_parts_of_every_family_add_up_to_the_network(family: str) -> None:
    backbone = tiny_backbone(family)
    scale, *others = random_placements(backbone, 11, 6)
    table = measure_table(backbone, SETTING, hosts=others[2:], scale=scale, checked=others[:2])
    assert table.factor == pytest.approx(1.0, abs=1e-12)
    assert [check.placement for check in table.checks] == list(map(str, others[:2]))
    assert table.worst_error < 1e-12
    assert table.is_trusted
    whole = measure_network(backbone, others[3], SETTING).median_ms
    assert table.predict_ms(others[3]) == pytest.approx(whole, rel=1e-12)


@pytest.mark.usefixtures("flops_as_ms")
def test_parts_that_are_known_are_not_measured_again() -> None:
    names = ("V2", "V1L1", "E1/s3")
    scale, host, checked = map(Placement.parse, names)
    known = {"stem": 1e6, "layer 1.0 V": 1e9}
    table = measure_table(VIT, SETTING, hosts=[host], scale=scale, checked=[checked], known=known)
    assert {name: table.parts[name] for name in known} == known
    assert set(table.parts) == {*known, "layer 1.0 L", "layer 1.0 E/s3", "head"}
    assert table.factor < 1e-3
    assert [len(check.measured_ms) for check in table.checks] == [3]


def test_a_real_measurement_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SESSION_GAP_S", 0.0)
    setting = LatencySetting.here("cpu", 2)
    before = torch.get_rng_state()
    table = measure_table(
        VIT, setting, hosts=[], scale=Placement.parse("V3"), checked=[Placement.parse("V1")]
    )
    timing = measure_network(VIT, Placement.parse("V1L1"), setting)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert table.repeats == 3 * timing.repeats
    assert min(table.parts.values()) > 0
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
    with pytest.raises(InputError, match="latency batch size >= 1"):
        LatencySetting.here("cpu", 0)
