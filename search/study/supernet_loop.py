"""The study loop of a supernet: train once, score placements by its weights, train the front.

Search trials are scores: placements that have the shared weights' accuracy from the moment they
are written. A space that is small enough is scored whole, so that its front of inherited
accuracies is exact; of a larger one the searcher proposes generations, each scored at once. The
front's members are then trained by themselves, as further runs of the study, by the same rules and
in the same slots as any trial.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from sharedattn.backbones import resolve
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.database.store import Store
from sharedattn.results.front.confirmation import next_confirmations
from sharedattn.results.records.records import (
    Document,
    EvaluationRecord,
    ScoredTrial,
    SpecRecord,
    Study,
    StudyRecord,
    TrialParameters,
    TrialRole,
)
from sharedattn.search.evaluators import Task
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.evaluators.supernet import Scores, ScoreTask, SupernetEvaluator
from sharedattn.search.executors import Executor
from sharedattn.search.executors.retries import run_tasks
from sharedattn.search.provenance import library_versions
from sharedattn.search.searchers import PastTrial, Proposal
from sharedattn.search.status import Running
from sharedattn.search.study.loop import Flight, StudyLoop, placement_of
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.supernet.trainer import SupernetRecipe, check_no_groups
from sharedattn.training.trainer import Metrics

SUPERNET_NOTE = "sharedattn:supernet"
MAX_EXHAUSTIVE = 20_000  # placements of a space that is scored whole, unless fewer are asked for
LARGE_SPACE_TRIALS = 2_000  # placements scored of a larger one, where no number is asked for
GENERATION = 100  # proposals that are scored at once
TASKS_PER_SLOT = 4  # of scoring: fewer share more, more waste less at the end


def default_num_trials(space: BudgetedSpace) -> int:
    """Placements that are scored where no number is asked for."""
    return space.in_budget if space.in_budget <= MAX_EXHAUSTIVE else LARGE_SPACE_TRIALS


def check_goes_on(store: Store, study: Study) -> None:
    """Refuse to go on with a study whose supernet cannot be trained or asked any more.

    Args:
        store: the database.
        study: one of a supernet, or of none.

    Raises:
        InputError: its supernet was of several networks.
    """
    note = store.searcher_attributes(study).get(SUPERNET_NOTE, {})
    try:
        check_no_groups(note.get("recipe", {}))
    except InputError as error:
        raise InputError(
            f"study {study.record.name!r} is shown, reported and exported, and does not go on: "
            f"{error}; begin another with --study"
        ) from error


def evaluator_of(
    study: StudyRecord, note: Document, scratch: ScratchEvaluator
) -> SupernetEvaluator:
    """The evaluator of a study whose supernet has been trained, for its members.

    Args:
        study: the study.
        note: what it keeps under `SUPERNET_NOTE`.
        scratch: trains placements by themselves; its weights' store has the supernet's.
    """
    asked = study.fingerprint_document
    return SupernetEvaluator(
        scratch=scratch,
        space=Space.from_document(study.space),
        budget=Budget.from_document(asked),
        recipe=SupernetRecipe.from_json(note["recipe"]),
        seed=study.seed,
        pretrained_sha256=note["pretrained_sha256"],
    )


@dataclass(frozen=True, slots=True)
class SharedExecutors:
    """What runs the work that all placements share; each is opened when it is needed.

    Attributes:
        training: one slot, for the supernet's training.
        scoring: slots for the scores.
    """

    training: Callable[[], AbstractContextManager[Executor]]
    scoring: Callable[[], AbstractContextManager[Executor]]


class SupernetLoop(StudyLoop):
    """Drives a study by a supernet; arguments as `StudyLoop` beside those here.

    Args:
        shared: trains the supernet and scores placements; as `evaluator` it trains the front.
        executors: what runs the shared work; `executor` runs the front's trainings.
    """

    def __init__(
        self, *, shared: SupernetEvaluator, executors: SharedExecutors, **arguments: Any
    ) -> None:
        super().__init__(evaluator=shared, **arguments)
        self._shared = shared
        self._executors = executors
        self._numbers: set[int] = set()  # of what is scored
        self._scores_all = False  # what is scored was not proposed by the searcher
        self._resumed: list[Flight] = []  # trainings that were in flight when the driver went

    def _recover_search(self) -> list[TrialParameters]:
        """Feed the searcher from the scores; none of them is ever in flight."""
        rows = self._store.trial_parameters(self._study, TrialRole.SEARCH)
        self._numbers = {row.number for row in rows}
        self._scores_all = any(not row.repaired for row in rows)
        for row in rows:
            assert row.top1 is not None
            self._trials.append(
                PastTrial(
                    number=row.number,
                    placement=placement_of(row),
                    attributes=row.sampler_attributes,
                    values=self._values(row.top1, row.costs),
                )
            )
            self._seen.add(self._trials[-1].placement)
        if not self._is_exhaustive:
            for trial in self._trials:
                self._searcher.begin(trial)
            self._untold = [trial.number for trial in self._trials]
        return []

    def _task(self, spec: NetworkSpec, replicate: int, role: TrialRole, number: int) -> Task:
        task = super()._task(spec, replicate, role, number)
        if not self._shared.fine_tunes:
            return task
        return self._shared.fine_tuning_task(task, self._study_attributes[SUPERNET_NOTE]["sha256"])

    def _resume(self, flights: list[Flight]) -> None:
        # After the search: another executor's work would wait for slots that these hold.
        self._resumed = flights

    def _confirm(self) -> None:
        if self._shared.fine_tunes:
            rows = self._store.trials(self._study)
            seeds = self._study.record.confirm_seeds
            if self._resumed or next_confirmations(rows, self._objectives, seeds):
                self._trained_supernet()
        super()._resume(self._resumed)
        super()._confirm()

    @property
    def _shared_checkpoints(self) -> frozenset[str]:
        return frozenset({self._shared.checkpoint_of(self._supernet_checkpoint)})

    @property
    def _supernet_checkpoint(self) -> str:
        return f"{self._study.record.name}/supernet"

    @property
    def _is_exhaustive(self) -> bool:
        # A space that was begun to be scored whole is, whatever number is asked for since.
        return self._scores_all or self._study.record.num_trials >= self._space.in_budget

    def _search(self) -> None:
        in_budget = self._space.in_budget
        total = in_budget if self._is_exhaustive else self._study.record.num_trials
        if len(self._seen) >= min(total, in_budget):
            return
        sha256 = self._trained_supernet()
        with self._executors.scoring() as executor:
            if self._is_exhaustive:
                self._score_all(executor, sha256)
            else:
                self._score_generations(executor, sha256)

    # Training

    def _trained_supernet(self) -> str:
        """sha256 of the supernet's weights, which are trained unless they are there.

        Raises:
            InputError: those that the study's scores are of have gone, and come out otherwise.
        """
        weights = self._shared.scratch.weights
        assert weights is not None
        key = self._shared.supernet_identity.key
        note = self._study_attributes.get(SUPERNET_NOTE)
        if note is not None and note["key"] == key and weights.has(key, note["sha256"]):
            return str(note["sha256"])
        task = self._shared.supernet_task(self._supernet_checkpoint)
        with self._executors.training() as executor:
            [(_, measured, threads)] = run_tasks(
                executor, [task], name="supernet", on_running=self._report_shared
            )
        assert measured.weights_sha256 is not None
        if note is not None and self._seen and note["sha256"] != measured.weights_sha256:
            # Another try, where they come out right, must not go on from these.
            self._forget_checkpoints()
            raise InputError(
                f"`the scores and trainings of a study are of one supernet` must hold, but the "
                f"weights that scored {len(self._seen)} placements are not at "
                f"{weights.shown(key, note['sha256'])}, and training again gave others; put them "
                f"back there, or begin another study with --study"
            )
        note = {
            "key": key,
            "recipe": self._shared.recipe.to_json(),
            "pretrained_sha256": self._shared.pretrained_sha256,
            "sha256": measured.weights_sha256,
            "top1": measured.top1,
            "wall_time_s": measured.wall_time_s,
            "device": measured.device,
            "threads": threads,
        }
        self._driver.save_searcher_attributes({SUPERNET_NOTE: note})
        self._study_attributes[SUPERNET_NOTE] = note
        self._forget_checkpoints()
        return measured.weights_sha256

    def _forget_checkpoints(self) -> None:
        if self._checkpoints is not None:
            for name in self._shared_checkpoints:
                self._checkpoints.delete(name)

    # Scoring

    def _score_all(self, executor: Executor, sha256: str) -> None:
        """Score what has not been scored of the whole space.

        Numbers follow the space's order, after those that the searcher has proposed if a part was
        asked for first.
        """
        free = (number for number in itertools.count() if number not in self._numbers)
        rest = (placement for placement in self._space.enumerate() if placement not in self._seen)
        missing = dict(zip(free, rest, strict=False))
        for trials in self._scored(executor, sha256, missing):
            self._driver.record_scored(trials)
            self._seen |= {missing[trial.number] for trial in trials}

    def _score_generations(self, executor: Executor, sha256: str) -> None:
        """Have the searcher propose generations, and score each at once."""
        total = min(self._study.record.num_trials, self._space.in_budget)
        while len(self._trials) < total:
            for number in self._untold:
                self._searcher.finish(self._trials[number])
            self._untold = []
            first = len(self._trials)
            proposals = []
            changed: dict[str, object] = {}
            for number in range(first, min(first + GENERATION, total)):
                proposal = self._propose(number)
                # None is for a bound on latency, which scores do not go with.
                assert proposal is not None
                changed |= self._take(number, proposal)
                proposals.append(proposal)
            placements = {first + i: proposal.placement for i, proposal in enumerate(proposals)}
            trials = [
                trial
                for part in self._scored(executor, sha256, placements, proposals, first)
                for trial in part
            ]
            trials.sort(key=lambda trial: trial.number)
            # A generation is written whole: half of one would not be proposed again.
            self._driver.record_scored(trials, searcher_attributes=changed)
            for trial in trials:
                past = self._trials[trial.number]
                values = self._values(trial.evaluation.top1, self._costs_of(past.placement))
                self._trials[trial.number] = replace(past, values=values)
                self._untold.append(trial.number)

    def _scored(
        self,
        executor: Executor,
        sha256: str,
        placements: dict[int, Placement],
        proposals: Sequence[Proposal] = (),
        first: int = 0,
    ) -> Iterator[list[ScoredTrial]]:
        """Scores of numbered placements, part by part as they come."""
        numbers = sorted(placements, key=lambda number: _in_tree_order(placements[number]))
        num_parts = max(1, min(len(numbers) // GENERATION, TASKS_PER_SLOT * executor.num_slots))
        bounds = [i * len(numbers) // num_parts for i in range(num_parts + 1)]
        number_of = {placement: number for number, placement in placements.items()}
        tasks = [
            self._shared.score_task([placements[n] for n in numbers[low:high]], sha256)
            for low, high in zip(bounds, bounds[1:], strict=False)
            if low < high
        ]
        for task, measured, threads in run_tasks(
            executor, tasks, name="scoring", on_running=self._report_shared
        ):
            assert isinstance(task, ScoreTask)
            assert isinstance(measured, Scores)
            share_s = measured.wall_time_s / len(task.placements)
            yield [
                self._scored_trial(
                    number_of[placement],
                    placement,
                    metrics,
                    sha256,
                    wall_time_s=share_s,
                    device=measured.device,
                    threads=threads,
                    proposal=proposals[number_of[placement] - first] if proposals else None,
                )
                for placement, metrics in zip(task.placements, measured.metrics, strict=True)
            ]

    def _scored_trial(
        self,
        number: int,
        placement: Placement,
        metrics: Metrics,
        sha256: str,
        *,
        wall_time_s: float,
        device: str,
        threads: int,
        proposal: Proposal | None,
    ) -> ScoredTrial:
        spec = resolve(NetworkSpec(self._backbone, placement))
        cost = self._costs.cost(placement)
        record = SpecRecord.of(
            spec, params=cost.params, macs=cost.macs, attention_bytes=cost.attention_bytes
        )
        evaluation = EvaluationRecord(
            identity=self._shared.scored_identity(spec, sha256),
            split="validation",
            top1=metrics.top1,
            loss=metrics.loss,
            num_images=metrics.num_images,
            wall_time_s=wall_time_s,
            device=device,
            threads=threads,
            versions=library_versions(),
        )
        if proposal is None:
            return ScoredTrial(number=number, spec=record, evaluation=evaluation)
        return ScoredTrial(
            number=number,
            spec=record,
            evaluation=evaluation,
            proposed=dict(proposal.proposed),
            repaired=self._searcher.encoding.encode(placement),
            sampler_attributes=dict(proposal.attributes),
        )

    def _report_shared(self, running: tuple[Running, ...]) -> None:
        self._report(TrialRole.SEARCH, running)

    @property
    def _search_left_s(self) -> None:
        return None  # what is scored takes other times than the supernet's training

    @property
    def _num_ended(self) -> int:
        return len(self._seen)


def _in_tree_order(placement: Placement) -> tuple[tuple[str, ...], ...]:
    """Sorts placements so that those that begin alike stand together."""
    return tuple(tuple(map(str, stage)) for stage in placement.stages)
