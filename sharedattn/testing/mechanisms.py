"""The contract of mechanisms, which every branch and gate must pass, including a plug-in's.

A plug-in's tests call `check_mechanism(MyBranch())`; `sharedattn doctor --plugins` runs it for all
installed plug-ins. Each AssertionError names the placement that failed, and how.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sharedattn.backbones import build, build_network, describe
from sharedattn.costs.flop_counters import fvcore_macs, matmul_macs
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, Gate
from sharedattn.mechanisms.registry import OURS
from sharedattn.networks.legality import check_placement
from sharedattn.networks.network import Network
from sharedattn.placement import (
    BackboneSpec,
    Envelope,
    GateCell,
    LayerChoice,
    NetworkSpec,
    Placement,
)
from sharedattn.supernet.placement_tree import PlacementTree, Step
from sharedattn.supernet.tree_evaluation import compute, held_after_steps
from sharedattn.testing.placements import random_placements
from sharedattn.testing.tiny_backbones import tiny_backbone, tiny_backbones
from sharedattn.weights.extract import extract


def check_mechanism(
    part: Branch | Gate,
    *,
    backbones: Sequence[str] | None = None,
    num_placements: int = 4,
    seed: int = 0,
) -> None:
    """Check that a branch or a gate keeps the contract of mechanisms.

    On a tiny backbone of each family, with random placements of our kinds and the part: text and
    JSON round trips are exact; closed-form params and MACs equal those of both counters; weights
    extracted from a shared network give its logits; a run can be resumed after every layer with
    only the state that `takes` and `leaves` declare; a tree of placements gives each one's logits;
    every parameter of the part itself gets a gradient.

    Args:
        part: a registered branch or gate.
        backbones: base names of families in `sharedattn.testing.tiny_backbones.TINY`, by default
            all that are installed.
        num_placements: number of placements with the part, on each backbone.
        seed: seed of the placements, weights and images.

    Raises:
        AssertionError: the part breaks the contract; the message says where.
    """
    checks: tuple[Callable[[BackboneSpec, list[Placement]], None], ...] = (
        check_forms,
        check_costs,
        check_extraction,
        check_resuming,
        check_tree,
    )
    reached, backbones = False, tiny_backbones() if backbones is None else backbones
    for name in backbones:
        backbone = tiny_backbone(name)
        placements = _placements_with(part, backbone, num_placements, seed)
        if len(placements) < 2:
            continue
        reached = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for check in checks:
                check(backbone, placements)
            check_own_gradients(part, backbone, placements)
    assert reached, f"{part.title} fits none of the backbones {', '.join(backbones)}"


def check_forms(backbone: BackboneSpec, placements: list[Placement]) -> None:
    """Check that text and JSON round trips of specs are exact, and equal specs share a key."""
    for placement in placements:
        spec = NetworkSpec(backbone, placement)
        document = json.loads(json.dumps(spec.to_json()))
        for other in (NetworkSpec.parse(str(spec)), NetworkSpec.from_json(document)):
            assert other == spec and other.key == spec.key, f"{spec} is read as {other}"


def check_costs(backbone: BackboneSpec, placements: list[Placement]) -> None:
    """Check that closed-form params and MACs equal both counters' on built networks."""
    model = CostModel(backbone)
    for placement in placements:
        network = build(NetworkSpec(backbone, placement))
        cost = model.cost(placement)
        counted = {
            "params": (cost.params, sum(p.numel() for p in network.parameters())),
            "macs": (cost.macs, fvcore_macs(network)),
            "matmul_macs": (cost.matmul_macs, matmul_macs(network)),
        }
        for name, (stated, found) in counted.items():
            assert stated == found, (
                f"{NetworkSpec(backbone, placement)} states {name} {stated:,}, and the network "
                f"that is built has {found:,}"
            )


def check_extraction(backbone: BackboneSpec, placements: list[Placement]) -> None:
    """Check that shared and extracted weights give equal logits."""
    shared, x = shared_network(backbone, placements).float(), random_images(backbone).float()
    with torch.no_grad():
        for placement in placements:
            alone = extract(shared, placement)
            difference = (alone(x) - shared(x, placement)).abs().max().item()
            assert difference <= 1e-5, (
                f"{placement} cut out of a shared network gives logits {difference:.1e} off"
            )


def check_resuming(backbone: BackboneSpec, placements: list[Placement]) -> None:
    """Check that a run resumed after each layer, with only the held state, equals the whole."""
    network, x = shared_network(backbone, placements), random_images(backbone)
    with torch.no_grad():
        for placement in placements:
            tokens, state = network.begin(x)
            for stage, choices in enumerate(placement.stages):
                for index, choice in enumerate(choices):
                    before = [t.clone() for t in state.tensors()]
                    after = network.layer(stage, index).run(tokens, state, choice)
                    kept = zip(before, state.tensors(), strict=True)
                    assert all(torch.equal(a, b) for a, b in kept), (
                        f"layer {choice} of {placement} changes the state that it is handed"
                    )
                    tokens, state = after
                    state = state.keeping(network.held_after(stage, choices, index))
            assert torch.equal(network.finish(tokens, state), network(x, placement)), (
                f"{placement} resumed layer by layer gives other logits"
            )


