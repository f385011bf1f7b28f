"""What an export of a UNet holds for diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from sharedattn.backbones import build
from sharedattn.placement import NetworkSpec
from sharedattn.results.export.diffusers import write_diffusers

UNET = "unet2d(head_dim=3,in_chans=1,norm_groups=3,widths=6-15)@10"


def test_diffusers_loads_the_folder(tmp_path: Path) -> None:
    network = build(NetworkSpec.parse(f"{UNET}: V1N1 | N2 | V1 | V3 | N3")).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    said = write_diffusers(tmp_path, network)
    assert said is not None and said.endswith("`UNet2DModel.from_pretrained(folder)`.")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["sample_size"] == 10
    assert config["down_block_types"] == ["AttnDownBlock2D", "DownBlock2D"]
    assert config["up_block_types"] == ["AttnUpBlock2D", "UpBlock2D"]
    images, timesteps = torch.randn(3, 1, 10, 10), torch.tensor([0, 17, 999])
    model = UNet2DModel.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = network(images, timesteps)
        found = model(images, timesteps).sample
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (
            f"{UNET}: V2 | V1L1 | V1 | V3 | N3",
            "There are no files for diffusers: layer 2 of stage 2 is L, and diffusers has only V "
            "and N, without gates and broadcasting.",
        ),
        ("vit(depth=1,embed_dim=6,num_heads=1,patch_size=7)@7: V1", None),
    ],
)
def test_others_have_no_files(network: str, said: str | None, tmp_path: Path) -> None:
    assert write_diffusers(tmp_path, build(NetworkSpec.parse(network))) == said
    assert not list(tmp_path.iterdir())
