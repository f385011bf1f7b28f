"""The data sets and the backbone on which answers from trained models are measured."""

from __future__ import annotations

import shutil
from pathlib import Path

from data_makers import make

from sharedattn.data import DataConfig
from sharedattn.placement import BackboneSpec
from sharedattn.search.data_plan import data_for

NUM_CLASSES = {"clutter": 10, "pairs": 10, "textures": 4, "shapes": 4}
CHOOSERS = ("clutter", "textures")  # choose recipes
JUDGES = ("pairs", "shapes")  # are only measured on
NUM_IMAGES, SIZE, DEPTH = 5000, 24, 6


def backbone_of(data: str) -> BackboneSpec:
    """The network that is trained in full on a data set."""
    return BackboneSpec.parse(
        f"vit(class_token=false,depth={DEPTH},embed_dim=32,global_pool=avg,mlp_ratio=2,"
        f"num_classes={NUM_CLASSES[data]},num_heads=4,patch_size=6)@{SIZE}"
    )


def images_of(data: str, root: Path) -> Path:
    """The folder of a data set below `root`; made if it is not there."""
    folder = root / data
    if not folder.is_dir():
        unfinished = folder.with_name(f"{data}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        make(data, unfinished, NUM_IMAGES, SIZE)
        unfinished.rename(folder)
    return folder


def config_of(data: str, root: Path) -> DataConfig:
    """The configuration of a data set below `root`, for its network."""
    return data_for(backbone_of(data), str(images_of(data, root)), None)
