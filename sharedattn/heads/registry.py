"""The heads on feature pyramids by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sharedattn.heads.interface import PyramidHead
from sharedattn.networks.part_sizes import PartSizes
from sharedattn.shape import FeatureShape


def make_head(name: str, features: Sequence[FeatureShape], num_classes: int) -> PyramidHead:
    """Make a head, on torch's default device.

    Args:
        name: its name in `sharedattn.tasks.HEADS`, other than that of classifiers.
        features: the maps of the pyramid, finest first.
        num_classes: number of classes.

    Raises:
        InputError: the pyramid has too few maps.
    """
    # Imported here, since torchvision's detectors take a second that classifiers do not need.
    from sharedattn.heads.eanet import EANet
    from sharedattn.heads.retinanet import RetinaNet
    from sharedattn.heads.semantic_fpn import SemanticFPN
    from sharedattn.heads.upernet import UperNet

    heads: dict[str, type[PyramidHead]] = {
        "retinanet": RetinaNet,
        "semantic_fpn": SemanticFPN,
        "upernet": UperNet,
        "eanet": EANet,
    }
    return heads[name](features, num_classes)


def head_sizes(name: str, features: Sequence[FeatureShape], num_classes: int) -> PartSizes:
    """Costs of a head, read from modules without storage; arguments as of `make_head`."""
    with torch.device("meta"):
        return make_head(name, features, num_classes).sizes()
