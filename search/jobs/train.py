"""Train one placement with the whole recipe, and export it."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from sharedattn.costs.model import CostModel
from sharedattn.costs.timing import torch_threads
from sharedattn.data import DataConfig, open_data
from sharedattn.data.balance import guessing_level, imbalance_warnings
from sharedattn.placement import ResolvedSpec
from sharedattn.progress import OnProgress
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.atomic import temporary_beside
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.export.folder import ExportRecord, check_target, export, rebuild
from sharedattn.results.front.guessing import Guessing, known_class_counts, remedy
from sharedattn.results.records import Document, EvaluationRecord, Origin
from sharedattn.search.evaluators.base import evaluation_record, measure
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.evaluators.started import ExportStart, NetworkStart, StartedEvaluator
from sharedattn.search.executors.process_group import in_processes
from sharedattn.search.jobs.verify import evaluate_test
from sharedattn.search.plan_text import Work, cost_plan, data_plan, start_plan
from sharedattn.search.recorded_data import data_document
from sharedattn.tasks import CLASSIFY
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.trainer import check_recipe, evaluate
from sharedattn.weights.trained_start import TrainedStart


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementTraining:
    """The training of one placement for its export.

    Attributes:
        spec: the network.
        data: data to train and evaluate on.
        recipe: training recipe.
        device: device to train on.
        start: weights to start from, or None for random initialisation.
        num_processes: number of processes that train it together.
        shows_curve: whether to validate after every epoch.
        on_progress: called with the progress of a training, or None.
    """

    spec: ResolvedSpec
    data: DataConfig
    recipe: Recipe
    device: str
    start: NetworkStart | None = None
    num_processes: int = 1
    shows_curve: bool = False
    on_progress: OnProgress | None = None

    @property
    def has_teacher(self) -> bool:
        """Whether a trained model can teach it by distillation."""
        return isinstance(self.start, TrainedStart) and self.start.has_trained_head

    def run(
        self, folder: Path, *, seed: int, threads: int
    ) -> tuple[EvaluationRecord, dict[str, torch.Tensor]]:
        """Train without leaving files.

        Args:
            folder: temporary weights are written beside it, since only a study's driver writes
                to the study's folder.
            seed: training seed.
            threads: torch threads; repeat a run with the same number for equal results.
        """
        room = temporary_beside(folder, "weights")
        weights = WeightsStore(BlobStore(str(room)))
        scratch = ScratchEvaluator(
            data=self.data,
            recipe=self.recipe,
            weights=weights,
            device=self.device,
            shows_curve=self.shows_curve,
        )
        started = scratch if self.start is None else StartedEvaluator(scratch, self.start)
        evaluator = in_processes(started, self.num_processes)
        task = evaluator.task(self.spec, seed)
        try:
            with torch_threads(threads):
                measured = measure(evaluator, task, self.on_progress)
                evaluation = evaluation_record(task.identity, measured, threads)
            assert evaluation.weights_sha256 is not None
            return evaluation, weights.load(task.identity.key, evaluation.weights_sha256)
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def record(
        self, evaluation: EvaluationRecord, state_dict: dict[str, torch.Tensor]
    ) -> ExportRecord:
        """The export's record of a run and its weights, including the accuracy on the test split.

        Only this opens the test split; no choice depends on the result.
        """
        source = open_data(self.data)
        cost = CostModel(self.spec.backbone, recorded=True).totals(self.spec.placement)
        network = rebuild(self.spec, state_dict).to(self.device)
        with torch_threads(evaluation.threads):
            test = evaluate_test(
                network, source, batch_size=self.recipe.batch_size, device=self.device
            )
        return ExportRecord(
            spec=self.spec,
            params=cost.params,
            macs=cost.macs,
            recipe=self.recipe.to_json(),
            data=data_document(source),
            evaluation=evaluation,
            test_top1=None if test is None else test.quality,
            num_test_images=source.num_images("test"),
            top1_by_seed={evaluation.identity.seed: evaluation.top1},
            starts_from=None if self.start is None else self.start.sha256,
            origin=_origin(self.start),
        )

    def before(self, *, seed: int) -> Metrics | None:
        """The network on the validation split, with the weights that its training starts from.

        Args:
            seed: training seed, which parts depend on that the weights lack.

        Returns:
            Its metrics, or None without such weights, or with a head that was never trained.

        Raises:
            InputError: the weights are gone, or others than before.
            FloatingPointError: its logits are not finite.
        """
        if self.start is None or not self.start.has_trained_head:
            return None
        source = open_data(self.data)
        network = self.start.network(self.spec, self.recipe, source, seed=seed, device=self.device)
        return evaluate(
            network.to(self.device),
            source,
            "validation",
            batch_size=self.recipe.batch_size,
            device=self.device,
        )


def _origin(start: NetworkStart | None) -> Origin | None:
    """What a training alone started from; None for random weights, or a supernet's."""
    if isinstance(start, ExportStart):
        return Origin(source=start.folder, epochs=start.epochs)
    if not isinstance(start, TrainedStart):
        return None
    head = start.head
    return Origin(
        source=start.source,
        trained_classes=None if head is None else head.trained_classes,
        head_images=None if head is None else head.num_images,
    )


