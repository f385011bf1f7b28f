"""Run the papers' measurements on one network and on randomly initialised controls.

A figure alone says little: attention over 16 keys is nearly uniform even before training, and
maps without negative weights look alike. So every figure comes with the same figure of untrained
networks of the same spec, over several seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharedattn.backbones import build_network, describe, resolve
from sharedattn.data import DataSource
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import (
    BackboneSpec,
    Envelope,
    GateCell,
    NetworkSpec,
    Placement,
    ResolvedSpec,
)
from sharedattn.results.analysis.measuring import (
    Layer,
    Mean,
    Name,
    batch_size_for,
    gate_pairs,
    layers_of,
    measure,
    share_unit,
)
from sharedattn.training.trainer import initialise

__all__ = [
    "Analysis",
    "TrainedNetwork",
    "Figure",
    "Images",
    "analyse",
    "check_counterpart",
    "random_network",
    "read_images",
]

MAX_BATCH_SIZE = 64
_Means = dict[Name, Mean]


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its control.

    Attributes:
        value: the network's value, or None if it is undefined on every image.
        num_undefined: number of NaN values left out of it.
        control_mean: mean over randomly initialised networks, or None if undefined in all.
        control_sd: their standard deviation (n - 1), or None with fewer than two.
    """

    value: float | None
    num_undefined: int
    control_mean: float | None
    control_sd: float | None

    @classmethod
    def of(cls, value: Mean, controls: Sequence[Mean]) -> Figure:
        """Make a figure of means over images: the network's and the controls'."""
        return cls.of_values(value.value, [c.value for c in controls], value.num_undefined)

    @classmethod
    def of_values(
        cls, value: float | None, controls: Sequence[float | None], num_undefined: int = 0
    ) -> Figure:
        """Make a figure of the network's and the controls' values; undefined ones are left out."""
        defined = [control for control in controls if control is not None]
        return cls(
            value,
            num_undefined,
            statistics.fmean(defined) if defined else None,
            statistics.stdev(defined) if len(defined) > 1 else None,
        )


@dataclass(frozen=True, slots=True)
class Images:
    """Images to measure on.

    Attributes:
        batches: tensors (B, C, Y, X).
        count: total number of images.
    """

    batches: tuple[Tensor, ...]
    count: int


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained network: the analysed one, or one that differs only in context broadcasting.

    Attributes:
        spec: the network.
        state_dict: its weights.
    """

    spec: ResolvedSpec
    state_dict: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All figures of one network.

    Attributes:
        spec: the network.
        layers: its layers.
        num_images: images measured on.
        control_seeds: seeds of the randomly initialised networks.
        init: how they were initialised.
        figures: every figure of `measuring.measure`, by name.
        counterpart: the placement with the opposite context broadcasting: that of the trained
            counterpart, if any; else without broadcasting, or with it in every layer if the
            placement has none; or None if its layers are residual blocks of convolutions, which
            cannot broadcast.
        broadcasting_change: entropy with context broadcasting minus that without, by position of
            layers with attention; the same weights run both ways, the network's and each
            control's. Empty without `counterpart`.
        trained_change: the same change between the network and the trained counterpart, or None
            without one.
        unshared_gates: the gates' figures in random networks in which each gated layer has its own
            cell, by the same names: a control without a value; or None if the placement shares no
            cells.
    """

    spec: ResolvedSpec
    layers: tuple[Layer, ...]
    num_images: int
    control_seeds: tuple[int, ...]
    init: str
    figures: Mapping[Name, Figure]
    counterpart: Placement | None
    broadcasting_change: Mapping[int, Figure]
    trained_change: Mapping[int, float | None] | None
    unshared_gates: Mapping[Name, Figure] | None


