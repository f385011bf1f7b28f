"""Supernet search: train once, score placements with its weights, then train the front.

Search trials are scores: they get their accuracy with the shared weights when they are written. A
space that is small enough is scored whole, so its front of inherited accuracies is exact; in a
larger one the searcher proposes generations, each scored at once. The front's members are then
trained separately, as further runs of the study, by the rules and in the slots of ordinary trials.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.database.store import Store
from sharedattn.results.records import (
    Document,
    EvaluationRecord,
    ScoredTrial,
    SpecRecord,
    Start,
    Study,
    StudyRecord,
    TrialParameters,
    TrialRole,
)
from sharedattn.search.evaluators import Measurement, Task
from sharedattn.search.evaluators.base import evaluation_record
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.evaluators.supernet import Scores, ScoreTask, SupernetEvaluator
from sharedattn.search.evaluators.supernet_spec import WHOLE_SPACE, SupernetSpec
from sharedattn.search.executors import Executor
from sharedattn.search.executors.retries import run_tasks
from sharedattn.search.searchers import PastTrial
from sharedattn.search.status import Running
from sharedattn.search.study.context import StudyContext, placement_of
from sharedattn.search.study.progress_board import ProgressBoard, SearchCounts
from sharedattn.search.study.proposing import AcceptedProposal
from sharedattn.search.study.recording import RunningTrial
from sharedattn.search.study.start import StartEvaluation
from sharedattn.search.study.strategies.base import SearchStrategy, StudyParts
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.supernet.trainer import SupernetRecipe, check_no_groups
from sharedattn.training.tasks.interface import Metrics

SUPERNET_NOTE = "sharedattn:supernet"
MAX_EXHAUSTIVE = 20_000  # largest space that is scored whole, unless fewer trials are requested
LARGE_SPACE_TRIALS = 2_000  # default number of placements scored of a larger space
GENERATION = 100  # proposals scored at once
TASKS_PER_SLOT = 4  # for scoring; fewer share more, more leave fewer slots idle at the end


def default_num_trials(space: BudgetedSpace) -> int:
    """The default number of placements to score."""
    return space.in_budget if space.in_budget <= MAX_EXHAUSTIVE else LARGE_SPACE_TRIALS


def check_goes_on(store: Store, study: Study) -> None:
    """Check that a study's supernet can still be trained and evaluated.

    Args:
        store: the database.
        study: a study with or without a supernet.

    Raises:
        InputError: its supernet consists of several networks, as in earlier versions.
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
    """The evaluator of front members for a study whose supernet is trained.

    Args:
        study: the study.
        note: the study's entry `SUPERNET_NOTE`.
        scratch: trains placements separately; its weights store holds the supernet's.
    """
    fingerprint = study.fingerprint_document
    is_whole = fingerprint.get("supernet_of") == WHOLE_SPACE
    supernet = SupernetSpec(
        space=Space.from_document(study.space),
        budget=Budget() if is_whole else Budget.from_document(fingerprint),
        recipe=SupernetRecipe.from_json(note["recipe"]),
        seed=study.seed,
        pretrained_sha256=note["pretrained_sha256"],
    )
    return SupernetEvaluator(scratch, supernet)


@dataclass(frozen=True, slots=True)
class SharedExecutors:
    """Executors of the supernet's work, opened when needed.

    Attributes:
        training: one slot, for the supernet's training and the evaluation of its start.
        scoring: slots for the scores.
    """

    training: Callable[[], AbstractContextManager[Executor]]
    scoring: Callable[[], AbstractContextManager[Executor]]