def train_placement(
    training: PlacementTraining, folder: Path, *, seed: int, onnx: bool = False
) -> ExportRecord:
    """Train one placement with the whole recipe, and export it.

    Args:
        training: the placement, its data and recipe.
        folder: output folder; an export there is replaced.
        seed: training seed.
        onnx: whether to write model.onnx as well.

    Returns:
        The export's record.

    Raises:
        InputError: the folder cannot be written, the data does not fit the network, or the recipe
            cannot be trained. Nothing was trained.
    """
    check_target(folder, onnx=onnx)
    check_recipe(
        training.spec,
        open_data(training.data),
        training.recipe,
        device=training.device,
        num_processes=training.num_processes,
        has_teacher=training.has_teacher,
    )
    evaluation, state_dict = training.run(folder, seed=seed, threads=torch.get_num_threads())
    record = training.record(evaluation, state_dict)
    export(folder, record, state_dict, onnx=onnx)
    return record


def training_plan(training: PlacementTraining) -> Document:
    """The plan of `train_placement`: documents of `data_plan`, `cost_plan` and `start_plan`.

    Raises:
        InputError: the recipe cannot be trained on this data.
    """
    spec, source = training.spec, open_data(training.data)
    check_recipe(
        spec,
        source,
        training.recipe,
        device=training.device,
        has_teacher=training.has_teacher,
    )
    macs = CostModel(spec.backbone).totals(spec.placement).macs
    work = Work(
        backbone=spec.backbone,
        placements=[spec.placement],
        macs_range=(macs, macs),
        recipe=training.recipe,
        num_trainings=1,
        num_slots=1,
        num_seeds=1,
        threads=torch.get_num_threads(),
        device=training.device,
        is_here=True,
    )
    start = training.start
    weights = (
        {"weights": start_plan(start)} if isinstance(start, ExportStart | TrainedStart) else {}
    )
    return {"data": data_plan(training.data, source), "cost": cost_plan(work, source), **weights}


def training_warnings(record: ExportRecord, before: Metrics | None = None) -> list[str]:
    """Warn of a network that a training made worse, or that guesses, and of unusual data.

    Args:
        record: the trained network.
        before: the same network before this training, or None if that says nothing.
    """
    warnings = [] if before is None else _worse(record, before)
    if record.spec.backbone.head != CLASSIFY:
        return warnings
    return warnings + _classifier_warnings(record)


def _worse(record: ExportRecord, before: Metrics) -> list[str]:
    after, quality = record.evaluation.top1, before.quality
    # A standard error of the difference, as if the two had nothing in common.
    error = math.sqrt((after * (1 - after) + quality * (1 - quality)) / max(1, before.num_images))
    if quality - after <= error:
        return []
    return [
        f"this training made the network worse: {before.name} {quality:.3f} before it, "
        f"{after:.3f} after; train for more epochs, or by a recipe with a lower `lr`"
    ]


def _classifier_warnings(record: ExportRecord) -> list[str]:
    counts = known_class_counts(record.data)
    num_classes = record.spec.backbone.num_classes
    evaluation = record.evaluation
    warnings = imbalance_warnings(counts or (), record.data.get("classes") or ())
    if num_classes < 2:
        return warnings
    guessing = Guessing(
        level=guessing_level(num_classes, counts),
        num_classes=num_classes,
        num_images=evaluation.num_images,
    )
    if evaluation.top1 <= guessing.bar:
        epochs = evaluation.identity.fidelity.epochs
        warnings.insert(0, f"not above guessing: {guessing.text}; {remedy(epochs)}")
    return warnings
