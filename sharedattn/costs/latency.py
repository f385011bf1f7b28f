"""Latency of placements on a device: measured whole, or a sum of parts that are measured once.

A network is a row of parts: its stem, the way into each later stage, each layer by what it does
and where, and its head. Parts are timed alone, on the tokens that reach them, and a placement's
latency is predicted as

    latency = factor * sum of its parts,  factor = forward of one network / sum of its parts

One factor for all, since parts that are timed alone are waited for one by one, and find their
inputs elsewhere than in a forward. Whether the sum can be trusted is not assumed but checked: on
whole networks, in sessions at different moments. Where it errs by more than `MAX_ERROR` on any of
them, every placement is to be measured whole.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sharedattn.backbones import build, build_network
from sharedattn.costs.timing import Timing, device_name, time_call, torch_threads
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, LayerChoice, NetworkSpec, Placement
from sharedattn.shape import BackboneShape

MAX_ERROR = 0.05  # of a prediction, as a share of what is measured
NUM_SESSIONS = 3
SESSION_GAP_S = 1.0  # so that sessions stand at different moments

_STEM, _HEAD = "stem", "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySetting:
    """What latencies depend on beside the network; those of different settings never mix.

    Attributes:
        device: where torch computes, "cpu" or "cuda".
        device_name: the model of that device.
        threads: torch threads.
        torch_version: torch's own.
        dtype: of weights and images.
        batch_size: images of one forward, whose whole time is the latency.
    """

    device: str
    device_name: str
    threads: int
    torch_version: str
    dtype: str
    batch_size: int

    @classmethod
    def here(cls, device: str, batch_size: int) -> LatencySetting:
        """The setting of this process.

        Args:
            device: "cpu" or "cuda".
            batch_size: images of one forward; > 0.

        Raises:
            InputError: a batch without images.
        """
        if batch_size < 1:
            raise InputError(f"`latency batch size >= 1` must hold, but got {batch_size}")
        return cls(
            device=device,
            device_name=device_name(device),
            threads=torch.get_num_threads(),
            torch_version=torch.__version__,
            dtype=str(torch.get_default_dtype()).removeprefix("torch."),
            batch_size=batch_size,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return asdict(self)

    @property
    def device_text(self) -> str:
        """The device's name, with the threads where it is a CPU."""
        plural = "" if self.threads == 1 else "s"
        threads = f", {self.threads} thread{plural}" if self.device == "cpu" else ""
        return f"{self.device_name}{threads}"

    def __str__(self) -> str:
        return (
            f"{self.device_text}, {self.dtype}, batch of {self.batch_size}, "
            f"torch {self.torch_version}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCheck:
    """A prediction beside what was measured.

    Attributes:
        placement: the placement's text.
        predicted_ms: milliseconds of a forward by the table.
        measured_ms: the median of each session.
    """

    placement: str
    predicted_ms: float
    measured_ms: tuple[float, ...]

    @property
    def error(self) -> float:
        """The largest departure from a session's measurement, a fraction of that."""
        return max(abs(self.predicted_ms - ms) / ms for ms in self.measured_ms)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return {**asdict(self), "measured_ms": list(self.measured_ms)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Times of the parts of placements on one backbone, in one setting.

    Attributes:
        backbone: the backbone.
        setting: where they were measured.
        shape: the backbone's sizes.
        parts: milliseconds by the part's name, medians over sessions of medians over repeats.
        factor: a forward over the sum of its parts.
        repeats: timed calls of each part and of each network, in all sessions together.
        checks: whole networks that were measured in the same sessions.
    """

    backbone: BackboneSpec
    setting: LatencySetting
    shape: BackboneShape
    parts: Mapping[str, float]
    factor: float
    repeats: int
    checks: tuple[LatencyCheck, ...] = field(default=())

    @property
    def worst_error(self) -> float:
        """The largest error of a check, a fraction; infinite where nothing was checked."""
        return max((check.error for check in self.checks), default=math.inf)

    @property
    def is_trusted(self) -> bool:
        """Whether every check was within `MAX_ERROR`."""
        return self.worst_error <= MAX_ERROR

    def holds(self, placement: Placement) -> bool:
        """Whether every part of a placement has been measured."""
        return all(name in self.parts for name in part_names(self.shape, placement))

    def predict_ms(self, placement: Placement) -> float:
        """Milliseconds of a forward of a placement.

        Raises:
            InputError: a part that was not measured.
        """
        names = part_names(self.shape, placement)
        missing = sorted({name for name in names if name not in self.parts})
        if missing:
            raise InputError(
                f"`the table holds every part of a placement` must hold, but of {placement} it "
                f"lacks {', '.join(missing)}; measure the network whole"
            )
        return self.factor * math.fsum(self.parts[name] for name in names)


def part_names(shape: BackboneShape, placement: Placement) -> list[str]:
    """The parts of a placement, in the order in which they run.

    A layer's name says its stage, the group of layers that it shares scores with (in a Swin, that
    of its shift), and what it does; which DIA cell gates it makes no difference.

    Args:
        shape: the backbone's sizes.
        placement: a placement that the backbone can hold.
    """
    names = [_STEM]
    for stage, choices in enumerate(placement.stages):
        if stage > 0:
            names.append(f"entry {stage + 1}")
        sizes = shape.stages[stage].attention
        names += [
            f"layer {stage + 1}.{sizes.score_group(index)} {_without_cell(choice)}"
            for index, choice in enumerate(choices)
        ]
    return [*names, _HEAD]


def measure_network(
    backbone: BackboneSpec, placement: Placement, setting: LatencySetting
) -> Timing:
    """Time forwards of the stand-alone network of a placement, in eval mode.

    Args:
        backbone: the backbone.
        placement: a placement that it can hold.
        setting: where; of this process.

    Returns:
        The median of the repeats.
    """
    with torch.inference_mode(), torch_threads(setting.threads):
        return time_call(_forward(backbone, placement, setting), setting.device)


def measure_table(
    backbone: BackboneSpec,
    setting: LatencySetting,
    *,
    hosts: Sequence[Placement],
    scale: Placement,
    checked: Sequence[Placement],
    known: Mapping[str, float] | None = None,
) -> LatencyTable:
    """Time the parts of some placements, and check their sums on whole networks.

    Args:
        backbone: the backbone.
        setting: where; of this process.
        hosts: placements whose parts are wanted; those of `scale` and `checked` are added.
        scale: the placement whose whole forward fixes the factor, such as the all-vanilla one.
        checked: further placements that are measured whole.
        known: parts of the same backbone and setting that need not be measured again.

    Returns:
        The table, whose `is_trusted` says whether it may be used.
    """
    hosts = (scale, *checked, *hosts)
    with torch.inference_mode(), torch_threads(setting.threads):
        network = _built(lambda: build_network(backbone, Envelope.of(*hosts)), setting)
        steps: dict[str, Callable[[], object]] = {}
        for host in hosts:
            names = part_names(network.shape, host)
            if any(name not in steps and name not in (known or {}) for name in names):
                # The first of a name: its later ones do the same work.
                for name, step in zip(names, _steps(network, host, setting), strict=True):
                    steps.setdefault(name, step)
        for name in known or {}:
            steps.pop(name, None)
        wholes = {p: _forward(backbone, p, setting) for p in dict.fromkeys((scale, *checked))}
        part_ms: dict[str, list[float]] = defaultdict(list)
        whole_ms: dict[Placement, list[float]] = defaultdict(list)
        repeats = 0
        for session in range(NUM_SESSIONS):
            if session:
                time.sleep(SESSION_GAP_S)
            for name, step in steps.items():
                part_ms[name].append(time_call(step, setting.device).median_ms)
            for placement, forward in wholes.items():
                timing = time_call(forward, setting.device)
                whole_ms[placement].append(timing.median_ms)
            repeats += timing.repeats
    parts = dict(known or {}) | {name: statistics.median(ms) for name, ms in part_ms.items()}
    unscaled = LatencyTable(
        backbone=backbone,
        setting=setting,
        shape=network.shape,
        parts=parts,
        factor=1.0,
        repeats=repeats,
    )
    factor = statistics.median(whole_ms[scale]) / unscaled.predict_ms(scale)
    table = replace(unscaled, factor=factor)
    checks = tuple(
        LatencyCheck(
            placement=str(placement),
            predicted_ms=table.predict_ms(placement),
            measured_ms=tuple(whole_ms[placement]),
        )
        for placement in dict.fromkeys(checked)
    )
    return replace(table, checks=checks)


def _steps(
    network: Network, placement: Placement, setting: LatencySetting
) -> Iterator[Callable[[], object]]:
    """What runs each part of `part_names` once, on the tokens and the state that reach it."""
    images = _images(network, setting)
    yield partial(network.begin, images)
    tokens, state = network.begin(images)
    for stage, choices in enumerate(placement.stages):
        if stage > 0:
            yield partial(network.enter, stage, tokens, state)
            tokens, state = network.enter(stage, tokens, state)
        for index, choice in enumerate(choices):
            yield partial(network.run_block, stage, index, tokens, state, choice)
            tokens, state = network.run_block(stage, index, tokens, state, choice)
    yield partial(network.finish, tokens)


def _forward(
    backbone: BackboneSpec, placement: Placement, setting: LatencySetting
) -> Callable[[], object]:
    network = _built(lambda: build(NetworkSpec(backbone, placement)), setting)
    return partial(network, _images(network, setting))


def _built(make: Callable[[], Network], setting: LatencySetting) -> Network:
    """A network on the device in eval mode; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=()):
        return make().to(setting.device).eval()


def _images(network: Network, setting: LatencySetting) -> Tensor:
    size = network.shape.image_size
    generator = torch.Generator().manual_seed(0)
    images_BCYX = torch.randn(
        setting.batch_size, network.backbone.in_chans, size, size, generator=generator
    )
    return images_BCYX.to(setting.device)


def _without_cell(choice: LayerChoice) -> LayerChoice:
    return choice if choice.gate is None else replace(choice, gate=choice.gate._replace(cell=0))