class SupernetSearch(SearchStrategy):
    """Scores placements with a supernet; the loop's evaluator trains the front.

    Args:
        shared: trains the supernet and scores placements.
        executors: run the supernet's training and the scores.
        on_start: called with what the trained model scores as it came, before anything is
            trained; or None.
    """

    def __init__(
        self,
        shared: SupernetEvaluator,
        executors: SharedExecutors,
        on_start: Callable[[Start], None] | None = None,
    ) -> None:
        self._shared = shared
        self._executors = executors
        self._start = StartEvaluation(shared, executors.training, on_start)
        self._numbers: set[int] = set()  # numbers of the scored trials
        self._scores_all = False  # whether placements are scored without the searcher's proposals

    def restore(self, parts: StudyParts) -> list[TrialParameters]:
        """Tell the searcher the scores; none is ever left running."""
        context = parts.context
        rows = context.store.trials.parameters(context.study, TrialRole.SEARCH)
        self._numbers = {row.number for row in rows}
        self._scores_all = any(not row.repaired for row in rows)
        for row in rows:
            assert row.top1 is not None
            trial = PastTrial(
                number=row.number,
                placement=placement_of(row),
                attributes=row.sampler_attributes,
                values=context.values(row.top1, row.costs),
            )
            parts.history.restore(trial, has_ended=True)
        if not self._is_exhaustive(context):
            parts.history.replay_at_once()
        return []

    def search(
        self, parts: StudyParts, restarted: Sequence[RunningTrial]
    ) -> Sequence[RunningTrial]:
        context, seen = parts.context, parts.history.seen
        self._start.validate(context, parts.board)
        in_budget = context.space.in_budget
        is_exhaustive = self._is_exhaustive(context)
        total = in_budget if is_exhaustive else context.study.record.num_trials
        if len(seen) < min(total, in_budget):
            sha256 = self._supernet(parts).trained_sha256()
            with self._executors.scoring() as executor:
                known = _known_scores(self._shared, context, sha256)
                scorer = Scorer(self._shared, parts, executor, sha256, known)
                if is_exhaustive:
                    self._score_all(parts, scorer)
                else:
                    _score_generations(parts, scorer)
                    _add_known(parts, scorer)
        # Start them after the search: they would hold the slots that the other executor needs.
        return restarted

    def counts(self, parts: StudyParts) -> SearchCounts:
        # Scores and the supernet's training take different times, so there is no estimate.
        return SearchCounts(num_ended=len(parts.history.seen), num_left=None)

    def adapt(self, task: Task, context: StudyContext) -> Task:
        if not self._shared.fine_tunes:
            return task
        return self._shared.fine_tuning_task(task, context.notes[SUPERNET_NOTE]["sha256"])

    def shared_checkpoints(self, context: StudyContext) -> frozenset[str]:
        return frozenset({self._shared.checkpoint_of(_supernet_checkpoint(context))})

    def prepare_confirmation(self, parts: StudyParts, left: Sequence[RunningTrial]) -> None:
        """Provide the supernet's weights if the front is fine-tuned from them."""
        if self._shared.fine_tunes and (left or parts.confirmer.is_due):
            self._supernet(parts).trained_sha256()

    def finish(self, parts: StudyParts) -> None:
        self._start.test(parts.context, parts.board)

    def _supernet(self, parts: StudyParts) -> SupernetWeights:
        return SupernetWeights(self._shared, self._executors.training, parts)

    def _is_exhaustive(self, context: StudyContext) -> bool:
        # Once begun, a whole space is scored whole, whatever number is requested later.
        return self._scores_all or context.study.record.num_trials >= context.space.in_budget

    def _score_all(self, parts: StudyParts, scorer: Scorer) -> None:
        """Score the rest of the whole space.

        Trials are numbered in the space's order, after earlier proposals of the searcher if fewer
        trials were requested first.
        """
        seen = parts.history.seen
        free = (number for number in itertools.count() if number not in self._numbers)
        rest = (p for p in parts.context.space.enumerate() if p not in seen)
        missing = dict(zip(free, rest, strict=False))
        for trials in scorer.scored(missing):
            parts.context.driver.record_scored(trials)
            seen |= {missing[trial.number] for trial in trials}


def _score_generations(parts: StudyParts, scorer: Scorer) -> None:
    """Have the searcher propose generations, and score each at once."""
    context, history = parts.context, parts.history
    total = min(context.study.record.num_trials, context.space.in_budget)
    while len(history.trials) < total:
        history.tell_all()
        proposals: dict[int, AcceptedProposal] = {}
        changed: dict[str, Any] = {}
        for _ in range(min(GENERATION, total - len(history.trials))):
            proposal = parts.proposer.accept_next()
            # None would mean a bound on latency, which supernet searches do not allow.
            assert proposal is not None
            changed |= proposal.changed_notes
            proposals[proposal.number] = proposal
        placements = {number: proposal.placement for number, proposal in proposals.items()}
        trials = [trial for part in scorer.scored(placements, proposals) for trial in part]
        trials.sort(key=lambda trial: trial.number)
        # Write a generation whole: the searcher would not propose the other half again.
        context.driver.record_scored(trials, searcher_attributes=changed)
        for trial in trials:
            costs = context.costs_of(placements[trial.number])
            history.end(trial.number, context.values(trial.evaluation.top1, costs))


