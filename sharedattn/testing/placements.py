"""Random placements that a backbone supports, of every kind, option, gate and depth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from sharedattn.backbones import describe
from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, Gate, NumberOption, Option, OptionValue
from sharedattn.mechanisms.registry import OURS
from sharedattn.networks.legality import canonical_placement, check_placement
from sharedattn.placement import (
    BackboneSpec,
    GateCell,
    LayerChoice,
    MechanismOptions,
    Placement,
)
from sharedattn.shape import BackboneShape, StageShape

NUMBERS = (3, 7, 13)
"""Values of number options, if within their range; primes, so that swapped axes fail."""

MAX_DRAWS = 1000


def random_placements(
    backbone: BackboneSpec, seed: int, num: int, parts: Sequence[Branch | Gate] = OURS
) -> list[Placement]:
    """Draw placements with stages of any depth; the first is all-vanilla at full depth.

    Args:
        backbone: the backbone.
        seed: seed of the draws.
        num: number of placements, possibly with repeats.
        parts: kinds and gates to draw layers from.

    Raises:
        AssertionError: no placement of these parts fits the backbone.
    """
    shape, rng = describe(backbone), random.Random(seed)
    drawn = [random_placement(rng, shape, backbone.options, parts) for _ in range(num)]
    full = Placement.all_vanilla(shape.depths)
    return [full, *drawn[1:]]


def random_placement(
    rng: random.Random,
    shape: BackboneShape,
    options: MechanismOptions,
    parts: Sequence[Branch | Gate] = OURS,
) -> Placement:
    """Draw a canonical placement that a backbone supports, with stages of any depth."""
    stages = tuple(_random_stage(rng, shape, stage, options, parts) for stage in shape.stages)
    return canonical_placement(shape, Placement(stages))


def random_choice(
    rng: random.Random, parts: Sequence[Branch | Gate] = OURS, *, with_cb: bool = True
) -> LayerChoice:
    """Draw one layer, which may fit nowhere; without `with_cb` it does not broadcast context."""
    branch = rng.choice([part for part in parts if isinstance(part, Branch)])
    if branch.is_absent:
        return LayerChoice(branch.letter)
    drawn = ((option.name, _random_value(rng, option)) for option in branch.options)
    said = tuple((name, value) for name, value in drawn if value is not None)
    cells = [
        GateCell(part.name, cell) for part in parts if isinstance(part, Gate) for cell in (0, 1)
    ]
    cell, cb = rng.choice([None, *cells]), rng.random() < 0.5
    return LayerChoice(branch.letter, said, cell, cb and with_cb)


def _may_fit(part: Branch | Gate, stage: StageShape) -> bool:
    return stage.convolution is None or isinstance(part, Gate) or part.fits_convolutions


def _random_value(rng: random.Random, option: Option) -> OptionValue | None:
    if isinstance(option, NumberOption):
        return rng.choice(
            [n for n in NUMBERS if option.least <= n <= option.most] or [option.default]
        )
    # A form's number, such as a rank, must fit the smallest of the tiny backbones.
    forms = [f"{code}{'2' if pattern else ''}" for code, pattern in option.codes.items()]
    return rng.choice([None, *forms])


def _random_stage(
    rng: random.Random,
    shape: BackboneShape,
    stage: StageShape,
    options: MechanismOptions,
    parts: Sequence[Branch | Gate],
) -> tuple[LayerChoice, ...]:
    fitting = tuple(part for part in parts if _may_fit(part, stage))
    for _ in range(MAX_DRAWS):
        layers = tuple(
            random_choice(rng, fitting, with_cb=stage.convolution is None)
            for _ in range(rng.randint(1, stage.max_depth))
        )
        try:
            placement = Placement((layers,))
            check_placement(replace(shape, stages=(stage,)), options, placement)
        except InputError:
            continue
        return placement.stages[0]
    raise AssertionError(f"no legal stage in {MAX_DRAWS} draws")
