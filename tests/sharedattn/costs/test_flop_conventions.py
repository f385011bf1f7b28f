"""Other conventions of counting, by their terms and against figures of the four papers' bases."""

from __future__ import annotations

import itertools

import pytest

from sharedattn.costs.flop_conventions import counted
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import PartCost
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.shape import StageShape

PYRAMID = (
    "pvt(depths=2-3-2,embed_dims=6-10-14,num_heads=3-2-1,sr_ratios=2-1-1,mlp_ratios=1-1-1)@48"
)
PLACEMENT = "V1L1 | V1L2/lowrank3 | V1E1/s3"


def figures(text: str, **convention: object) -> tuple[int, int]:
    total = counted(NetworkSpec.parse(text), **convention)
    return total.params, total.macs


def sizes(stage: StageShape) -> tuple[int, int, int, int]:
    attention = stage.attention
    return attention.num_queries, attention.num_keys, stage.embed_dim, stage.num_heads


def test_the_defaults_are_the_cost() -> None:
    model = CostModel(BackboneSpec.parse(PYRAMID))
    cost = model.cost(Placement.parse(PLACEMENT))
    assert figures(f"{PYRAMID}: {PLACEMENT}") == (cost.params, cost.macs)
    without_norms = figures(f"{PYRAMID}: {PLACEMENT}", norms=False)
    assert without_norms == (cost.params, cost.matmul_macs)


@pytest.mark.parametrize("residual", [False, True])
def test_maps_by_their_terms(residual: bool) -> None:
    backbone = PYRAMID.replace("depths", "attention_residual=true,depths") if residual else PYRAMID
    model = CostModel(BackboneSpec.parse(backbone))
    assert [sizes(stage) for stage in model.shape.stages] == [
        (144, 36, 6, 3),
        (36, 36, 10, 2),
        (10, 10, 14, 1),
    ]
    text = f"{backbone}: {PLACEMENT}"
    factored, free, printed = (figures(text, maps=maps) for maps in ("factored", "free", "paper"))
    # One layer with keys alone in stage 1, two of rank 3 in stage 2; a residual is mapped too,
    # but into the first stage there is none.
    keys, rank = 36**2, 2 * 3 * (36 + 36)
    bias = 2 * 2 * 3 * 2 * 36 * 36 if residual else 0
    products = 144 * 36 * 6 + 2 * 36 * 36 * 10
    assert factored[0] - free[0] == keys + 2 * rank
    assert factored[1] - free[1] == keys * 6 + 2 * (rank * 10 + bias) + products
    assert printed[0] - free[0] == 144**2 + 36**2 + 2 * 2 * 36**2
    assert printed[1] - free[1] == 3 * 144 * 36 * (144 + 36) + 2 * 2 * 36 * 36 * 72


def test_products_by_their_terms() -> None:
    text = f"{PYRAMID}: {PLACEMENT}"
    vanilla = 2 * (144 * 36 * 6 + 36 * 36 * 10 + 10 * 10 * 14)
    less = 144 * 36 * 6 + 2 * 36 * 36 * 10
    for maps, num_products in (("factored", 2), ("free", 1), ("paper", 1)):
        whole = figures(text, maps=maps)
        part = figures(text, maps=maps, attention_products=False)
        assert whole[0] == part[0]
        assert whole[1] - part[1] == vanilla + num_products * less


def test_what_is_left_out_adds_up() -> None:
    text = f"{PYRAMID}: {PLACEMENT}"
    for maps in ("factored", "free", "paper"):
        macs = {
            (products, norms): figures(text, maps=maps, attention_products=products, norms=norms)[
                1
            ]
            for products, norms in itertools.product((True, False), repeat=2)
        }
        assert macs[True, True] - macs[False, True] == macs[True, False] - macs[False, False] > 0


def test_windows_and_biases_of_positions() -> None:
    text = "swin_tiny_patch4_window7_224: V2 | V2 | V2L4 | V2"
    free, printed, factored = (
        counted(NetworkSpec.parse(text), maps=maps) for maps in ("free", "paper", "factored")
    )
    # 4 windows of 49 tokens, 384 channels in 12 heads; the bias is mapped beside the scores.
    assert printed.macs - free.macs == 4 * 4 * 12 * 2 * 49**3
    products, maps, bias = 4 * 49**2 * 384, 4 * 2 * 49**2 * 384, 2 * 12 * 49**3
    assert factored.macs - free.macs == 4 * (products + maps + bias)
    assert printed.params == factored.params == free.params + 4 * 2 * 49**2


@pytest.mark.parametrize(
    ("text", "maps", "millions", "giga"),
    [
        # Facts of the bases: what each less layer saves with its maps free, and costs as printed.
        ("deit_tiny_patch16_224: V4L8", "free", 5.12, 1.083),
        ("pvt_medium: V3 | V4 | V1L17 | V1L2", "free", 39.66, 6.13),
    ],
)
def test_known_figures(text: str, maps: str, millions: float, giga: float) -> None:
    total = counted(NetworkSpec.parse(text), maps=maps, norms=text.startswith("deit"))
    assert total.params / 1e6 == pytest.approx(millions, abs=0.006)
    assert total.macs / 1e9 == pytest.approx(giga, abs=0.006)


def test_counting_misses_what_the_fused_kernel_does() -> None:
    # fvcore's count of timm's DeiT-T with fused attention, whose handler it lacks.
    whole = counted(NetworkSpec.parse("deit_tiny_patch16_224: V12"))
    missed = counted(NetworkSpec.parse("deit_tiny_patch16_224: V12"), attention_products=False)
    assert missed == PartCost(whole.params, whole.macs - 178_831_872)


def test_a_network_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="write /keys"):
        counted(NetworkSpec.parse("pvt_tiny: V1L1/full | V2 | V2 | V2"), maps="paper")