def _supernet_checkpoint(context: StudyContext) -> str:
    return f"{context.name}/supernet"


@dataclass(frozen=True, slots=True)
class SupernetWeights:
    """The supernet's weights of one study, loaded or else trained and stored.

    Attributes:
        shared: trains the supernet.
        training: opens the executor of the training.
        parts: the loop's parts.
    """

    shared: SupernetEvaluator
    training: Callable[[], AbstractContextManager[Executor]]
    parts: StudyParts

    def trained_sha256(self) -> str:
        """The sha256 of the supernet's weights, after training them if they are missing.

        Weights of the same key that another study of the database has trained are taken.

        Raises:
            InputError: the weights behind the study's scores are gone, and retraining differs.
        """
        context, seen = self.parts.context, self.parts.history.seen
        weights = self.shared.scratch.weights
        assert weights is not None
        key = self.shared.supernet_identity.key
        note = context.notes.get(SUPERNET_NOTE)
        for known in context.store.notes(SUPERNET_NOTE) if note is None else [note]:
            if known.get("key") == key and weights.has(key, known["sha256"]):
                if note is None:
                    self._save(known)
                return str(known["sha256"])
        measured, threads = self._train()
        assert measured.weights_sha256 is not None
        if note is not None and seen and note["sha256"] != measured.weights_sha256:
            # Don't resume a retry from a mismatched checkpoint.
            self._forget_checkpoint()
            raise InputError(
                f"the weights that scored {len(seen)} placements are not at "
                f"{weights.shown(key, note['sha256'])}, and training again gave others; put them "
                f"back there, or begin another study with --study"
            )
        note = {
            "key": key,
            "recipe": self.shared.supernet.recipe.to_json(),
            "pretrained_sha256": self.shared.supernet.pretrained_sha256,
            "sha256": measured.weights_sha256,
            "top1": measured.top1,
            "wall_time_s": measured.wall_time_s,
            "device": measured.device,
            "threads": threads,
        }
        self._save(note)
        self._forget_checkpoint()
        return measured.weights_sha256

    def _save(self, note: Document) -> None:
        context = self.parts.context
        context.driver.save_searcher_attributes({SUPERNET_NOTE: note})
        context.notes[SUPERNET_NOTE] = note

    def _train(self) -> tuple[Measurement, int]:
        """The training's measurement, and its worker's torch threads."""
        task = self.shared.supernet_task(_supernet_checkpoint(self.parts.context))
        with self.training() as executor:
            [(_, measured, threads)] = run_tasks(
                executor, [task], name="supernet", on_running=_shown_by(self.parts.board)
            )
        return measured, threads

    def _forget_checkpoint(self) -> None:
        name = self.shared.checkpoint_of(_supernet_checkpoint(self.parts.context))
        self.parts.files.forget_checkpoint(name)


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores placements with the trained supernet.

    Attributes:
        shared: scores placements.
        parts: the loop's parts.
        executor: runs the scores.
        sha256: the supernet's weights.
        known: scores by these weights that the database has, by spec key.
    """

    shared: SupernetEvaluator
    parts: StudyParts
    executor: Executor
    sha256: str
    known: Mapping[str, tuple[SpecRecord, EvaluationRecord]]

    def scored(
        self,
        placements: Mapping[int, Placement],
        proposals: Mapping[int, AcceptedProposal] | None = None,
    ) -> Iterator[list[ScoredTrial]]:
        """Score placements, and yield the scores in parts as they finish.

        Args:
            placements: placements by trial number.
            proposals: the searcher's proposals by trial number, or None if there are none.
        """
        reused, new = self._known_among(placements, proposals or {})
        if reused:
            yield reused
        if not new:
            return
        number_of = {placement: number for number, placement in new.items()}
        for task, measured, threads in run_tasks(
            self.executor,
            self._tasks(new),
            name="scoring",
            on_running=_shown_by(self.parts.board),
        ):
            assert isinstance(task, ScoreTask)
            assert isinstance(measured, Scores)
            yield [
                self._scored_trial(
                    number_of[placement],
                    placement,
                    measured,
                    metrics,
                    threads=threads,
                    proposal=(proposals or {}).get(number_of[placement]),
                )
                for placement, metrics in zip(task.placements, measured.metrics, strict=True)
            ]

    def _known_among(
        self, placements: Mapping[int, Placement], proposals: Mapping[int, AcceptedProposal]
    ) -> tuple[list[ScoredTrial], dict[int, Placement]]:
        """The trials of placements whose scores are stored, and the other placements."""
        if not self.known:
            return [], dict(placements)
        reused, new = [], {}
        for number, placement in placements.items():
            found = self.known.get(self.parts.context.resolved(placement).key)
            if found is None:
                new[number] = placement
                continue
            spec, evaluation = found
            trial = ScoredTrial(number=number, spec=spec, evaluation=evaluation)
            reused.append(_with_proposal(trial, proposals.get(number)))
        return reused, new

    def _tasks(self, placements: Mapping[int, Placement]) -> list[ScoreTask]:
        """Divide placements among the slots; those with equal first layers share a task."""
        numbers = sorted(placements, key=lambda number: _in_tree_order(placements[number]))
        most = TASKS_PER_SLOT * self.executor.num_slots
        num_parts = max(1, min(len(numbers) // GENERATION, most))
        bounds = [i * len(numbers) // num_parts for i in range(num_parts + 1)]
        return [
            self.shared.score_task([placements[n] for n in numbers[low:high]], self.sha256)
            for low, high in itertools.pairwise(bounds)
            if low < high
        ]

    def _scored_trial(
        self,
        number: int,
        placement: Placement,
        measured: Scores,
        metrics: Metrics,
        *,
        threads: int,
        proposal: AcceptedProposal | None,
    ) -> ScoredTrial:
        spec = self.parts.context.resolved(placement)
        record = self.parts.context.spec_record(spec, placement)
        scored = Measurement(
            split=measured.split,
            top1=metrics.quality,
            loss=metrics.loss,
            num_images=metrics.num_images,
            wall_time_s=measured.wall_time_s / len(measured.metrics),
            device=measured.device,
        )
        identity = self.shared.scored_identity(spec, self.sha256)
        trial = ScoredTrial(
            number=number, spec=record, evaluation=evaluation_record(identity, scored, threads)
        )
        return _with_proposal(trial, proposal)


def _with_proposal(trial: ScoredTrial, proposal: AcceptedProposal | None) -> ScoredTrial:
    """A scored trial with the proposal that it came from, if any."""
    if proposal is None:
        return trial
    return replace(
        trial,
        proposed=dict(proposal.proposed),
        repaired=dict(proposal.parameters),
        sampler_attributes=dict(proposal.attributes),
    )


def _known_scores(
    shared: SupernetEvaluator, context: StudyContext, sha256: str
) -> dict[str, tuple[SpecRecord, EvaluationRecord]]:
    """Scores by a supernet's weights that any study of the database has stored, by spec key."""
    identity = shared.scored_identity(shared.supernet.largest_network, sha256)
    return {spec.key: (spec, found) for spec, found in context.store.evaluations_like(identity)}


