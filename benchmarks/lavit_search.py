"""Search for pyramids that LaViT-T and LaViT-S could be, over the choices that no source names.

LaViT (CVPR 2024, arXiv:2406.00427) prints params and MACs of three models but none of their
shapes. LaViT-B's figures are those of PVT-Medium with all layers of stages 1 and 2 vanilla, and
one vanilla layer before less layers in stages 3 and 4, maps free; this is called B's rule here.
The search covers PVT and PVTv2 with

- depths, widths and MLP ratios within the ranges of both families' published networks;
- B's rule, or any number of less layers after a vanilla one in every stage;
- the spatial reduction of stages 2 and 3 kept or dropped;
- maps of less layers not counted (free), as printed (paper), or as they run (factored);

in classes that depart from the published networks step by step. For each class and convention it
prints how many shapes round to both printed figures, and the nearest shape: the one whose larger
relative difference is smallest.

    python benchmarks/lavit_search.py [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch

from sharedattn.backbones import resolve
from sharedattn.costs.flop_conventions import Maps, counted
from sharedattn.placement import NetworkSpec

TARGETS = {"LaViT-T": (10.9e6, 1.6e9), "LaViT-S": (22.4e6, 3.3e9), "LaViT-B": (39.6e6, 6.1e9)}
"""Printed params and MACs, rounded or truncated in the last digit."""

LAST_DIGIT = (0.1e6, 0.1e9)
CONVENTIONS: tuple[Maps, ...] = ("free", "paper", "factored")

PUBLISHED = (
    # family, depths, widths, MLP ratios
    *(
        ("pvt", depths, (64, 128, 320, 512), (8, 8, 4, 4))
        for depths in ((2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 18, 3), (3, 8, 27, 3))
    ),
    ("pvt_v2", (2, 2, 2, 2), (32, 64, 160, 256), (8, 8, 4, 4)),
    *(
        ("pvt_v2", depths, (64, 128, 320, 512), (8, 8, 4, 4))
        for depths in ((2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 18, 3), (3, 8, 27, 3))
    ),
    ("pvt_v2", (3, 6, 40, 3), (64, 128, 320, 512), (4, 4, 4, 4)),
)
DEPTHS = (range(2, 4), range(2, 9), range(2, 41), range(2, 4))
WIDTHS = ((32, 48, 64), (64, 96, 128), (160, 192, 256, 320), (256, 384, 512))
"""Widths of each stage, from the narrowest published to the widest."""

REDUCTIONS = ((8, 4, 2, 1), (8, 4, 1, 1), (8, 1, 2, 1), (8, 1, 1, 1))

Option = tuple[int, int]
"""Number of layers in a stage, and of less layers among them."""


@dataclass(frozen=True)
class Class:
    """A set of shapes, by how they may differ from the published networks.

    Attributes:
        name: name of the class.
        any_depths: whether depths may be any within the published ranges.
        any_widths: whether widths may be any within the published ranges.
        any_less: whether any number of less layers may follow a vanilla one, instead of B's rule.
        any_reduction: whether stages 2 and 3 may drop their reduction.
    """

    name: str
    any_depths: bool = False
    any_widths: bool = False
    any_less: bool = False
    any_reduction: bool = False


CLASSES = (
    Class("published networks, B's rule"),
    Class("published networks, any less layers", any_less=True),
    Class("the same, reduction kept or dropped", any_less=True, any_reduction=True),
    Class("other depths, B's rule", any_depths=True),
    Class("other widths, B's rule", any_widths=True),
    Class("other depths, any less layers", any_depths=True, any_less=True),
    Class("other depths and widths, B's rule", any_depths=True, any_widths=True),
)


@dataclass(frozen=True)
class Pyramid:
    """A backbone without its depths."""

    family: str
    widths: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    reductions: tuple[int, ...]

    def network(self, depths: Sequence[int], options: Sequence[Option]) -> NetworkSpec:
        """A network on the backbone of these depths, with a number of layers in each stage."""
        numbers = {
            "depths": depths,
            "embed_dims": self.widths,
            # As published; if 5 does not divide the width of stage 3, PVTv2's defaults.
            "num_heads": (1, 2, 4 if self.widths[2] % 5 else 5, 8),
            "mlp_ratios": self.mlp_ratios,
            "sr_ratios": self.reductions,
        }
        keywords = ",".join(f"{key}={'-'.join(map(str, n))}" for key, n in numbers.items())
        stages = (f"V{depth - less}" + (f"L{less}" if less else "") for depth, less in options)
        return NetworkSpec.parse(f"{self.family}({keywords}): {' | '.join(stages)}")


@cache
def layer_costs(pyramid: Pyramid, maps: Maps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Params and MACs around the layers (2,), and of each stage's vanilla and less layer (4, 2).

    Costs are additive over layers, and those around the layers do not depend on depths.
    """
    one: tuple[Option, ...] = ((1, 0),) * 4

    def total(stage: int, option: Option) -> np.ndarray:
        options = (*one[:stage], option, *one[stage + 1 :])
        cost = counted(pyramid.network((2, 2, 2, 2), options), maps=maps)
        return np.array([cost.params, cost.macs], dtype=np.int64)

    least = total(0, one[0])
    vanilla = np.stack([total(stage, (2, 0)) - least for stage in range(4)])
    less = np.stack([total(stage, (2, 1)) - least for stage in range(4)])
    return least - vanilla.sum(0), vanilla, less


