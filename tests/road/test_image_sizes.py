"""An image size of which the last rows and columns of pixels reach nothing is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sharedattn.backbones import build, describe, resolve
from sharedattn.backbones import registry as backbones
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.results.export.folder import load_network
from sharedattn.search.cli.main import main
from sharedattn.weights.extract import extract
from sharedattn.weights.interpolate import at_image_size

# A name of each family and own size; the 154 accepted names of timm 1.0.31 were gone through.
TIMMS_NAMES = (
    "deit3_small_patch16_384",
    "deit_tiny_patch16_224",
    "pvt_v2_b0",
    "swin_base_patch4_window12_384",
    "swin_s3_tiny_224",
    "vit_base_patch14_dinov2",
    "vit_base_patch32_clip_448",
    "vit_tiny_patch16_384",
)
OPTIONS = "in_chans=1,num_classes=3"
TINY = {
    "vit": "vit(depth=1,embed_dim=8,num_heads=2,patch_size=4",
    "deepvit": "deepvit(depth=1,embed_dim=8,num_heads=2,patch_size=3",
    "hvt": "hvt(depth=3,embed_dim=8,num_heads=2,pool_block_width=3,patch_size=3",
    "swin": "swin(depths=1-1,embed_dim=4,num_heads=1-1,patch_size=3,window_size=2-2",
    "ceit, small patches": "ceit(depth=1,embed_dim=8,num_heads=2,patch_size=1",
    "ceit": "ceit(depth=1,embed_dim=8,num_heads=2,patch_size=2",
    "t2t_ea": "t2t_ea(depth=1,embed_dim=8,num_heads=2,token_dim=4",
    "pvt": "pvt(depths=1-1-1,embed_dims=4-4-4,mlp_ratios=1-1-1,num_heads=1-1-1,sr_ratios=4-2-1",
    "pvt, few keys": "pvt(depths=1-1,embed_dims=4-4,mlp_ratios=1-1,num_heads=1-1,sr_ratios=3-1",
    "pvt_v2": "pvt_v2(depths=1-1,embed_dims=4-4,mlp_ratios=1-1,num_heads=1-1,sr_ratios=2-1",
    "resnet": "resnet(depths=1-1,widths=6-10",
    "resnet_cifar": "resnet_cifar(depths=1-1,inner_widths=6-10,widths=6-10",
    "unet2d": "unet2d(head_dim=3,layers_per_block=1,norm_groups=3,widths=6-9-12",
}
"""Each with the sizes of `SIZES`; every family has an entry."""

SEE_ALL = ("pvt_v2", "ceit, small patches", "resnet", "resnet_cifar", "unet2d")
"""Those that no size cuts pixels off; a UNet cannot run at one that is not halved evenly."""

SIZES = (16, 17, 18, 19, 20, 21, 22, 24, 27, 28, 31, 36, 40)


def seen_pixels(backbone: BackboneSpec, size: int) -> int:
    """Rows of pixels that some logit has a gradient to; columns must be as many."""
    torch.manual_seed(0)
    placement = Placement.all_vanilla(describe(backbone, recorded=True).depths)
    network = build(resolve(NetworkSpec(backbone, placement), recorded=True)).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    images = torch.randn(24, 1, size, size, dtype=torch.float64, requires_grad=True)
    said = network(images)
    (said * torch.randn(said.shape)).sum().backward()
    assert images.grad is not None
    seen = images.grad.abs().sum((0, 1)) > 0
    side = int(seen.any(1).nonzero().max()) + 1
    # A square, with nothing left out inside.
    assert seen[:side, :side].all() and int(seen.sum()) == side**2
    return side


def test_every_family_is_examined() -> None:
    assert {text.partition("(")[0] for text in TINY.values()} == {
        family.base_name for family in backbones.FAMILIES
    }


@pytest.mark.parametrize("name", TINY)
def test_what_is_refused_is_what_no_logit_depends_on(name: str) -> None:
    refused = []
    for size in SIZES:
        backbone = BackboneSpec.parse(f"{TINY[name]},{OPTIONS})@{size}")
        try:
            num_cut = size - seen_pixels(backbone, size)
        except InputError:
            # Too small for the family, whatever is cut.
            continue
        if not num_cut:
            assert describe(backbone).image_size == (size, size)
            continue
        refused.append(size)
        last = "row and column" if num_cut == 1 else f"{num_cut} rows and columns"
        with pytest.raises(
            InputError, match=f"{size} does not fit .* the last {last} of"
        ) as error:
            describe(backbone)
        # What it proposes is nearest on both sides, and fits.
        proposed = [int(number) for number in re.findall(r"\d+", str(error.value).split("use")[1])]
        assert proposed and all(abs(other - size) <= 16 for other in proposed)
        for other in proposed:
            fitting = BackboneSpec.parse(f"{TINY[name]},{OPTIONS})@{other}")
            assert describe(fitting).image_size == (other, other)
            assert seen_pixels(fitting, other) == other
    # Overlapping stems see every pixel, and so do the smallest of CeiT's.
    assert bool(refused) == (name not in SEE_ALL)


COMMANDS: list[tuple[str, str, str, str]] = [
    ("deit_tiny_patch16_224@100", "V12", "last 4 rows and columns", "use 96 or 112"),
    ("deit_tiny_patch16_224@17", "V12", "last row and column", "use 16 or 32"),
    ("deit_tiny_patch16_224(patch_size=15)", "V12", "224 does not fit", "use 210 or 225"),
    ("vit(patch_size=14)@520", "V12", "last 2 rows", "use 518 or 532"),
    ("deepvit_16b@230", "V16", "last 6 rows", "use 224 or 240"),
    ("hvt@230", "V1|V4|V4|V3", "last 6 rows", "use 224 or 240"),
    ("swin_tiny_patch4_window7_224@226", "V2|V2|V6|V2", "last 2 rows", "use 224 or 228"),
    ("pvt_tiny@240", "V2|V2|V2|V2", "last 16 rows", "use 224 or 256"),
    ("t2t_ea_7@30", "V7", "last row and column", "use 29 or 31"),
    ("ceit_tiny@228", "V12", "last 2 rows", "use 226 or 237"),
]


@pytest.mark.parametrize(("backbone", "placement", "cut", "use"), COMMANDS)
def test_cost_ends_with_the_sizes_that_fit(
    backbone: str, placement: str, cut: str, use: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", f"{backbone}: {placement}"]) == 2
    captured = capsys.readouterr()
    assert not captured.out and "Traceback" not in captured.err
    assert cut in captured.err and captured.err.strip().endswith(use)


SPACE = """\
name: cut
backbone: vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,\
num_heads=2,patch_size=5)@16
order: any
stages:
  - {depth: 1..2, counts: {V: 0..2, L: 0..1}}