def analyse(
    spec: ResolvedSpec,
    state_dict: Mapping[str, Tensor] | None,
    images: Images,
    *,
    init: str,
    seed: int = 0,
    control_seeds: Sequence[int],
    counterpart: TrainedNetwork | None = None,
    device: str = "cpu",
) -> Analysis:
    """Measure a network and its controls on images.

    Args:
        spec: the network.
        state_dict: its weights, or None to initialise it randomly.
        images: images to measure on, on `device`.
        init: initialisation of the controls; see `sharedattn.training.trainer.initialise`.
        seed: seed of the network's own initialisation, if it has no weights.
        control_seeds: seeds of the randomly initialised networks; at least two, for an SD.
        counterpart: a network that passes `check_counterpart`, or None.
        device: device to run on.

    Returns:
        Every figure that applies to the placement.

    Raises:
        InputError: the weights do not fit, the counterpart differs in more, or there are fewer
            than two controls.
    """
    if len(control_seeds) < 2:
        raise InputError(
            f"`control_seeds` has {len(control_seeds)}; a control has at least 2 seeds, since it "
            f"has a spread"
        )
    other, backbone = broadcasting_counterpart(spec), spec.backbone
    if counterpart is not None:
        check_counterpart(spec, counterpart.spec)
        other = counterpart.spec.placement
        if _has_broadcasting(other):
            # The network with broadcasting determines its form.
            backbone = counterpart.spec.backbone
    runs = _Runs(spec, other, backbone, images, init, device)
    trained = None if state_dict is None else TrainedNetwork(spec, state_dict)
    own = runs.both_ways(runs.network(seed, trained))
    controls = [runs.both_ways(runs.network(control)) for control in control_seeds]
    return Analysis(
        spec=spec,
        layers=_layers(spec),
        num_images=images.count,
        control_seeds=tuple(control_seeds),
        init=init,
        figures={n: Figure.of(mean, [c[0][n] for c in controls]) for n, mean in own[0].items()},
        counterpart=other,
        broadcasting_change=runs.broadcasting_change(own, controls),
        trained_change=(
            None if counterpart is None else runs.trained_change(own[0], seed, counterpart)
        ),
        unshared_gates=_unshared_gates(spec, images, init, control_seeds, device),
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of networks with a placement and its counterpart, if it has one.

    One network runs both: plain broadcasting has no weights, and a learned scale that the
    counterpart adds starts at the plain form.

    Attributes:
        spec: the analysed network.
        other: its placement with the opposite context broadcasting, or None.
        backbone: backbone of all networks.
        images: images to measure on.
        init: initialisation of networks.
        device: device to run on.
    """

    spec: NetworkSpec
    other: Placement | None
    backbone: BackboneSpec
    images: Images
    init: str
    device: str

    def network(self, seed: int, trained: TrainedNetwork | None = None) -> Network:
        """A network of this seed, with a trained one's weights if given."""
        envelope = Envelope.of(self.spec.placement, self.other or self.spec.placement)
        network = random_network(self.backbone, envelope, self.init, seed)
        if trained is not None:
            _load(network, trained.state_dict, trained.spec)
        return network.to(self.device)

    def both_ways(self, network: Network) -> tuple[_Means, _Means]:
        """The figures of a network with the placement, and with its counterpart or none."""
        own = self._measured(network, self.spec.placement)
        return own, {} if self.other is None else self._measured(network, self.other)

    def broadcasting_change(
        self, own: tuple[_Means, _Means], controls: Sequence[tuple[_Means, _Means]]
    ) -> dict[int, Figure]:
        """See `Analysis.broadcasting_change`."""
        if self.other is None:
            return {}
        by_control = [_entropy_changes(self.spec.placement, *control) for control in controls]
        return {
            position: Figure.of_values(change, [changes[position] for changes in by_control])
            for position, change in _entropy_changes(self.spec.placement, *own).items()
        }

    def trained_change(
        self, own: _Means, seed: int, counterpart: TrainedNetwork
    ) -> dict[int, float | None]:
        """See `Analysis.trained_change`."""
        assert self.other is not None
        trained = self._measured(self.network(seed, counterpart), self.other)
        return _entropy_changes(self.spec.placement, own, trained)

    def _measured(self, network: Network, placement: Placement) -> _Means:
        return measure(network, _layers(self.spec), placement, self.images.batches)


def read_images(
    data: DataSource, spec: NetworkSpec, count: int, *, batch_size: int, device: str = "cpu"
) -> Images:
    """Read validation images, spread evenly over the split, in batches within the memory limit.

    Args:
        data: the data.
        spec: the network; the memory of its attention maps limits the batch size.
        count: number of images to read; all if the split has fewer.
        batch_size: largest batch size.
        device: device of the images.

    Raises:
        InputError: `count` is less than 1.
    """
    if count < 1:
        raise InputError(f"`images` is {count}; measure on at least 1 image")
    most = min(batch_size, MAX_BATCH_SIZE)
    fitting = batch_size_for(_layers(spec), most)
    batches = tuple(
        images
        for images, _ in data.eval_batches(
            "validation", batch_size=fitting, device=torch.device(device), at_most=count
        )
    )
    return Images(batches, sum(len(images) for images in batches))


def random_network(backbone: BackboneSpec, envelope: Envelope, init: str, seed: int) -> Network:
    """The initial network of a training with this seed, in eval mode on the CPU.

    Args:
        backbone: the backbone.
        envelope: envelope of the placements to run.
        init: initialisation; see `sharedattn.training.trainer.initialise`.
        seed: seed of the initialisation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(backbone, envelope)
        initialise(network, init)
    return network.eval()


def broadcasting_counterpart(spec: NetworkSpec) -> Placement | None:
    """The placement without context broadcasting, or if it has none, with it in every layer.

    None if the layers are residual blocks of convolutions, which cannot broadcast.
    """
    if any(stage.convolution is not None for stage in describe(spec.backbone).stages):
        return None
    return _with_broadcasting(spec.placement, not _has_broadcasting(spec.placement))


def check_counterpart(spec: NetworkSpec, other: NetworkSpec) -> None:
    """Check that a network can be the counterpart of another.

    Raises:
        InputError: they differ in more than context broadcasting, or do not differ in having it.
    """
    bare = {
        # Resolve, so that options of broadcasting alone do not count as another difference.
        resolve(NetworkSpec(one.backbone, _with_broadcasting(one.placement, False)))
        for one in (spec, other)
    }
    if len(bare) > 1 or _has_broadcasting(spec.placement) == _has_broadcasting(other.placement):
        raise InputError(
            f"{other} is no counterpart of {spec}; a counterpart has context broadcasting where "
            f"the network has none, or the other way round, and no other difference"
        )


def _has_broadcasting(placement: Placement) -> bool:
    return any(layer.cb for layer in placement.layers)


def _with_broadcasting(placement: Placement, cb: bool) -> Placement:
    """The placement with context broadcasting in every layer, or in none."""
    return Placement(
        tuple(tuple(replace(choice, cb=cb) for choice in stage) for stage in placement.stages)
    )


def unshared(placement: Placement) -> Placement:
    """The placement with its own cell for each gated layer."""
    return Placement(
        tuple(
            tuple(
                choice
                if choice.gate is None
                else replace(choice, gate=GateCell(choice.gate.gate, index))
                for index, choice in enumerate(stage)
            )
            for stage in placement.stages
        )
    )


def _layers(spec: NetworkSpec) -> tuple[Layer, ...]:
    options = spec.backbone.options
    equal_shift = replace(spec.backbone, options=replace(options, handover="equal_shift"))
    return layers_of(describe(equal_shift), spec.placement, options)


def _load(network: Network, state_dict: Mapping[str, Tensor], spec: NetworkSpec) -> None:
    """Load weights of `spec` into a network that may only add context broadcasting."""
    try:
        found = network.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        why = " ".join(str(error).split())  # torch lists keys on several lines
        raise InputError(f"the weights do not fit {spec}: {why}") from error
    wrong = [*found.unexpected_keys]
    wrong += [key for key in found.missing_keys if not key.endswith(".broadcasting.scale")]
    if wrong:
        raise InputError(f"the weights do not fit {spec}; these differ: {', '.join(wrong)}")


def _entropy_changes(
    placement: Placement, own: Mapping[Name, Mean], other_way: Mapping[Name, Mean]
) -> dict[int, float | None]:
    """Entropy with broadcasting minus that without, by layer position."""
    with_cb, without = (own, other_way)
    if not _has_broadcasting(placement):
        with_cb, without = without, with_cb
    changes: dict[int, float | None] = {}
    for name in own:
        if name[0] == "entropy":
            pair = with_cb[name].value, without[name].value
            changes[int(name[1])] = (
                None if pair[0] is None or pair[1] is None else pair[0] - pair[1]
            )
    return changes


def _unshared_gates(
    spec: NetworkSpec, images: Images, init: str, seeds: Sequence[int], device: str
) -> dict[Name, Figure] | None:
    if not any(share_unit(*pair) for pair in gate_pairs(_layers(spec))):
        return None
    alone = NetworkSpec(spec.backbone, unshared(spec.placement))
    # The original layers determine which pairs count as shared and which as independent.
    layers, envelope = _layers(spec), Envelope.of(alone.placement)
    controls = []
    for seed in seeds:
        network = random_network(spec.backbone, envelope, init, seed).to(device)
        controls.append(
            measure(network, layers, alone.placement, images.batches, gates_alone=True)
        )
    return {
        name: Figure.of_values(None, [control[name].value for control in controls])
        for name in controls[0]
    }
