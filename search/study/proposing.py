"""Proposals: asks the searcher, and refuses repeats and placements out of bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sharedattn.backbones import describe
from sharedattn.errors import InputError
from sharedattn.objectives import costs_of
from sharedattn.placement import Placement
from sharedattn.search.searchers import PastTrial, Proposal, Searcher
from sharedattn.search.study.context import StudyContext
from sharedattn.search.study.history import SearchHistory
from sharedattn.search.study.latency import Latencies

MAX_PROPOSALS = 10  # by the searcher for one trial, before an unseen placement is found
MAX_DRAWS = 200  # of unseen placements, before the space is listed
MAX_LISTED = 1000  # placements to time before a bound on latency ends a search


class CheckedBounds:
    """The bounds that are only checked after the draw, such as the one on latency.

    Args:
        context: the study; measured latencies are added to it.
        latencies: latencies of placements, or None if no objective or bound needs them.
        wait_until_idle: returns once no trial runs, which timing a network requires.
    """

    def __init__(
        self,
        context: StudyContext,
        latencies: Latencies | None,
        wait_until_idle: Callable[[], None],
    ) -> None:
        self._context = context
        self._latencies = latencies
        self._wait_until_idle = wait_until_idle
        self._least_costs: dict[str, float] = {}

    @property
    def texts(self) -> list[str]:
        """The bounds, written as the options that set them."""
        uncounted = self._context.space.budget.uncounted
        bounds = [f"--max {objective.name}={bound:g}" for objective, bound in uncounted]
        if self._latencies is not None and self._latencies.max_ms is not None:
            bounds.append(f"--max-latency-ms {self._latencies.max_ms:g}")
        return bounds

    @property
    def least_found(self) -> str:
        """The smallest value of each bounded cost among the checked placements, as text."""
        texts = [f"the least {name} is {least:g}" for name, least in self._least_costs.items()]
        if latency_ms := self._context.latency_ms:
            fastest = min(latency_ms.values())
            texts.append(f"the fastest of {len(latency_ms)} takes {fastest:.3g} ms")
        return ", ".join(texts)

    def admit(self, placement: Placement) -> bool:
        """Whether a placement is inside all bounds; new placements are timed if needed."""
        budget = self._context.space.budget
        bounded = (objective for objective, _ in budget.uncounted)
        costs = costs_of(self._context.costs, placement, bounded)
        for name, value in costs.items():
            self._least_costs[name] = min(value, self._least_costs.get(name, value))
        if not budget.admits(costs):
            return False
        if self._latencies is None:
            return True
        max_ms = self._latencies.max_ms
        latency_ms = self._latency_ms(placement, self._latencies)
        return max_ms is None or latency_ms <= max_ms

    def _latency_ms(self, placement: Placement, latencies: Latencies) -> float:
        known = self._context.latency_ms
        if placement not in known:
            spec = self._context.resolved(placement)
            if latencies.needs_quiet(spec):
                self._wait_until_idle()
            record = self._context.spec_record(spec, placement)
            known[placement] = latencies.of(spec, record)
        return known[placement]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedProposal:
    """A proposal that has become a trial.

    Attributes:
        number: the trial's number.
        placement: the placement to evaluate.
        proposed: the sampler's parameters before repair; empty if it drew none.
        parameters: the placement's parameters by the searcher's encoding.
        attributes: the sampler's notes on the trial.
        changed_notes: those of its notes on the study that this proposal has changed.
    """

    number: int
    placement: Placement
    proposed: Mapping[str, Any]
    parameters: Mapping[str, Any]
    attributes: Mapping[str, Any]
    changed_notes: Mapping[str, Any]


class Proposer:
    """Finds a placement for each search trial.

    Args:
        context: the study.
        searcher: makes the proposals.
        history: the trials so far; accepted proposals are added to it.
        bounds: bounds that the space does not enforce.
    """

    def __init__(
        self,
        context: StudyContext,
        searcher: Searcher,
        history: SearchHistory,
        bounds: CheckedBounds,
    ) -> None:
        self._context = context
        self._space = context.space
        self._searcher = searcher
        self._history = history
        self._bounds = bounds
        self._found_none = False

    @property
    def exhausted(self) -> bool:
        """Whether no placement is left to propose."""
        return self._found_none or len(self._history.seen) >= self._space.in_budget

    def parameters_of(self, placement: Placement) -> Mapping[str, Any]:
        """The parameters of a placement by the searcher's encoding."""
        return self._searcher.encoding.encode(placement)

    @property
    def num_left(self) -> int:
        """Number of trials still to be proposed."""
        total = min(self._context.study.record.num_trials, self._space.in_budget)
        return 0 if self._found_none else total - len(self._history.trials)

    def accept_next(self) -> AcceptedProposal | None:
        """Find a placement for the next trial, and add the trial to the history.

        Returns:
            The proposal, or None if no further placement was found within the bounds that are
            only checked after the draw.

        Raises:
            InputError: none was found for the first trial.
        """
        number = len(self._history.trials)
        proposal = self._propose(number)
        if proposal is None:
            self._found_none = True
            return None
        notes = self._context.notes
        changed = {
            key: value
            for key, value in proposal.study_attributes.items()
            if notes.get(key) != value
        }
        notes |= changed
        parameters = self._searcher.encoding.encode(proposal.placement)
        trial = PastTrial(
            number=number, placement=proposal.placement, attributes=proposal.attributes
        )
        self._history.start(trial, parameters)
        return AcceptedProposal(
            number=number,
            placement=proposal.placement,
            proposed=proposal.proposed,
            parameters=parameters,
            attributes=proposal.attributes,
            changed_notes=changed,
        )

    def _propose(self, number: int) -> Proposal | None:
        """The first proposal of the searcher that is new and inside the bounds, or another one."""
        proposal = self._searcher.ask(number, 0)
        if number == 0:
            # The backbone as published is the measure of what a placement saves.
            baseline = Placement.all_vanilla(describe(self._context.backbone).depths)
            if baseline in self._space and self._admit(baseline):
                return _instead(proposal, baseline)
        for attempt in range(1, MAX_PROPOSALS):
            if self._admit(proposal.placement):
                return proposal
            proposal = self._searcher.ask(number, attempt)
        if self._admit(proposal.placement):
            return proposal
        placement = self._instead_of(proposal.placement) or self._unseen(number)
        return None if placement is None else _instead(proposal, placement)

    def _instead_of(self, refused: Placement) -> Placement | None:
        """What the searcher has for a placement that was refused too often, or None."""
        seen = self._history.seen
        unseen = (p for p in self._searcher.instead_of(refused) if p not in seen)
        return next(filter(self._admit, islice(unseen, MAX_DRAWS)), None)

    def _unseen(self, number: int) -> Placement | None:
        """A placement that was not proposed yet, drawn or else listed, or None if none is left."""
        rng = self._searcher.generator(number, MAX_PROPOSALS)
        for _ in range(MAX_DRAWS):
            placement = self._space.sample(rng)
            if self._admit(placement):
                return placement
        if not self._bounds.texts:
            return rng.choice([p for p in self._space.enumerate() if p not in self._history.seen])
        last = next(filter(self._admit, self._last_resorts()), None)
        if last is None and number == 0:
            raise InputError(
                f"no drawn placement is within {' and '.join(self._bounds.texts)}; "
                f"{self._bounds.least_found}; raise the bound"
            )
        return last

    def _last_resorts(self) -> Iterator[Placement]:
        """Placements to check when no drawn one is inside the bounds."""
        if self._space.in_budget <= MAX_LISTED:
            yield from self._space.enumerate()
            return
        cheapest = self._space.cheapest  # of the whole space, so it may be outside the budget
        if cheapest in self._space:
            yield cheapest

    def _admit(self, placement: Placement) -> bool:
        """Whether a placement is new and inside the checked bounds."""
        return placement not in self._history.seen and self._bounds.admit(placement)


def _instead(proposal: Proposal, placement: Placement) -> Proposal:
    return Proposal(
        placement=placement,
        attributes=proposal.attributes,
        study_attributes=proposal.study_attributes,
    )
