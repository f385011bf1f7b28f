"""From a study's placement to a folder, from a folder to its proof, and training one placement."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.costs.timing import torch_threads
from sharedattn.data import DataConfig, DataSource, open_data, reopen_data
from sharedattn.data.source import SplitName
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec, ResolvedSpec
from sharedattn.progress import OnProgress
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.atomic import temporary_beside
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import ExportRecord, check_target, export, rebuild
from sharedattn.results.export.verify import OpenedData, Remeasured, verify, verify_document
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import (
    Document,
    EvaluationRecord,
    LatencyRecord,
    fine_tuning_key,
)
from sharedattn.search.data_plan import differences, moved, refuse_other_data
from sharedattn.search.evaluators.base import evaluation_record, measure, outcome
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.evaluators.supernet import SupernetEvaluator
from sharedattn.search.executors.process_group import in_processes
from sharedattn.search.provenance import library_versions
from sharedattn.search.study.strategies.supernet import SUPERNET_NOTE, evaluator_of
from sharedattn.training.trainer import Metrics, check_recipe, evaluate


def export_placement(
    store: Store,
    summary: StudySummary,
    pick: str,
    folder: Path,
    *,
    weights: WeightsStore,
    device: str = "cpu",
    onnx: bool = False,
    data: str | None = None,
    data_root: str | None = None,
    on_progress: OnProgress | None = None,
) -> str | None:
    """Export the best run of a placement that a study has evaluated.

    Weights that are no longer kept are trained again, under the same seed and recipe; those of a
    fine-tuned placement from its share of the supernet's.

    Args:
        store: the study's database.
        summary: the study.
        pick: which placement, see `StudySummary.pick`.
        folder: where to; replaced when it is an export.
        weights: where the study keeps its weights.
        device: where to train again.
        onnx: whether to write model.onnx as well.
        data: where the study's data is now; None: where it was.
        data_root: likewise, of a named data set.
        on_progress: told how far a training is; None: nobody is.

    Returns:
        The sentence that says why the placement was trained again; None: it was not.

    Raises:
        InputError: a folder that cannot be written, a pick that means nothing, a study without
            training, weights that are not the recorded ones, or data that is not the study's.
            Nothing was trained.
    """
    check_target(folder, onnx=onnx)
    study = summary.study.record
    candidate = summary.pick(pick)
    if not study.recipe:
        raise InputError(
            f"study {study.name!r} read its accuracies from a table, so there are no weights to "
            f"export; train the placement with sharedattn train"
        )
    stored = store.find_evaluation(candidate.best_run.evaluation_key or "")
    assert stored is not None
    evaluation = stored.record
    spec = NetworkSpec.from_json(store.spec(candidate.spec_key).document)
    recipe = Recipe.from_json(study.recipe)
    source = open_recorded(study.data, f"study {study.name!r}", data=data, data_root=data_root)
    config = source.config
    key = evaluation.identity.key
    sha256 = evaluation.weights_sha256
    is_inherited = evaluation.identity.fidelity.weights == "inherited"
    by_seed = {
        run.seed: top1
        for run, top1 in zip(candidate.runs, candidate.top1s, strict=True)
        if run.seed is not None and not is_inherited
    }
    missing = None
    if is_inherited:
        missing = "its accuracy is of shared weights"
    elif sha256 is None:
        missing = "its weights were not kept"
    elif not weights.has(key, sha256):
        missing = f"its weights are recorded, but not found at {weights.shown(key, sha256)}"
    shared, starts_from = None, None
    if study.fine_tunes:
        note = store.searcher_attributes(summary.study)[SUPERNET_NOTE]
        if "recipe" not in note:
            raise InputError(
                f"study {study.name!r} was made by an earlier version, which did not store its "
                f"supernet's recipe; search again by another --study"
            )
        starts_from = str(note["sha256"])
        if missing is not None:
            if not weights.has(note["key"], starts_from):
                raise InputError(
                    f"`weights that are fine-tuned again begin with those of the supernet` must "
                    f"hold, but {missing}, and nor are the supernet's at "
                    f"{weights.shown(note['key'], starts_from)}; put them back there"
                )
            scratch = ScratchEvaluator(data=config, recipe=recipe, weights=weights, device=device)
            shared = evaluator_of(study, note, scratch)
    if missing is None:
        assert sha256 is not None
        state_dict = weights.load(key, sha256)
    else:
        evaluation, state_dict = _train(
            resolve(spec),
            config,
            recipe,
            folder,
            seed=evaluation.identity.seed,
            threads=evaluation.threads,
            device=device,
            start=None if shared is None else _Start(shared, str(starts_from)),
            on_progress=on_progress,
        )
    _write(
        folder,
        spec,
        recipe,
        config,
        evaluation,
        state_dict,
        device=device,
        onnx=onnx,
        top1_by_seed=by_seed | {evaluation.identity.seed: evaluation.top1},
        study=study.name,
        trial=candidate.number,
        starts_from=starts_from,
        latency=store.latencies(summary.study).get(candidate.spec_key),
    )
    if is_inherited:
        return f"{missing}: it was trained for its export, by seed {evaluation.identity.seed}"
    return missing and f"{missing}: it was trained again, under the same seed"


def train_placement(
    spec: ResolvedSpec,
    data: DataConfig,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    device: str,
    num_processes: int = 1,
    onnx: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportRecord:
    """Train one placement by the whole recipe, and export it.

    Args:
        spec: the network.
        data: what to train and evaluate on.
        recipe: how.
        folder: where to; replaced when it is an export.
        seed: of the training.
        device: where to train.
        num_processes: processes that train it together.
        onnx: whether to write model.onnx as well.
        on_progress: told how far the training is; None: nobody is.

    Returns:
        What was exported.

    Raises:
        InputError: a folder that cannot be written, data that does not fit the network, or a
            recipe that cannot be trained. Nothing was trained.
    """
    check_target(folder, onnx=onnx)
    check_recipe(spec, open_data(data), recipe, device=device, num_processes=num_processes)
    evaluation, state_dict = _train(
        spec,
        data,
        recipe,
        folder,
        seed=seed,
        threads=torch.get_num_threads(),
        device=device,
        num_processes=num_processes,
        on_progress=on_progress,
    )
    return _write(
        folder,
        spec,
        recipe,
        data,
        evaluation,
        state_dict,
        device=device,
        onnx=onnx,
        top1_by_seed={seed: evaluation.top1},
    )


def verify_folder(
    folder: Path, *, data: str | None = None, data_root: str | None = None, device: str = "cpu"
) -> Document:
    """Rebuild an exported network, and compare its figures: see `results.export.verify`.

    Args:
        folder: the exported folder.
        data: where its data is now; None: where it was.
        data_root: likewise, of a named data set.
        device: where to evaluate.

    Returns:
        The document of `verify --json`: `ok` and `checks`.

    Raises:
        InputError: no readable export, or no such data.
    """

    def opened(record: ExportRecord) -> OpenedData:
        source = open_recorded(
            record.data, f"export {folder}", data=data, data_root=data_root, check=False
        )
        return OpenedData(source, tuple(differences(source, record.data)))

    def measure(network: Network, record: ExportRecord, source: DataSource) -> Remeasured:
        recipe = Recipe.from_json(record.recipe)
        network.to(device)
        # Sums have the order that as many threads give them.
        with torch_threads(record.evaluation.threads):
            batch_size = recipe.batch_size
            validation = evaluate(
                network, source, "validation", batch_size=batch_size, device=device
            )
            test = evaluate_test(network, source, batch_size=batch_size, device=device)
        return Remeasured(
            top1=validation.top1,
            num_images=validation.num_images,
            test_top1=None if test is None else test.top1,
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
    """Metrics on the test split; None: the data has none."""
    if not source.num_images("test"):
        return None
    return evaluate(network, source, "test", batch_size=batch_size, device=device)


def open_recorded(
    document: Document,
    what: str,
    *,
    data: str | None = None,
    data_root: str | None = None,
    check: bool = True,
) -> DataSource:
    """The data of a record, as it is now.

    Args:
        document: what the record says of its data, see `data_document`.
        what: the record, for messages.
        data: where its data is now; None: where it was.
        data_root: likewise, of a named data set.
        check: whether other data than the record's is refused.

    Raises:
        InputError: no such data, or other data than the record's.
    """
    config = DataConfig.from_json(document.get("config", {}))
    config = moved(config, data, data_root)
    try:
        source = reopen_data(config)
    except InputError as error:
        if data is not None:
            raise
        raise InputError(f"{error}; say by --data where the data of {what} is now") from error
    if check:
        refuse_other_data(source, document, what)
    return source


def data_document(config: DataConfig, source: DataSource) -> Document:
    """What the database and exports say of the data."""
    splits: tuple[SplitName, ...] = ("train", "validation", "test")
    counts = {split: source.class_counts(split) for split in splits}
    return {
        "name": source.name,
        "config": config.to_json(),
        "fingerprint": source.fingerprint,
        "identity": source.identity,
        "images": {split: source.num_images(split) for split in splits},
        "class_counts": {s: list(count) for s, count in counts.items() if count is not None},
        "classes": None if source.class_names is None else list(source.class_names),
        "origins": source.origins,
        "notes": list(source.notes),
        "pixels": (
            None
            if source.pixels is None
            else {
                "image_size": source.image_size,
                "in_chans": source.in_chans,
                **source.pixels.to_json(),
            }
        ),
    }


@dataclass(frozen=True, slots=True)
class _Start:
    """What a placement's training begins with: its share of a supernet's weights."""

    shared: SupernetEvaluator
    weights_sha256: str


def _train(
    spec: ResolvedSpec,
    data: DataConfig,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    threads: int,
    device: str,
    num_processes: int = 1,
    start: _Start | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[EvaluationRecord, dict[str, torch.Tensor]]:
    """Train on as many threads as the run that is repeated.

    The weights pass through a folder beside the target alone: a study's own folder is its
    driver's to write.
    """
    room = temporary_beside(folder, "weights")
    weights = WeightsStore(BlobStore(str(room)))
    scratch = ScratchEvaluator(data=data, recipe=recipe, weights=weights, device=device)
    evaluator = in_processes(scratch, num_processes)
    task = evaluator.task(spec, seed)
    try:
        with torch_threads(threads):
            if start is None:
                measured = measure(evaluator, task, on_progress)
            else:
                task = start.shared.fine_tuning_task(task, start.weights_sha256)
                network = start.shared.member(spec.placement, start.weights_sha256)
                measured = outcome(scratch.train(task, network, on_progress=on_progress))
            evaluation = evaluation_record(task, measured, threads)
        assert evaluation.weights_sha256 is not None
        return evaluation, weights.load(task.identity.key, evaluation.weights_sha256)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _write(
    folder: Path,
    spec: NetworkSpec,
    recipe: Recipe,
    config: DataConfig,
    evaluation: EvaluationRecord,
    state_dict: dict[str, torch.Tensor],
    *,
    device: str,
    onnx: bool,
    top1_by_seed: dict[int, float],
    study: str | None = None,
    trial: int | None = None,
    starts_from: str | None = None,
    latency: LatencyRecord | None = None,
) -> ExportRecord:
    source = open_data(config)
    cost = CostModel(spec.backbone, recorded=True).totals(spec.placement)
    network = rebuild(spec, state_dict).to(device)
    with torch_threads(evaluation.threads):
        # The one time that the test split is opened: nothing is chosen by what it says.
        test = evaluate_test(network, source, batch_size=recipe.batch_size, device=device)
    record = ExportRecord(
        spec=spec,
        params=cost.params,
        macs=cost.macs,
        recipe=recipe.to_json(),
        data=data_document(config, source),
        evaluation=evaluation,
        test_top1=None if test is None else test.top1,
        num_test_images=source.num_images("test"),
        top1_by_seed=top1_by_seed,
        study=study,
        trial=trial,
        starts_from=starts_from,
        latency=latency,
    )
    export(folder, record, state_dict, onnx=onnx)
    return record
