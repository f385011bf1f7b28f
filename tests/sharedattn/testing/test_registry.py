from __future__ import annotations

from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import (
    Branch,
    BranchCall,
    BranchResult,
    Channel,
    NumberOption,
    PartCost,
)
from sharedattn.mechanisms.registry import registry
from sharedattn.placement import Placement
from sharedattn.testing import registered


class Mixer(Branch):
    letter = "M"
    name = "mixer"
    title = "made-up mixing"
    rank = 15
    options = (NumberOption(name="width", key="mixer_width", code="w", default=3),)
    leaves = (Channel("mixed", lambda stage, has_bias: 1),)

    def run(self, call: BranchCall) -> BranchResult:
        raise AssertionError("no test here runs it")

    def cost(self, *arguments: Any, **keywords: Any) -> PartCost:
        raise AssertionError("no test here asks for it")


class Wider(Mixer):
    options = (NumberOption(name="width", key="mixer_width", code="w", default=7),)


def entries() -> list[list[str]]:
    known = registry()
    return [list(d) for d in (known.branches, known.gates, known.plugins, known.channels)]


def test_parts_are_registered_for_a_while() -> None:
    before = entries()
    with registered(Mixer()):
        assert list(registry().branches) == ["V", "L", "E", "N", "X", "S", "M"]
        by_rank = [branch.letter for branch in registry().by_rank]
        assert by_rank == ["E", "M", "V", "L", "S", "N", "X"]
        assert "mixed" in registry().channels
        assert Placement.parse("M1V1").layers[0].option("width") == 3
    assert entries() == before
    with pytest.raises(InputError, match="'M' is no kind of layer here"):
        Placement.parse("M1V1")


def test_what_is_remembered_of_parts_is_forgotten() -> None:
    for part, width in ((Mixer(), 3), (Wider(), 7)):
        with registered(part):
            placement = Placement.parse("M1V1/w5")
            assert str(placement) == "M1V1/w5"
            assert Placement.parse("M1V1").layers[0].option("width") == width
    with pytest.raises(InputError, match="'M' is no kind of layer here"):
        Placement.from_json([[["M", None, None, None, None, {"options": {"width": 5}}]]])


def test_a_test_that_fails_leaves_nothing_behind() -> None:
    before = entries()
    with pytest.raises(ZeroDivisionError), registered(Mixer()):
        raise ZeroDivisionError
    assert entries() == before


def test_a_part_that_takes_what_is_taken_is_refused() -> None:
    class Taking(Mixer):
        letter = "Q"
        name = "taker"
        rank = 17
        options = (NumberOption(name="slots", key="slots", code="z", default=3),)

    class Reserved(Mixer):
        options = (NumberOption(name="cb", key="own_cb", code="z", default=3),)

    class Keyed(Mixer):
        options = (NumberOption(name="own", key="counts", code="z", default=3),)

    class Named(Mixer):
        name = "dia"

    class Mlp(Mixer):
        name = "mlp"

    class Gated(Mixer):
        options = (NumberOption(name="dia", key="own_dia", code="z", default=3),)

    before = entries()
    for part, message in (
        (Named(), "takes the name dia, which gate dia of sharedattn has"),
        (Mlp(), "has the name 'mlp', which is reserved"),
        (Gated(), "names an option 'dia', which is reserved"),
        (Taking(), "takes the key slots, which branch E of sharedattn has"),
        (Reserved(), "names an option 'cb', which is reserved"),
        (Keyed(), "registers the key counts, which is reserved"),
    ):
        with pytest.raises(InputError, match=message), registered(part):
            pass
    with pytest.raises(InputError, match="takes the letter M, which branch M of sharedattn has"):
        with registered(Mixer(), Wider()):
            pass
    assert entries() == before
