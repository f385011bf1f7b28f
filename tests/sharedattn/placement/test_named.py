"""The pyramids that stand for LaViT's models, held to the figures that the paper prints."""

from __future__ import annotations

import pytest

from sharedattn.backbones import resolve
from sharedattn.costs.flop_conventions import counted
from sharedattn.placement import NetworkSpec
from sharedattn.placement.named import LAVIT_LIKE

PRINTED = {
    # Millions of params, thousand millions of MACs.
    "lavit_like_t": (10.9, 1.6),
    "lavit_like_s": (22.4, 3.3),
}


@pytest.mark.parametrize("name", PRINTED)
def test_they_print_as_the_paper_does(name: str) -> None:
    total = counted(NetworkSpec.parse(name), maps="free")
    assert (round(total.params / 1e6, 1), round(total.macs / 1e9, 1)) == PRINTED[name]
    assert total.params / 1e6 == pytest.approx(PRINTED[name][0], rel=0.002)
    assert total.macs / 1e9 == pytest.approx(PRINTED[name][1], rel=0.002)


def test_the_base_is_what_the_figures_were_read_as() -> None:
    spec = NetworkSpec.parse("lavit_like_b")
    total = counted(spec, maps="free", norms=False)
    assert total.params / 1e6 == pytest.approx(39.66, rel=0.005)
    assert total.macs / 1e9 == pytest.approx(6.13, rel=0.005)
    # The honest figures: with its maps, as they are run and as the paper prints them.
    assert counted(spec).params - total.params == 17 * 49**2 + 2 * 2 * 50**2
    printed = counted(spec, maps="paper", norms=False)
    in_stage_3 = 17 * 5 * 196 * 49 * (196 + 49)
    assert printed.macs - total.macs == in_stage_3 + 2 * 8 * 2 * 50**3


@pytest.mark.parametrize("name", LAVIT_LIKE)
def test_they_are_placed_alike(name: str) -> None:
    spec = NetworkSpec.parse(f" {name} ")
    assert spec == NetworkSpec.parse(LAVIT_LIKE[name]) == resolve(spec)
    for i, stage in enumerate(spec.placement.stages):
        less = [choice.kind == "L" for choice in stage]
        assert less == [False] + [i >= 2] * (len(stage) - 1)
