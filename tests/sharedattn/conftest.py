"""What the tests of networks share: tiny backbones of prime sizes, and random placements."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sharedattn.placement import BackboneSpec, LayerChoice, Placement

# The tests of every family call the contract by its module's name.
sys.path.insert(0, str(Path(__file__).parent))

FORMS = {
    "L": (None, "keys", "lowrank3", "reuse"),
    "E": (None, "mea"),
}

RandomPlacement = Callable[[random.Random, int], Placement]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights and images are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> BackboneSpec:
    """5 layers, 10 tokens of which one is a prefix, width 22 in 2 heads, 3 classes."""
    return BackboneSpec.parse(
        "vit(embed_dim=22,depth=5,num_heads=2,patch_size=5,mlp_ratio=1.5,in_chans=2,num_classes=3)"
        "@15"
    )


@pytest.fixture
def random_placement() -> RandomPlacement:
    """Draws a legal one-stage placement of up to so many layers, of every mechanism."""

    def draw(rng: random.Random, most_layers: int) -> Placement:
        layers: list[LayerChoice] = []
        last = rng.randint(1, most_layers) - 1
        for position in range(last + 1):
            has_scores = any(layer.kind == "V" for layer in layers)
            kinds = "VLENX" if position < last else "VLEN"
            kind = rng.choice([k for k in kinds if has_scores or k != "L"])
            if kind == "X":
                layers.append(LayerChoice("X"))
                continue
            slots = rng.choice([3, 7, 13]) if kind == "E" else None
            form = rng.choice(FORMS.get(kind, (None,)))
            dia, cb = rng.choice([None, 0, 1]), rng.random() < 0.5
            layers.append(LayerChoice.of(kind, slots=slots, dia=dia, cb=cb, form=form))
        return Placement((tuple(layers),))

    return draw
