"""Accuracies from a table, to simulate searches for samplers, rules and the driver.

A table is a JSON object from placement text to top1, such as another study's results, or to a
learning curve with one top1 per epoch, which reports and may be stopped like a training. Or it is
PlacementBench, which has several seeds of each placement, and seconds.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.image_size import AnySize
from sharedattn.networks.legality import canonical_placement
from sharedattn.placement import Placement
from sharedattn.progress import OnProgress
from sharedattn.recipe import check_rungs
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators.base import Evaluator, Measurement, Task
from sharedattn.search.tables import Part, PlacementBench
from sharedattn.shape import BackboneShape
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.trainer import Epoch


@dataclass(frozen=True)
class TableEvaluator(Evaluator):
    """Looks up a placement's learning curve; fails for unknown placements.

    Attributes:
        curves: accuracies (fractions) after each epoch by placement text; all of one length.
        image_size: pixels on a side of the images behind the table, or their height and width.
        rungs: epochs at which an evaluation reports, ascending.

    Raises:
        InputError: a rung is not below the number of epochs.
    """

    curves: Mapping[str, tuple[float, ...]]
    image_size: AnySize
    rungs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_rungs(self.rungs, self.fidelity.epochs)

    @classmethod
    def load(cls, path: Path, shape: BackboneShape) -> TableEvaluator:
        """Read a table.

        Args:
            path: the table.
            shape: shape of the placements' backbone.

        Raises:
            InputError: the file is missing, empty, or no JSON object from placements to fractions
                or to lists of equal length, or it has a placement twice.
        """
        try:
            # Pairs, since a dictionary would silently keep only the last of equal keys.
            document = json.loads(
                path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: pairs
            )
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"a table is a JSON object of placement: top1, but {path} is not: {error}"
            ) from error
        if not (isinstance(document, list) and document and isinstance(document[0], tuple)):
            raise InputError(f"a table is a JSON object of placement: top1, but {path} is not")
        curves: dict[str, tuple[float, ...]] = {}
        written: dict[str, str] = {}
        for text, value in document:
            curve = value if isinstance(value, list) else [value]
            if not curve or not all(_is_fraction(top1) for top1 in curve):
                raise InputError(
                    f"top1 in a table is a number from 0 to 1, or a list of them, but {path} has "
                    f"{value!r} for {text!r}"
                )
            placement = _placement(text, shape, path)
            if placement in written:
                both = " and ".join(dict.fromkeys((repr(written[placement]), repr(text))))
                raise InputError(
                    f"a placement stands once in a table, but {path} has {placement!r} twice, as "
                    f"{both}; leave one out"
                )
            written[placement] = text
            curves[placement] = tuple(map(float, curve))
        lengths = sorted({len(curve) for curve in curves.values()})
        if len(lengths) > 1:
            raise InputError(
                f"{path} has learning curves of {lengths[0]} and of {lengths[-1]} epochs; all of "
                f"a table have as many"
            )
        return cls(curves, shape.image_size)

    @cached_property
    def recipe_key(self) -> str:
        return document_key({"table": self.data_fingerprint, "rungs": list(self.rungs)})

    @cached_property
    def data_fingerprint(self) -> str:
        return document_key({"table": {text: list(curve) for text, curve in self.curves.items()}})

    @property
    def fidelity(self) -> Fidelity:
        epochs = len(next(iter(self.curves.values())))
        return Fidelity(epochs=epochs, image_size=self.image_size)

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        text = str(task.spec.placement)
        if text not in self.curves:
            raise KeyError(f"the table has no placement {text!r}")
        return (yield from _read_curve(self.curves[text], self.rungs))


@dataclass(frozen=True)
class BenchEvaluator(Evaluator):
    """Looks up trainings of PlacementBench, and says how long they would take.

    Replicate r of a study with seed s is the training with the table's seed number s + r, modulo
    the number of its seeds; in the surrogate part, each seed has noise of its own.

    Attributes:
        table: the benchmark.
        part: what is looked up.
        image_size: pixels on a side of the images behind the table, or their height and width.
        rungs: epochs at which an evaluation reports, ascending.

    Raises:
        InputError: a rung is not below the number of epochs.
    """

    table: PlacementBench
    part: Part
    image_size: AnySize
    rungs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_rungs(self.rungs, self.table.epochs)

    @cached_property
    def recipe_key(self) -> str:
        return document_key({"table": self.data_fingerprint, "rungs": list(self.rungs)})

    @cached_property
    def data_fingerprint(self) -> str:
        return document_key({"bench": self.table.key, "part": self.part})

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(epochs=self.table.epochs, image_size=self.image_size)

    def simulated_s(self, task: Task) -> float:
        """Seconds of the training that an evaluation stands for.

        Raises:
            KeyError: the part has no such placement.
        """
        text = str(task.spec.placement)
        return self.table.seconds_of(self.part, text, task.seed)

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        curve = self.table.curve(self.part, str(task.spec.placement), task.seed)
        accuracies = tuple(map(float, curve))
        return (yield from _read_curve(accuracies, self.rungs, self.simulated_s(task)))


def _read_curve(
    curve: tuple[float, ...], rungs: tuple[int, ...], wall_time_s: float = 0.0
) -> Generator[EpochMetrics, None, Measurement]:
    """Report and return a learning curve as a training would."""
    for rung in rungs:
        yield EpochMetrics(epoch=rung, top1=curve[rung - 1], loss=0.0)
    return Measurement(
        split="table",
        top1=curve[-1],
        loss=0.0,
        num_images=0,
        wall_time_s=wall_time_s,
        learning_curve=tuple(
            Epoch(epoch, 0.0, Metrics(top1, 0.0, 0)).to_json()
            for epoch, top1 in enumerate(curve, start=1)
        ),
    )


def _placement(text: str, shape: BackboneShape, path: Path) -> str:
    """The canonical text of a placement on a backbone.

    Raises:
        InputError: it is not a placement, or its number of stages is wrong.
    """
    try:
        placement = Placement.parse(text)
    except InputError as error:
        raise InputError(f"{path} has {text!r}, which is no placement: {error}") from error
    if len(placement.stages) != len(shape.stages):
        raise InputError(
            f"{path} has {text!r}, a placement of {len(placement.stages)} stages, but the "
            f"backbone has {len(shape.stages)}; give the table of this backbone"
        )
    return str(canonical_placement(shape, placement))


def _is_fraction(value: object) -> bool:
    if isinstance(value, bool):  # bool is a subclass of int
        return False
    return isinstance(value, int | float) and 0.0 <= value <= 1.0
