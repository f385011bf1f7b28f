"""What less attention saves, by hand and at the break-even."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedattn.backbones import FAMILIES
from sharedattn.costs.break_even import FORMS, _break_even_tokens, less_attention_economics
from sharedattn.costs.model import CostModel
from sharedattn.mechanisms import less, vanilla
from sharedattn.placement import BackboneSpec
from sharedattn.shape import AttentionShape
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone


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


CONVOLUTIONS = ("resnet", "resnet_cifar")
"""Families without attention."""

BACKBONES = (
    *(str(tiny_backbone(name)).replace("@16", "@{}") for name in TINY if name not in CONVOLUTIONS),
    # One window a stage, and several.
    "swin(depths=1-1,embed_dim=22,num_heads=1-2,patch_size=2,window_size=32-32)@{}",
    "swin(depths=1-1,embed_dim=66,num_heads=3-6,patch_size=2,window_size=5-3)@{}",
    "pvt_v2(attention_residual=true,depths=1-1,embed_dims=26-46,mlp_ratios=1-1,num_heads=1-2,"
    "sr_ratios=2-1)@{}",
    "pvt(attention_residual=true,depths=1-1,embed_dims=26-46,mlp_ratios=1-1,num_heads=1-2,"
    "sr_ratios=2-1)@{}",
    # Vanilla layers that mix maps over heads, in a network narrower than two ranks and a wider.
    "deepvit(depth=1,embed_dim=24,num_heads=12,patch_size=4)@{}",
    "deepvit(depth=1,embed_dim=46,num_heads=2,patch_size=4)@{}",
)


def test_every_family_is_here() -> None:
    assert set(TINY) == {family.base_name for family in FAMILIES}


@pytest.mark.parametrize("image_size", [16, 32, 48, 64])
@pytest.mark.parametrize("text", BACKBONES, ids=lambda text: text.partition(",")[0])
def test_the_break_even_says_where_the_cost_model_saves(text: str, image_size: int) -> None:
    costs = CostModel(BackboneSpec.parse(text.format(image_size)))
    for stage in range(len(costs.shape.stages)):
        figures = less_attention_economics(costs, stage)
        for form in (figures.default, *figures.forms):
            if form.break_even_tokens is not None:
                saves = figures.num_queries < form.break_even_tokens
                assert (form.saved_macs > 0) is saves, form


def test_a_bias_brings_the_break_even_down() -> None:
    text = "swin_tiny_patch4_window7_224(window_size=14-14-14-7)"
    costs = CostModel(BackboneSpec.parse(text))
    one_window, four_windows = (less_attention_economics(costs, stage) for stage in (2, 1))
    n, D, H = 196, 384, 12
    assert (one_window.num_windows, one_window.num_queries) == (1, n)
    assert one_window.default.saved_macs == 2 * n * D**2 - 2 * n**2 * D - 2 * H * n**3
    # Full: 2 D^2 = 2 n D + 2 H n^2 at n = 96, where a layer saves nothing. Keys: 2 D^2 = n D +
    # H n^2 at 141.6. Rank 16: 2 D (D - 32) = 64 H n at 352.
    found = {form.form: form.break_even_tokens for form in one_window.forms}
    assert found == {"full": 96, "keys": 142, "lowrank16": 352, "reuse": None}
    # The bias is mapped once for the four: 2 D^2 = 2 n D + 2 (H / 4) n^2 at 105.4.
    assert (four_windows.num_windows, four_windows.embed_dim) == (4, 192)
    assert four_windows.default.break_even_tokens == 106


def test_the_break_even_with_an_attention_residual() -> None:
    text = (
        "pvt_v2(attention_residual=true,depths=1-1,embed_dims=26-46,num_heads=1-2,"
        "mlp_ratios=1-1,sr_ratios=2-2)@64"
    )
    costs = CostModel(BackboneSpec.parse(text))
    assert [costs.has_bias(stage) for stage in range(2)] == [False, True]
    found = [less_attention_economics(costs, stage).default for stage in range(2)]
    assert [form.form for form in found] == ["keys", "keys"]
    # With n = 4 m: 5 m D^2 = m^2 D at m = 5 D.
    assert found[0].break_even_tokens == 4 * 5 * 26
    # And with a residual 5 m D^2 = m^2 D + 4 H m^3, 5 * 46^2 = 46 m + 8 m^2 at m = 33.6.
    assert found[1].break_even_tokens == 135


@given(
    form=st.sampled_from(("full", "keys", "lowrank1", "lowrank7", "reuse")),
    p=st.integers(1, 5),
    q=st.integers(1, 5),
    embed_dim=st.integers(1, 40),
    num_windows=st.integers(1, 40),
    num_bias_heads=st.integers(0, 12),
    mixing_heads=st.sampled_from((0, 2, 5)),
)
def test_the_break_even_of_any_sizes(
    form: str,
    p: int,
    q: int,
    embed_dim: int,
    num_windows: int,
    num_bias_heads: int,
    mixing_heads: int,
) -> None:
    """Against the mechanisms' own costs, at numbers of tokens in the ratio p : q."""
    D, W, H = embed_dim, num_windows, num_bias_heads
    mixing_macs = vanilla.head_mixing_macs(1, 1, mixing_heads)
    ratio = Fraction(p, q)
    saves: dict[int, bool] = {}
    found: set[int | None] = set()
    for times in range(1, 60):
        n, m = ratio.numerator * times, ratio.denominator * times
        own = vanilla.macs(n, D, num_keys=m, num_windows=W)
        own += vanilla.head_mixing_macs(n, m, mixing_heads, num_windows=W)
        reused = less.macs(n, D, num_keys=m, num_windows=W, form=form)
        saves[n] = own > reused + less.bias_macs(form, n, m, H)
        shape = AttentionShape(num_windows=W, num_queries=n, num_keys=m, key_grid=(1, m))
        found.add(_break_even_tokens(form, shape, D, mixing_macs=mixing_macs, num_bias_heads=H))
    [break_even] = found
    if break_even is None:
        # It saves at any number, at none, or from some number on.
        assert list(saves.values()) == sorted(saves.values())
    else:
        assert saves == {n: n < break_even for n in saves}
