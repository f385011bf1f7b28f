"""Images that are not square: every family's cost, weights and extraction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import contract
import pytest
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor
from torch.nn import functional as F

from sharedattn.backbones import build, build_network, canonical, describe
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.less import diagonality
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.testing.mechanisms import check_costs, check_extraction
from sharedattn.testing.placements import random_placements
from sharedattn.testing.tiny_backbones import RECTANGLES, TINY, tiny_backbone
from sharedattn.weights.interpolate import at_image_size, resampling
from sharedattn.weights.pretrained import load_pretrained

WITH_OPTIONS = {
    "class tokens": tiny_backbone("vit", "class_token_in_mean=false,reg_tokens=3", "12x44"),
    "clipped windows": tiny_backbone("swin", "handover=previous", "4x30"),
    "residual": tiny_backbone("pvt_v2", "attention_residual=true", "24x40"),
    "gates": tiny_backbone("resnet_cifar", "bn=shared,gate_norm=true,se_reduction=3", "11x5"),
}
VIT = "vit(depth=2,embed_dim=22,num_heads=2,patch_size=5,in_chans=2,num_classes=3)"


def test_every_family_has_rectangles() -> None:
    assert RECTANGLES.keys() == TINY.keys()
    for name, sizes in RECTANGLES.items():
        for size in sizes:
            rows, columns = describe(tiny_backbone(name, size=size)).stages[0].grid
            assert rows != columns, (name, size)


@pytest.mark.parametrize("name", TINY)
def test_closed_forms_equal_both_counters(name: str) -> None:
    """`benchmarks/rectangle_referees.py` compares 50 placements of each size."""
    backbone = tiny_backbone(name, size=RECTANGLES[name][0])
    check_costs(backbone, random_placements(backbone, 11, 5))


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_closed_forms_with_options(name: str) -> None:
    check_costs(WITH_OPTIONS[name], random_placements(WITH_OPTIONS[name], 12, 5))


def test_external_attention_after_convolutions() -> None:
    placements = [Placement.parse(text) for text in ("E1V2 | V1E1", "V1E2/s3/se | E2/dia1")]
    check_costs(tiny_backbone("resnet", "se_reduction=3", "45x61"), placements)


def test_the_diagonality_of_rectangular_grids() -> None:
    """7 x 5 tokens have maps of 35 x 35, whose diagonal is that of tokens."""
    backbone = tiny_backbone("vit", size="28x20")
    network = contract.randomised(build(NetworkSpec(backbone, Placement.parse("V1L2"))))
    with torch.no_grad():
        run = network.run(contract.random_images(backbone), collect={"attention", "diagonality"})
    assert run.attention is not None and run.diagonality is not None
    maps = [map_BHNM for map_BHNM in run.attention[1:] if map_BHNM is not None]
    assert [map_BHNM.shape[-2:] for map_BHNM in maps] == [(35, 35)] * 2
    torch.testing.assert_close(run.diagonality, sum(map(diagonality, maps)) / 2)


@pytest.mark.parametrize("name", TINY)
def test_shared_weights_extract(name: str) -> None:
    backbone = tiny_backbone(name, size=RECTANGLES[name][-1])
    check_extraction(backbone, random_placements(backbone, 13, 2))


@pytest.mark.parametrize("name", ["vit", "pvt", "swin", "resnet"])
def test_a_turned_image_costs_the_same(name: str) -> None:
    size = RECTANGLES[name][0]
    turned = "x".join(reversed(size.split("x")))
    for placement in random_placements(tiny_backbone(name, size=size), 14, 3):
        costs = [CostModel(tiny_backbone(name, size=s)).cost(placement) for s in (size, turned)]
        assert costs[0].macs == costs[1].macs and costs[0].params == costs[1].params


def test_cost_of_a_vit_by_hand() -> None:
    """7 x 3 patches and a class token are N = 22 tokens of D = 22 channels."""
    backbone = BackboneSpec.parse(f"{VIT}@35x15")
    cost = CostModel(backbone).cost(Placement.parse("V2"))
    N, D = 22, 22
    block = 4 * N * D * D + 2 * N * N * D + 2 * N * D * 4 * D + 2 * 5 * N * D
    assert cost.macs == 21 * 2 * 5**2 * D + 2 * block + 5 * N * D + D * 3
    assert cost.to_json()["image_size"] == [35, 15] and f"{cost.image_size}" == "35x15"


def test_windows_end_where_the_grid_does() -> None:
    """A grid of 1 x 11 has windows of 1 x 2, shifted along the columns alone."""
    backbone = tiny_backbone("swin", size="2x22")
    shape = describe(backbone)
    assert [stage.grid for stage in shape.stages] == [(1, 11), (1, 6)]
    assert [stage.attention.key_grid for stage in shape.stages] == [(1, 2), (1, 2)]
    assert [stage.attention.num_windows for stage in shape.stages] == [6, 3]
    assert shape.stages[1].attention.score_groups == (0, 1, 0)
    assert canonical(backbone) == backbone


@pytest.mark.parametrize(
    ("text", "cut", "use"),
    [
        ("vit@24x40", "8 rows and columns", "use 16x32 or 32x48"),
        ("vit@32x40", "8 columns", "use 32x32 or 32x48"),
        ("pvt_small@800x1281", "column", "use 800x1280 or 800x1312"),
        ("swin_base_patch4_window12_384@225x226", "row and 2 columns", "use 224x224 or 228x228"),
    ],
)
def test_sizes_that_cut_off_pixels(text: str, cut: str, use: str) -> None:
    with pytest.raises(InputError, match=f"the last {cut} of pixels .*; {use}$"):
        describe(BackboneSpec.parse(text))


def test_images_of_another_shape_are_refused() -> None:
    network = build(NetworkSpec.parse(f"{VIT}@15x25: V1"))
    with pytest.raises(InputError, match="has 25 x 15 pixels, but the network takes 15 x 25"):
        network(torch.zeros(1, 2, 25, 15))


def resize(length: int, new: int) -> Tensor:
    """The matrix that resizes a line, as images are resized."""
    basis = torch.eye(length, dtype=torch.float64).reshape(1, length, 1, length)
    return (
        F.interpolate(basis, size=(1, new), mode="bicubic", antialias=True)[0, :, 0]
        .t()
        .contiguous()
    )


def kronecker(old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """R of a class token and a grid: the rows' matrix times the columns'."""
    rows, columns = resize(old[0], new[0]), resize(old[1], new[1])
    grid = torch.einsum("ab,cd->acbd", rows, columns)
    grid = grid.reshape(new[0] * new[1], old[0] * old[1])
    return torch.block_diag(torch.ones(1, 1, dtype=torch.float64), grid)


@pytest.mark.parametrize("new", [(7, 3), (5, 1), (1, 5), (2, 11)])
@pytest.mark.parametrize("old", [(3, 3), (2, 1), (1, 2), (4, 7)])
def test_rows_and_columns_are_resampled_apart(old: tuple[int, int], new: tuple[int, int]) -> None:
    torch.testing.assert_close(resampling(1, old, new), kronecker(old, new))


def test_maps_over_tokens_follow_rows_and_columns() -> None:
    """R is the Kronecker product of the resampling of rows and that of columns."""
    network = contract.randomised(build(NetworkSpec.parse(f"{VIT}@15: V1L1")))
    wide = at_image_size(network, (15, 35))
    assert wide.shape.image_size == (15, 35) and wide.shape.stages[0].grid == (3, 7)
    there, back = (kronecker((3, 3), (3, 7)), kronecker((3, 7), (3, 3)))
    for side in ("psi", "theta"):
        old, new = (getattr(n.block(0, 1).less, side) for n in (network, wide))
        torch.testing.assert_close(new, there @ old @ back)
    images = torch.randn(2, 2, 15, 35, dtype=torch.float64)
    assert wide(images).shape == (2, 3)
    again = at_image_size(wide, (15, 35))
    assert torch.equal(again(images), wide(images))


@pytest.mark.parametrize("name", ["vit", "pvt", "pvt_v2", "t2t_ea", "deepvit", "ceit", "resnet"])
def test_networks_become_rectangular(name: str) -> None:
    square = "32" if name == "pvt" else "21" if name == "t2t_ea" else "20"
    placements = random_placements(tiny_backbone(name, size=square), 15, 2)
    network = build_network(tiny_backbone(name, size=square), Envelope.of(*placements))
    wide = at_image_size(network.eval(), ImageSize.parse(RECTANGLES[name][0]))
    images = torch.randn(2, 1, *wide.shape.image_size)
    for placement in placements:
        assert wide(images, placement).isfinite().all()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Network], Path]:
    def save(network: Network) -> Path:
        path = tmp_path / "weights.safetensors"
        save_file(network.state_dict(), path)
        return path

    return save


def test_square_positions_are_resampled_as_timm_does(tmp_path: Path) -> None:
    sizes = {"patch_size": 5, "embed_dim": 22, "depth": 2, "num_heads": 2, "num_classes": 3}
    square, wide = (
        VisionTransformer(img_size=size, in_chans=2, **sizes).eval() for size in (20, (15, 35))
    )
    path = tmp_path / "square.safetensors"
    save_file(square.state_dict(), path)
    wide.load_state_dict(checkpoint_filter_fn(dict(square.state_dict()), wide))
    backbone = BackboneSpec.parse(f"{VIT}@15x35")
    network = build(NetworkSpec(backbone, Placement.parse("V2"))).eval()
    network.load_state_dict(load_pretrained(path, backbone))
    images = torch.randn(2, 2, 15, 35)
    with torch.no_grad():
        torch.testing.assert_close(network(images), wide(images), rtol=1e-4, atol=1e-5)


def test_positions_of_one_grid_or_another(saved: Callable[[Network], Path]) -> None:
    """4 x 9 patches are as many as 6 x 6."""
    backbone = BackboneSpec.parse(f"{VIT}@20x45")
    path = saved(build(NetworkSpec(backbone, Placement.parse("V2"))))
    with pytest.raises(InputError, match="as images of 30 x 30 pixels have patches, and"):
        load_pretrained(path, backbone)
    # 3 x 7 patches are no square.
    backbone = BackboneSpec.parse(f"{VIT}@15x35")
    network = build(NetworkSpec(backbone, Placement.parse("V2")))
    loaded = load_pretrained(saved(network), backbone)
    assert all(torch.equal(loaded[name], own) for name, own in network.state_dict().items())


def test_position_biases_of_clipped_windows() -> None:
    """From windows of 3 x 3 to those of 2 x 3, as timm resamples square tables, and back."""
    text = "swin(depths=2-2,embed_dim=6,num_heads=1-3,patch_size=2,window_size=3-3,in_chans=1)"
    network = build(NetworkSpec.parse(f"{text}@24: V2 | V2"))
    wide = at_image_size(network, (8, 22))
    name = "layers.1.blocks.0.attn.relative_position_bias_table"
    old, new = network.state_dict()[name], wide.state_dict()[name]
    assert wide.shape.stages[1].attention.key_grid == (2, 3) and new.shape == (3 * 5, 3)
    expected = resize_rel_pos_bias_table_simple(old, (2, 3), (15, 3))
    torch.testing.assert_close(new, expected)
    back = at_image_size(wide, 24).state_dict()[name]
    table_1HYX = new.t().reshape(1, 3, 3, 5)
    expected = F.interpolate(table_1HYX, size=(5, 5), mode="bicubic")[0].flatten(1).t()
    torch.testing.assert_close(back, expected)