def check_tree(backbone: BackboneSpec, placements: list[Placement]) -> None:
    """Check that placements run as a tree of shared prefixes give their own logits."""
    network, x = shared_network(backbone, placements), random_images(backbone)
    tree = PlacementTree(placements)
    held = held_after_steps(network, tree)
    with torch.no_grad():
        alone = {placement: network(x, placement) for placement in placements}
        waiting: list[tuple[Step, Any]] = [(tree.root, x)]
        while waiting:
            step, taken = waiting.pop()
            if step.next:
                given = compute(network, step, taken, held)
                waiting += [(following, given) for following in step.next]
                continue
            logits = network.finish(*taken)
            for placement in step.placements:
                assert torch.equal(logits, alone[placement]), (
                    f"{placement} gives other logits in a tree of shared prefixes"
                )


def check_own_gradients(
    part: Branch | Gate, backbone: BackboneSpec, placements: list[Placement]
) -> None:
    """Check that each parameter of the part's modules gets a gradient in some layer or cell.

    Those that a gate declares to be without effect get none but rounding errors.
    """
    network, x = shared_network(backbone, placements), random_images(backbone)
    for placement in placements:
        (network(x, placement) ** 2).sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    rounding = 1e-9 * max(float(gradient.abs().max()) for gradient in gradients)
    reached: dict[str, bool] = {}
    for name, p in network.named_parameters():
        if _has_no_effect(part, name):
            assert p.grad is None or float(p.grad.abs().max()) <= rounding, (
                f"{name} of {part.title} has an effect; take it out of parameters_without_effect"
            )
        elif _is_of(part, name):
            # Compare names without numbers: a cell used by one layer may pass nothing on.
            what = re.sub(r"\.\d+(?=\.)", "", name)
            reached.setdefault(what, False)
            reached[what] |= p.grad is not None and bool(p.grad.abs().gt(0).any())
    without = [what for what, found in reached.items() if not found]
    assert not without, f"parameters of {part.title} get no gradient: {', '.join(without)}"


def shared_network(backbone: BackboneSpec, placements: list[Placement]) -> Network:
    """A network of all placements, in float64 and eval mode, with weights that use every part."""
    return randomised(build_network(backbone, Envelope.of(*placements)))


def randomised(network: Network) -> Network:
    """The network in float64 and eval mode, with weights that use every part."""
    network = network.double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def random_images(backbone: BackboneSpec, batch_size: int = 3) -> Tensor:
    """Random images (B, C, Y, X) in float64."""
    shape = (batch_size, backbone.in_chans, *describe(backbone).image_size)
    return torch.randn(shape, dtype=torch.float64)


def _placements_with(
    part: Branch | Gate, backbone: BackboneSpec, num: int, seed: int
) -> list[Placement]:
    """All-vanilla and placements with the part, one of them with it everywhere; only all-vanilla
    if it fits nowhere."""
    # Stages are short: left-out layers beside the part would leave too few to see it work.
    ours = [own for own in OURS if own is part or isinstance(own, Gate) or not own.is_absent]
    parts = (*ours, *([] if part in ours else [part]))
    shape = describe(backbone)
    found = [Placement.all_vanilla(shape.depths)]
    with suppress(InputError):
        everywhere = Placement(tuple(map(_with_part(part), found[0].stages)))
        check_placement(shape, backbone.options, everywhere)
        found.append(everywhere)
    for placement in random_placements(backbone, seed, 20 * num, parts)[1:]:
        if len(found) > num:
            break
        if any(_has(part, layer.kind, layer.gate) for layer in placement.layers):
            found.append(placement)
    return list(dict.fromkeys(found))


def _with_part(
    part: Branch | Gate,
) -> Callable[[tuple[LayerChoice, ...]], tuple[LayerChoice, ...]]:
    """A function that puts a gate on all layers of a stage, or a branch in all but the first.

    The last layer keeps its branch as well: left-out layers at the end are dropped.
    """

    def put(layers: tuple[LayerChoice, ...]) -> tuple[LayerChoice, ...]:
        if isinstance(part, Gate):
            return tuple(replace(layer, gate=GateCell(part.name, 0)) for layer in layers)
        kept = layers[1:][-1:] if part.is_absent else ()
        others = layers[1 : len(layers) - len(kept)]
        return (layers[0], *(LayerChoice.of(part.letter) for _ in others), *kept)

    return put


def _has(part: Branch | Gate, kind: str, gate: tuple[str, int] | None) -> bool:
    if isinstance(part, Branch):
        return kind == part.letter
    return gate is not None and gate[0] == part.name


def _has_no_effect(part: Branch | Gate, name: str) -> bool:
    """Whether a parameter is the part's, which declares that no output depends on it."""
    return (
        isinstance(part, Gate)
        and _is_of(part, name)
        and name.endswith(tuple(f".{one}" for one in part.parameters_without_effect))
    )


def _is_of(part: Branch | Gate, name: str) -> bool:
    """Whether a parameter's name belongs to the part's modules."""
    if isinstance(part, Gate):
        return name.startswith(f"{part.name}_cells.")
    pieces = itertools.chain.from_iterable(piece.split("_")[:1] for piece in name.split("."))
    return part.name in pieces
