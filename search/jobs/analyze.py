"""Analyse one network, trained or not: read it, measure it, write the document and plots."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
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
from sharedattn.search.data_plan import DEFAULT_DATA, data_for
from sharedattn.search.evaluation.recipes import load_recipe
from sharedattn.search.provenance import library_versions
from sharedattn.search.recorded_data import open_recorded
from sharedattn.training.trainer import check_fit

ANALYSIS_NAME = "analysis.json"
OWN_SEED = 0  # of a network without trained weights; its controls have the seeds from 1 on


@dataclass(frozen=True, slots=True)
class _Subject:
    """The network that is analysed, and what it is measured on.

    Attributes:
        spec: the network.
        state_dict: its weights, or None if it is randomly initialised.
        weights: where its weights come from, as a document.
        data: what it is measured on.
        recipe: how it was trained; its controls have the same initialisation.
        out: where its analysis goes unless told.
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
    """Analyse a network, and write the document and the plots.

    Args:
        config: an exported folder, its config.yaml, or `backbone: placement`, which has no trained
            weights and is randomly initialised.
        data: where the data is now, or None where it was, or for the embedded data.
        data_root: where a named data set is now, or None.
        against: an exported folder of a network that differs in context broadcasting alone; None:
            there is none.
        num_images: validation images to measure on, all where there are fewer.
        num_controls: randomly initialised networks to measure beside it.
        out: folder to write, which replaces an older analysis; None for `analysis` in the export,
            or `sharedattn-out/analysis`.
        device: where to run.

    Returns:
        The document of `analyze --json`, and the folder it was written to.

    Raises:
        InputError: no such network, data or counterpart, a folder that cannot be written, too few
            images or controls. Nothing was measured.
    """
    check_whole("--images", num_images, 1, MAX_COUNT)
    check_whole("--seeds", num_controls, 2, MAX_COUNT)  # fewer have no spread
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
    """Write the document and the plots, and return the document."""
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
    # Not `Path.exists`, which raises on a text too long for a file's name.
    if not os.path.exists(config):
        parsed = NetworkSpec.parse(config)
        spec = resolve(parsed)
        name = data or DEFAULT_DATA
        return _Subject(
            spec=spec,
            state_dict=None,
            weights={"source": "random initialisation", "seed": OWN_SEED},
            data=open_data(data_for(parsed.backbone, name, data_root)),
            recipe=load_recipe(None, name, None),
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