def _add_known(parts: StudyParts, scorer: Scorer) -> None:
    """Add what studies of tighter budgets scored and the searcher did not propose.

    Studies of the same or another budget are left out, so that a search in a database of others
    proposes and finds what it does alone.
    """
    context, seen = parts.context, parts.history.seen
    tighter = [study for study in context.store.studies() if _is_tighter(study, context)]
    rows = (row for study in tighter for row in context.store.trials.of(study, TrialRole.SEARCH))
    trials: list[ScoredTrial] = []
    for key in dict.fromkeys(row.spec_key for row in rows):
        if key not in scorer.known:
            continue
        spec, evaluation = scorer.known[key]
        placement = NetworkSpec.from_json(spec.document).placement
        if placement not in seen and placement in context.space:
            number = len(parts.history.trials) + len(trials)
            repaired = dict(parts.proposer.parameters_of(placement))
            trials.append(
                ScoredTrial(number=number, spec=spec, evaluation=evaluation, repaired=repaired)
            )
    context.driver.record_scored(trials)


def _is_tighter(study: Study, context: StudyContext) -> bool:
    """Whether a study has a budget inside that of another study, and not the same."""
    fingerprint = study.record.fingerprint_document
    if "max_macs" not in fingerprint:
        return False
    theirs, ours = Budget.from_document(fingerprint), context.space.budget
    return theirs != ours and theirs.is_inside(ours)


def _shown_by(board: ProgressBoard) -> Callable[[tuple[Running, ...]], None]:
    return partial(board.show, TrialRole.SEARCH)


def _in_tree_order(placement: Placement) -> tuple[tuple[str, ...], ...]:
    """Sort key that puts placements with equal first layers together."""
    return tuple(tuple(map(str, stage)) for stage in placement.stages)
