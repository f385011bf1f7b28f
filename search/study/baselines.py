"""Baselines: trains what a person would try by hand, for comparison with the front."""

from __future__ import annotations

from collections.abc import Sequence

from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.records import TrialRole
from sharedattn.search.study.context import StudyContext, naive_network_of
from sharedattn.search.study.running import TrialRunner, TrialStarter
from sharedattn.spaces.naive import naive_networks

MAX_SIZES = 3
"""Most sizes of networks made by hand of one kind."""


class BaselineTrainer:
    """Trains baselines for as many seeds as the front's members.

    Args:
        context: the study.
        starter: starts the runs.
        runner: runs them.
    """

    def __init__(self, context: StudyContext, starter: TrialStarter, runner: TrialRunner) -> None:
        self._context = context
        self._starter = starter
        self._runner = runner

    def run(self) -> None:
        """Train what is missing; nothing if the front's members were not trained."""
        context = self._context
        seeds = context.study.record.confirm_seeds
        front = context.front(context.store.trials.of(context.study))
        if front.fidelity is None or front.fidelity.weights != "trained":
            return
        rows = context.store.trials.parameters(context.study, TrialRole.BASELINE)
        known = [(naive_network_of(row), row.replicate) for row in rows]
        networks = naive_networks(
            context.space,
            target_macs(front.members, context.space.budget.max_macs),
            has_weights=context.evaluator.cuts_weights,
        )
        due = ((network, replicate) for network in networks for replicate in range(seeds))
        missing = [one for one in due if one not in known]
        self._runner.expect(TrialRole.BASELINE, len(rows) + len(missing))
        for number, (network, replicate) in enumerate(missing, len(rows)):
            self._runner.wait_for_slot(TrialRole.BASELINE)
            self._starter.begin_baseline(number, network, replicate)
        self._runner.wait_until_idle(TrialRole.BASELINE)


def target_macs(members: Sequence[Candidate], max_macs: int | None) -> list[int]:
    """The numbers of MACs within which networks are made by hand.

    Args:
        members: the front's members.
        max_macs: the budget, which a person would use up, or None without one.

    Returns:
        The MACs of up to `MAX_SIZES` members, spread evenly up to the one with most, which the
        budget stands in for; ascending.
    """
    macs = sorted({member.macs for member in members})
    sizes = min(MAX_SIZES, len(macs))
    targets = [macs[(i * len(macs)) // sizes - 1] for i in range(1, sizes + 1)]
    return targets if max_macs is None else [*targets[:-1], max_macs]
