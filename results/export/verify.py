"""Verify an exported folder: rebuild the network, recount its costs and remeasure it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharedattn.costs.model import CostModel
from sharedattn.data import DataSource
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.objectives import OBJECTIVES
from sharedattn.results.artifacts.weights import sha256_of
from sharedattn.results.export.folder import (
    CONFIG_FORMAT,
    ExportRecord,
    exported_weights,
    read_export,
    rebuild,
)
from sharedattn.results.records import Document, EvaluationRecord
from sharedattn.weights.pretrained import WEIGHTS_NAME

TOLERANCE_IMAGES = 2  # whose answers may differ on another machine
ROUNDING = 1e-9  # of a quality that is written and read


@dataclass(frozen=True, slots=True, kw_only=True)
class Remeasured:
    """Measurements of the rebuilt network.

    Attributes:
        top1: accuracy on the recorded split, a fraction.
        num_images: images in the split.
        test_top1: accuracy on the test split, a fraction, or None without such a split.
        num_test_images: images in that split.
        recipe_key: key of the recorded recipe's document.
        device: such as "cpu".
        threads: torch threads.
        versions: versions of the libraries, by name.
    """

    top1: float
    num_images: int
    test_top1: float | None
    num_test_images: int
    recipe_key: str
    device: str
    threads: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OpenedData:
    """The data on which a network is remeasured.

    Attributes:
        source: the data.
        differences: short descriptions of its differences from the recorded data.
    """

    source: DataSource
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison and its outcome.

    Attributes:
        name: what is compared.
        expected: value in the config.
        found: actual value.
        ok: whether they agree.
    """

    name: str
    expected: Any
    found: Any
    ok: bool

    def to_json(self) -> Document:
        """Every field by name."""
        return {
            "name": self.name,
            "expected": self.expected,
            "found": self.found,
            "ok": self.ok,
        }


def verify(
    folder: Path,
    open_recorded: Callable[[ExportRecord], OpenedData],
    evaluate: Callable[[Network, ExportRecord, DataSource], Remeasured],
) -> list[Check]:
    """Compare an exported folder with the network that it rebuilds.

    Params, MACs, recipe and data must be equal. The accuracies on both splits must be equal if
    versions, device and threads are the recorded ones, and may otherwise differ by two images.
    After a failed check that others depend on, those others are skipped.

    Args:
        folder: an exported folder.
        open_recorded: opens the recorded data in its present state.
        evaluate: measures a network on the recorded split and the test split of that data.

    Returns:
        The checks, in order; the export is valid if all are ok.

    Raises:
        InputError: there is no config of a known format, or the data cannot be opened.
    """
    record = read_export(folder)
    checks = [Check("config", f"format {CONFIG_FORMAT}", f"format {CONFIG_FORMAT}", True)]
    network, rebuilt = _rebuild(folder, record)
    checks += rebuilt
    if network is None:
        return checks
    cost = CostModel(record.spec.backbone, recorded=True).totals(record.spec.placement)
    num_elements = sum(parameter.numel() for parameter in network.parameters())
    checks += [
        _equal("params, closed form", record.params, cost.params),
        _equal("params of the network", record.params, num_elements),
        _equal("MACs, closed form", record.macs, cost.macs),
    ]
    evaluation = record.evaluation
    identity = evaluation.identity
    data = open_recorded(record)
    found = data.source.fingerprint
    if data.differences:
        # An accuracy on other data would not verify this network.
        found = f"{found}: {'; '.join(data.differences)}"
    checks.append(_equal("data", identity.data_fingerprint, found))
    if not checks[-1].ok:
        return checks
    measured = evaluate(network, record, data.source)
    how, tolerance = _tolerance(evaluation, measured)
    label = OBJECTIVES[record.quality].label
    return [
        *checks,
        _equal("recipe", identity.recipe_key, measured.recipe_key),
        _equal(f"images of {evaluation.split}", evaluation.num_images, measured.num_images),
        _equal("images of test", record.num_test_images, measured.num_test_images),
        _accuracy(
            f"{label} on {evaluation.split}, {how}",
            (evaluation.top1, evaluation.num_images),
            (measured.top1, measured.num_images),
            tolerance,
        ),
        *_test_accuracy(record, measured, how, tolerance),
    ]


def verify_document(checks: list[Check]) -> Document:
    """The document that `verify --json` prints."""
    return {"ok": all(check.ok for check in checks), "checks": [c.to_json() for c in checks]}


def _rebuild(folder: Path, record: ExportRecord) -> tuple[Network | None, list[Check]]:
    expected = record.evaluation.weights_sha256
    try:
        weights = exported_weights(folder, record)
    except InputError as error:
        return None, [Check("weights", f"sha256 {expected}", str(error), False)]
    checks = [_equal("weights", expected, sha256_of(folder / WEIGHTS_NAME))]
    try:
        network = rebuild(record.spec, weights)
    except InputError as error:
        return None, [*checks, Check("rebuild", str(record.spec), str(error), False)]
    return network, [*checks, _equal("rebuild", str(record.spec), str(record.spec))]


def _equal(name: str, expected: Any, found: Any) -> Check:
    return Check(name, expected, found, expected == found)


def _tolerance(evaluation: EvaluationRecord, measured: Remeasured) -> tuple[str, int]:
    """The allowed difference of accuracies, as text and in images."""
    is_same_machine = (
        dict(measured.versions) == dict(evaluation.versions)
        and measured.device == evaluation.device
        and measured.threads == evaluation.threads
    )
    if is_same_machine:
        return "exactly", 0
    return f"within {TOLERANCE_IMAGES} images", TOLERANCE_IMAGES


def _test_accuracy(
    record: ExportRecord, measured: Remeasured, how: str, tolerance: int
) -> list[Check]:
    """The check on the test split; none where there was no such split."""
    if record.test_top1 is None or measured.test_top1 is None:
        return []
    return [
        _accuracy(
            f"{OBJECTIVES[record.quality].label} on test, {how}",
            (record.test_top1, record.num_test_images),
            (measured.test_top1, measured.num_test_images),
            tolerance,
        )
    ]


def _accuracy(
    name: str, expected: tuple[float, int], found: tuple[float, int], tolerance: int
) -> Check:
    """Compare (quality, images in the split), which may differ by the share of some images."""
    most = tolerance / max(expected[1], 1) + ROUNDING
    return Check(name, expected[0], found[0], abs(expected[0] - found[0]) <= most)
