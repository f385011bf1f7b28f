"""Analyse one network, trained or not, and write the document and plots."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sharedattn.backbones import resolve
from sharedattn.data import DataSource, open_data
from sharedattn.placement import NetworkSpec, ResolvedSpec
from sharedattn.recipe import Recipe
from sharedattn.results.analysis import (
    Analysis,
    TrainedNetwork,
    analyse,
    check_counterpart,
    read_images,
)
from sharedattn.results.analysis.document import ANALYSIS_FORMAT, analysis_document
from sharedattn.results.analysis.plots import write_plots
from sharedattn.results.artifacts.folders import check_replaceable, folder_in_place_of, write_text
from sharedattn.results.export.folder import exported_weights, read_export
from sharedattn.results.records import Document
from sharedattn.search.checks import MAX_COUNT, check_whole
from sharedattn.search.data_plan import data_for, default_data, for_data
from sharedattn.search.evaluation.recipes import recipe_for
from sharedattn.search.provenance import library_versions
from sharedattn.search.recorded_data import open_recorded
from sharedattn.training.trainer import check_fit

ANALYSIS_NAME = "analysis.json"
OWN_SEED = 0  # seed of a network without trained weights; its controls have 1, 2, ...


@dataclass(frozen=True, slots=True)
class _Subject:
    """The network to analyse, and the data to measure it on.

    Attributes:
        spec: the network.
        state_dict: its weights, or None if it is randomly initialised.
        weights: where its weights come from, as a document.
        data: data to measure it on.
        recipe: its training recipe; controls are initialised by the same.
        out: default output folder.
    """

    spec: ResolvedSpec
    state_dict: Mapping[str, Tensor] | None
    weights: Document
    data: DataSource
    recipe: Recipe
    out: Path


def analyse_config(
    config: str,
    *,
    data: str | None = None,
    data_root: str | None = None,
    against: Path | None = None,
    num_images: int = 256,
    num_controls: int = 5,
    out: Path | None = None,
    device: str = "cpu",
) -> tuple[Document, Path]:
    """Analyse a network and write the document and plots.

    Args:
        config: an exported folder, its config.yaml, or `backbone: placement` for a randomly
            initialised network.
        data: where the data is now, or None if it has not moved or is embedded.
        data_root: folder of a named data set, or None if it has not moved.
        against: an exported folder of a network that differs only in context broadcasting, or
            None to compare with none.
        num_images: number of validation images to measure on; all if there are fewer.
        num_controls: number of randomly initialised networks to measure for comparison.
        out: folder to write, replacing an older analysis; defaults to `analysis` in the export,
            or to `sharedattn-out/analysis`.
        device: device to run on.

    Returns:
        The document of `analyze --json`, and the folder it was written to.

    Raises:
        InputError: no such network, data or counterpart; or the folder cannot be written; or too
            few images or controls. Nothing was measured.
    """
    check_whole("--images", num_images, 1, MAX_COUNT)
    check_whole("--seeds", num_controls, 2, MAX_COUNT)  # fewer have no standard deviation
    subject = _read(config, data, data_root)
    counterpart = None if against is None else _read_counterpart(against, subject.spec)
    folder = out or subject.out
    check_replaceable(folder, "an analysis", _is_analysis)
    check_fit(subject.spec.backbone, subject.data)
    images = read_images(
        subject.data,
        subject.spec,
        num_images,
        batch_size=subject.recipe.batch_size,
        device=device,
    )
    analysis = analyse(
        subject.spec,
        subject.state_dict,
        images,
        init=subject.recipe.init,
        seed=OWN_SEED,
        control_seeds=range(OWN_SEED + 1, OWN_SEED + 1 + num_controls),
        counterpart=counterpart,
        device=device,
    )
    return _write(folder, analysis, subject, against=against, device=device), folder


def _write(
    folder: Path, analysis: Analysis, subject: _Subject, *, against: Path | None, device: str
) -> Document:
    """Write the document and plots; return the document."""
    with folder_in_place_of(folder) as made:
        document = analysis_document(analysis) | {
            "weights": subject.weights,
            "against": None if against is None else str(against),
            "data": {
                "name": subject.data.name,
                "fingerprint": subject.data.fingerprint,
                "split": "validation",
            },
            "plots": write_plots(made, analysis),
            "device": device,
            "versions": library_versions(),
        }
        text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(made / ANALYSIS_NAME, text + "\n")
    return document


def _read(config: str, data: str | None, data_root: str | None) -> _Subject:
    # Not `Path.exists`, which raises if the text is too long for a path.
    if not os.path.exists(config):
        parsed = NetworkSpec.parse(config)
        resolve(parsed)  # a wrong placement is said before the data is looked at
        name = data or default_data(parsed.backbone)
        source = open_data(data_for(parsed.backbone, name, data_root))
        return _Subject(
            spec=resolve(replace(parsed, backbone=for_data(parsed.backbone, source))),
            state_dict=None,
            weights={"source": "random initialisation", "seed": OWN_SEED},
            data=source,
            recipe=recipe_for(None, source, None),
            out=Path("sharedattn-out", "analysis"),
        )
    folder = Path(config) if Path(config).is_dir() else Path(config).parent
    record = read_export(Path(config))
    return _Subject(
        spec=resolve(record.spec),
        state_dict=exported_weights(folder, record),
        weights={"source": str(folder), "sha256": record.evaluation.weights_sha256},
        data=open_recorded(record.data, f"export {folder}", data=data, data_root=data_root),
        recipe=Recipe.from_json(record.recipe),
        out=folder / "analysis",
    )


def _read_counterpart(folder: Path, spec: NetworkSpec) -> TrainedNetwork:
    record = read_export(folder)
    other = resolve(record.spec)
    check_counterpart(spec, other)
    return TrainedNetwork(other, exported_weights(folder, record))


def _is_analysis(folder: Path) -> bool:
    try:
        document: Any = json.loads((folder / ANALYSIS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == ANALYSIS_FORMAT