"""


@pytest.mark.parametrize("command", ["space", "search", "train", "analyze"])
def test_no_command_begins_work_at_such_a_size(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "cut.yaml"
    space.write_text(SPACE)
    network = SPACE.split("backbone: ")[1].split("\n")[0] + ": V2"
    out = tmp_path / "out"
    arguments = {
        "space": [str(space)],
        "search": [str(space), "--out", str(out), "--trials", "2"],
        "train": [network, "--to", str(out)],
        "analyze": [network],
    }[command]
    code = main([command, *arguments])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert "last row and column of pixels would be cut off; use 15 or 20" in captured.err
    assert not out.exists()


def test_names_of_timms_go_on_as_timm_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all accepted names one cuts off pixels at its own size: 384 in patches of 14."""
    name = "vit_so400m_patch14_siglip_gap_384"
    for text in (name, f"{name}@384"):
        assert describe(BackboneSpec.parse(text)).image_size == (384, 384)
    assert main(["cost", f"{name}: V27"]) == 0
    for text, use in (
        (f"{name}@380", "378 or 392"),
        (f"{name}(patch_size=15)@384", "375 or 390"),
        (f"{name}@385", "378 or 392"),
    ):
        with pytest.raises(InputError, match=f"use {use}"):
            describe(BackboneSpec.parse(text))
    capsys.readouterr()


@pytest.mark.parametrize("name", [*sorted(backbones._own_names()), *TIMMS_NAMES])
def test_names_at_their_own_sizes(name: str) -> None:
    size = describe(BackboneSpec(name=name)).image_size
    assert describe(BackboneSpec(name=name, image_size=size)).image_size == size


@pytest.mark.slow
@pytest.mark.usefixtures("trials_run_here")
def test_networks_that_exist_at_such_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study from before is shown, and an export from before opened and verified."""
    space = tmp_path / "cut.yaml"
    space.write_text(SPACE)
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"V2": 0.9, "V1L1": 0.8, "V1": 0.7}))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 1\nbatch_size: 64\nwarmup_epochs: 0\n")
    out, export = tmp_path / "out", tmp_path / "export"
    network = SPACE.split("backbone: ")[1].split("\n")[0] + ": V1L1"
    with monkeypatch.context() as before:
        before.setattr(backbones, "_check_seen", lambda *_: None)
        backbones.describe.cache_clear()
        arguments = [
            "search",
            str(space),
            "--evaluator",
            "table",
            "--table",
            str(table),
            "--out",
            str(out),
        ]
        assert main([*arguments, "--trials", "3", "--study", "old"]) == 0
        arguments = ["train", network, "--recipe", str(recipe), "--to", str(export)]
        assert main(arguments) == 0, capsys.readouterr().err
    backbones.describe.cache_clear()
    capsys.readouterr()
    with pytest.raises(InputError, match="use 15 or 20"):
        describe(NetworkSpec.parse(network).backbone)
    assert main(["front", "old", "--out", str(out), "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {member["placement"] for member in shown["front"]} >= {"V2"}
    assert main(["report", "old", "--out", str(out)]) == 0
    assert main(["verify", str(export)]) == 0
    opened, images = load_network(export), torch.randn(2, 1, 16, 16)
    assert opened.only_placement is not None
    assert torch.equal(extract(opened, opened.only_placement)(images), opened(images))
    assert at_image_size(opened, 20).shape.stages[0].grid == (4, 4)
    with pytest.raises(InputError, match="use 15 or 20"):
        at_image_size(opened, 17)
    capsys.readouterr()


def test_recorded_networks_cost_what_they_did() -> None:
    spec = NetworkSpec.parse("deit_tiny_patch16_224@100: V12")
    cost = CostModel(spec.backbone, recorded=True).cost(spec.placement)
    at_96 = CostModel(BackboneSpec.parse("deit_tiny_patch16_224@96")).cost(spec.placement)
    assert (cost.params, cost.macs) == (at_96.params, at_96.macs)
    for refused in (lambda: CostModel(spec.backbone), lambda: build(spec)):
        with pytest.raises(InputError, match="use 96 or 112"):
            refused()
