"""Builds without storage: the sizes of a build with it, and no values touched elsewhere."""

from __future__ import annotations

import timm
import torch
from torch import nn

from sharedattn.backbones.meta import without_storage

SWIN = {"img_size": 28, "window_size": 7, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 3)}


def test_sizes_are_those_of_a_real_build() -> None:
    real = timm.create_model("swin_tiny_patch4_window7_224", **SWIN)
    with without_storage():
        meta = timm.create_model("swin_tiny_patch4_window7_224", **SWIN)
    assert {name: p.shape for name, p in meta.state_dict().items()} == {
        name: p.shape for name, p in real.state_dict().items()
    }
    assert all(p.is_meta for p in meta.parameters())


def test_tensors_with_storage_are_filled_as_ever() -> None:
    with without_storage():
        filled = torch.zeros(3, device="cpu")
        nn.init.constant_(filled, 2.0)
        filled.add_(1.0).mul_(2.0)
    assert filled.tolist() == [6.0, 6.0, 6.0]


def test_nothing_stays_after_it() -> None:
    with without_storage():
        pass
    linear = nn.Linear(3, 2)
    assert not linear.weight.is_meta
    assert linear.weight.abs().sum() > 0
