"""Rebuild an exported network and compare its figures with the folder's."""

from __future__ import annotations

from pathlib import Path

from sharedattn.costs.timing import torch_threads
from sharedattn.data import DataSource
from sharedattn.networks.network import Network
from sharedattn.recipe import Recipe
from sharedattn.results.export.folder import ExportRecord
from sharedattn.results.export.verify import OpenedData, Remeasured, verify, verify_document
from sharedattn.results.records import Document, fine_tuning_key
from sharedattn.search.provenance import library_versions
from sharedattn.search.recorded_data import differences, open_recorded
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.trainer import evaluate


def verify_folder(
    folder: Path, *, data: str | None = None, data_root: str | None = None, device: str = "cpu"
) -> Document:
    """Rebuild an exported network and compare its figures; see `results.export.verify`.

    Args:
        folder: the exported folder.
        data: where its data is now, or None if it has not moved.
        data_root: folder of a named data set, or None if it has not moved.
        device: device to evaluate on.

    Returns:
        The document of `verify --json`: `ok` and `checks`.

    Raises:
        InputError: the folder is not a readable export, or the data is missing.
    """

    def opened(record: ExportRecord) -> OpenedData:
        source = open_recorded(
            record.data, f"export {folder}", data=data, data_root=data_root, check=False
        )
        return OpenedData(source, tuple(differences(source, record.data)))

    def measure(network: Network, record: ExportRecord, source: DataSource) -> Remeasured:
        recipe = Recipe.from_json(record.recipe)
        network.to(device)
        # The order of summation depends on the number of threads.
        with torch_threads(record.evaluation.threads):
            batch_size = recipe.batch_size
            validation = evaluate(
                network, source, "validation", batch_size=batch_size, device=device
            )
            test = evaluate_test(network, source, batch_size=batch_size, device=device)
        return Remeasured(
            top1=validation.quality,
            num_images=validation.num_images,
            test_top1=None if test is None else test.quality,
            num_test_images=source.num_images("test"),
            recipe_key=recipe.key
            if record.starts_from is None
            else fine_tuning_key(recipe.key, record.starts_from),
            device=device,
            threads=record.evaluation.threads,
            versions=library_versions(),
        )

    return verify_document(verify(folder, opened, measure))


def evaluate_test(
    network: Network, source: DataSource, *, batch_size: int, device: str
) -> Metrics | None:
    """Metrics on the test split, or None if the data has none."""
    if not source.num_images("test"):
        return None
    return evaluate(network, source, "test", batch_size=batch_size, device=device)