@dataclass(frozen=True)
class Finding:
    """Result for one target in a class, under one convention."""

    target: str
    shapes: str
    maps: Maps
    num_fits: int
    network: str
    params: int
    macs: int
    difference: float


def shapes(of: Class) -> Iterator[tuple[Pyramid, tuple[Sequence[int], ...]]]:
    """The backbones of a class without depths, and the possible depths of each stage."""
    reductions = REDUCTIONS if of.any_reduction else REDUCTIONS[:1]
    seen = set()
    for family, depths, own_widths, ratios in PUBLISHED:
        of_stages = DEPTHS if of.any_depths else tuple((depth,) for depth in depths)
        for widths in itertools.product(*WIDTHS) if of.any_widths else (own_widths,):
            for reduction in reductions:
                shape = Pyramid(family, widths, ratios, reduction), of_stages
                if shape not in seen:
                    seen.add(shape)
                    yield shape


def stage_options(of: Class, stage: int, depths: Sequence[int]) -> list[Option]:
    """The options of a stage, for given depths."""
    if of.any_less:
        return [(depth, less) for depth in depths for less in range(depth)]
    return [(depth, depth - 1 if stage > 1 else 0) for depth in depths]


def search(of: Class, maps: Maps) -> list[Finding]:
    """For each target, the number of matching shapes of a class, and the nearest."""
    fits = dict.fromkeys(TARGETS, 0)
    nearest: dict[str, tuple[float, Pyramid, tuple[Option, ...]]] = {}
    for pyramid, depths in shapes(of):
        around, vanilla, less = layer_costs(pyramid, maps)
        options = [stage_options(of, stage, of_stage) for stage, of_stage in enumerate(depths)]
        total = around
        for stage, of_stage in enumerate(options):
            costs = np.array([(d - k) * vanilla[stage] + k * less[stage] for d, k in of_stage])
            total = total[..., None, :] + costs
        for target, printed in TARGETS.items():
            exact, digit = np.array(printed), np.array(LAST_DIGIT)
            # Rounded or truncated: the paper's tables have both.
            fits[target] += int(
                ((total >= exact - digit / 2) & (total < exact + digit)).all(-1).sum()
            )
            difference = np.abs(total / exact - 1).max(-1)
            index = np.unravel_index(int(difference.argmin()), difference.shape)
            if target not in nearest or difference[index] < nearest[target][0]:
                chosen = tuple(o[i] for o, i in zip(options, index, strict=True))
                nearest[target] = float(difference[index]), pyramid, chosen
    findings = []
    for target, (difference, pyramid, chosen) in nearest.items():
        network = pyramid.network([depth for depth, _ in chosen], chosen)
        cost = counted(network, maps=maps)
        findings.append(
            Finding(
                target=target,
                shapes=of.name,
                maps=maps,
                num_fits=fits[target],
                network=str(resolve(network)),
                params=cost.params,
                macs=cost.macs,
                difference=difference,
            )
        )
    return findings


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    findings = [finding for of in CLASSES for maps in CONVENTIONS for finding in search(of, maps)]
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    for target, (params, macs) in TARGETS.items():
        print(f"{target}, printed {params / 1e6:.1f} M and {macs / 1e9:.1f} G")
        for finding in findings:
            if finding.target == target:
                print(
                    f"  {finding.shapes}, maps {finding.maps}: {finding.num_fits} fit; nearest "
                    f"{finding.params / 1e6:.3f} M {finding.macs / 1e9:.3f} G "
                    f"({finding.difference:.2%}) {finding.network}"
                )


if __name__ == "__main__":
    main()
