"""What less attention saves, by hand and at the break-even."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedattn.attention import less
from sharedattn.cost import CostModel
from sharedattn.economics import FORMS, less_attention_economics
from sharedattn.placement import BackboneSpec
from sharedattn.shape import AttentionShape


def test_on_a_known_backbone() -> None:
    costs = CostModel(BackboneSpec(name="deit_tiny_patch16_224"))
    figures = less_attention_economics(costs, 0)
    N, D = 197, 192
    assert figures.vanilla_macs == 43_951_488
    assert figures.paper_form_macs == less.paper_form_macs(N, D, 3)
    assert figures.default == figures.forms[0]
    by_form = {form.form: form for form in figures.forms}
    assert tuple(by_form) == FORMS
    assert by_form["full"].to_json() == {
        "form": "full",
        "macs": 44_329_728,
        "saved_macs": -378_240,
        "saved_params": 2 * D**2 + 2 * D - 2 * N**2,
        "break_even_tokens": 192,
        "fits": True,
    }
    saved = {form: by_form[form].saved_macs for form in FORMS[1:]}
    assert saved == {
        "keys": 2 * N * D**2 - N**2 * D,
        "lowrank16": 2 * N * D**2 - 4 * 16 * N * D,
        "reuse": 2 * N * D**2,
    }
    assert by_form["keys"].break_even_tokens == 2 * D
    assert by_form["reuse"].break_even_tokens is None
    # Of the forms with maps.
    assert figures.best.form == "lowrank16"


@pytest.mark.parametrize("form", ["full", "keys"])
@pytest.mark.parametrize("image_size", [20, 25, 30, 35])
def test_it_saves_exactly_below_the_break_even(
    tiny: BackboneSpec, image_size: int, form: str
) -> None:
    # 17, 26, 37 and 50 tokens against a width of 22.
    figures = less_attention_economics(CostModel(replace(tiny, image_size=image_size)), 0)
    [of_form] = [f for f in figures.forms if f.form == form]
    assert of_form.break_even_tokens == {"full": 22, "keys": 44}[form]
    assert (of_form.saved_macs > 0) is (figures.num_queries < of_form.break_even_tokens)


@pytest.mark.parametrize("rho", [1, 4, 16])
@pytest.mark.parametrize("form", ["full", "keys"])
def test_the_break_even_with_fewer_keys_than_queries(rho: int, form: str) -> None:
    from sharedattn.economics import _break_even_tokens

    D = 23
    for m in range(1, 60):
        n = rho * m
        sizes = AttentionShape(num_queries=n, num_keys=m, key_grid=(1, m))
        saves = (n + m) * D**2 > less.map_macs(form, n, m, D)
        assert saves is (n < _break_even_tokens(form, sizes, D))
