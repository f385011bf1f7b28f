"""Export a placement of a study, training it again if its weights are no longer kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sharedattn.backbones import resolve
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.progress import OnProgress
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import ExportRecord, check_target, export, read_export
from sharedattn.results.front.baselines import baseline_document
from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import (
    Document,
    EvaluationRecord,
    Fidelity,
    StudyRecord,
)
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.evaluators.started import SharedStart
from sharedattn.search.jobs.train import PlacementTraining
from sharedattn.search.recorded_data import open_recorded
from sharedattn.search.study.strategies.supernet import SUPERNET_NOTE, evaluator_of


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
    """Export the best run of an evaluated placement.

    Weights that are no longer kept are trained again with the same seed and recipe; a fine-tuned
    placement starts from the supernet's weights again.

    Args:
        store: the study's database.
        summary: the study.
        pick: the placement, as in `StudySummary.pick`.
        folder: output folder; an export there is replaced.
        weights: store of the study's weights.
        device: device to train on.
        onnx: whether to write model.onnx as well.
        data: where the study's data is now, or None if it has not moved.
        data_root: folder of a named data set, or None if it has not moved.
        on_progress: called with the progress of a training, or None.

    Returns:
        A sentence that says why the placement was trained again, or None if it was not.

    Raises:
        InputError: the folder cannot be written, the pick is invalid, the study trains nothing,
            the weights differ from the recorded ones, or the data from the study's. Nothing was
            trained.
    """
    check_target(folder, onnx=onnx)
    chosen = _Chosen.of(store, summary, pick)
    study = chosen.study
    source = open_recorded(study.data, f"study {study.name!r}", data=data, data_root=data_root)
    training = PlacementTraining(
        spec=resolve(NetworkSpec.from_json(store.spec(chosen.candidate.spec_key).document)),
        data=source.config,
        recipe=chosen.recipe,
        device=device,
        on_progress=on_progress,
    )
    evaluation, state_dict, message = chosen.trained(training, weights, folder)
    record = chosen.with_origin(training.record(evaluation, state_dict))
    latency = store.latencies(summary.study).get(chosen.candidate.spec_key)
    record = replace(
        record,
        latency=latency,
        start=summary.start,
        baselines=[
            baseline_document(b, summary.front.members, summary.study.record.quality)
            for b in summary.baselines
        ],
    )
    export(folder, record, state_dict, onnx=onnx)
    return message


def is_export_of(folder: Path, candidate: Candidate, study: str) -> bool:
    """Whether a folder holds the export of a placement's best run.

    Args:
        folder: path, which may not exist.
        candidate: the placement.
        study: the study's name.
    """
    run = candidate.best_run
    try:
        record = read_export(folder)
    except InputError:
        return False
    identity = record.evaluation.identity
    if Fidelity.from_key(run.fidelity_key or "").weights == "trained":
        return identity.key == run.evaluation_key
    # A run trained only for its export: the study has no such evaluation.
    made = (record.study, record.trial, identity.spec_key, identity.seed)
    return made == (study, candidate.number, run.spec_key, run.seed)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The placement to export.

    Attributes:
        study: the study.
        candidate: the placement.
        evaluation: its best run.
        supernet: the study's note on the supernet that its placements are fine-tuned from, or
            None if they are trained from scratch.
    """

    study: StudyRecord
    candidate: Candidate
    evaluation: EvaluationRecord
    supernet: Document | None

    @classmethod
    def of(cls, store: Store, summary: StudySummary, pick: str) -> _Chosen:
        """Find the placement that a pick means; raises the errors of `export_placement`."""
        study, candidate = summary.study.record, summary.pick(pick)
        if not study.recipe:
            raise InputError(
                f"study {study.name!r} read its accuracies from a table, so there are no weights "
                f"to export; train the placement with sharedattn train"
            )
        supernet = None
        if study.fine_tunes:
            supernet = store.searcher_attributes(summary.study)[SUPERNET_NOTE]
            if "recipe" not in supernet:
                raise InputError(
                    f"study {study.name!r} was made by an earlier version, which did not store "
                    f"its supernet's recipe; search again by another --study"
                )
        stored = store.find_evaluation(candidate.best_run.evaluation_key or "")
        assert stored is not None
        return cls(study, candidate, stored.record, supernet)

    @property
    def recipe(self) -> Recipe:
        """The recipe of its best run, which may be longer than that of the search's trials."""
        recipe = Recipe.from_json(self.study.recipe)
        fidelity = self.evaluation.identity.fidelity
        if fidelity.weights == "trained" and fidelity.epochs != recipe.epochs:
            return recipe.extended(fidelity.epochs)
        return recipe

    def trained(
        self, training: PlacementTraining, weights: WeightsStore, folder: Path
    ) -> tuple[EvaluationRecord, dict[str, torch.Tensor], str | None]:
        """The run, its weights (trained if they are not kept), and why it was trained."""
        evaluation = self.evaluation
        missing = self._missing(weights)
        if missing is None:
            assert evaluation.weights_sha256 is not None
            state_dict = weights.load(evaluation.identity.key, evaluation.weights_sha256)
            return evaluation, state_dict, None
        seed = evaluation.identity.seed
        why = (
            f"it was trained for its export, by seed {seed}"
            if self._is_inherited
            else "it was trained again, under the same seed"
        )
        if self.supernet is not None:
            start = self._start(self.supernet, training, weights, missing)
            training = replace(training, start=start)
        run = training.run(folder, seed=seed, threads=evaluation.threads)
        return *run, f"{missing}: {why}"

    def with_origin(self, record: ExportRecord) -> ExportRecord:
        """Add the study and the placement's other seeds to a run's record."""
        by_seed = {
            run.seed: run.top1
            for run in (() if self._is_inherited else self.candidate.runs)
            if run.seed is not None and run.top1 is not None
        }
        return replace(
            record,
            # The accuracy of a retrained run replaces the recorded one.
            top1_by_seed={**by_seed, **record.top1_by_seed},
            study=self.study.name,
            trial=self.candidate.number,
            starts_from=None if self.supernet is None else str(self.supernet["sha256"]),
        )

    @property
    def _is_inherited(self) -> bool:
        return self.evaluation.identity.fidelity.weights == "inherited"

    def _missing(self, weights: WeightsStore) -> str | None:
        """Why the weights cannot be exported, or None if they can."""
        key, sha256 = self.evaluation.identity.key, self.evaluation.weights_sha256
        if self._is_inherited:
            return "its accuracy is of shared weights"
        if sha256 is None:
            return "its weights were not kept"
        if not weights.has(key, sha256):
            return f"its weights are recorded, but not found at {weights.shown(key, sha256)}"
        return None

    def _start(
        self, note: Document, training: PlacementTraining, weights: WeightsStore, missing: str
    ) -> SharedStart:
        """The shared weights that a fine-tuning starts from.

        Raises:
            InputError: the supernet's weights are gone as well, or it learnt from a trained model
                besides, which no study keeps.
        """
        if training.recipe.distillation:
            raise InputError(
                f"{missing}, and its training learnt from the model that the search started from, "
                f"which no study keeps; run `sharedattn search` again with the same --weights"
            )
        sha256 = str(note["sha256"])
        if not weights.has(note["key"], sha256):
            raise InputError(
                f"{missing}, and it is fine-tuned again from the supernet's weights, which are "
                f"not found at {weights.shown(note['key'], sha256)}; put them back there"
            )
        scratch = ScratchEvaluator(
            data=training.data, recipe=training.recipe, weights=weights, device=training.device
        )
        return SharedStart(evaluator_of(self.study, note, scratch), sha256)
