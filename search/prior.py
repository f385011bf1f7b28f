"""The accuracies of an earlier study, which a search begins with."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.results.accuracy_model.fitting import LEAST_RESULTS, evenly
from sharedattn.results.database.store import Store
from sharedattn.results.explanation.observations import observations_of
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import StudyRecord
from sharedattn.search.searchers.prior import PRIOR_NOTE
from sharedattn.spaces.space import Space


def earlier_accuracies(storage: str, name: str, space: Space, quality: str) -> dict[str, float]:
    """The accuracies of an earlier study, of what is also a member of a space.

    They are those that `explain` learns from: of its search trials, trained or by a supernet's
    shared weights; with early stopping those at the first rung. Means over seeds.

    Args:
        storage: URL of the database.
        name: the earlier study's name.
        space: the placements of the search that begins, whatever their costs.
        quality: name of the search's measured objective.

    Returns:
        Accuracies by placement, in the order of the trials; of more than a model learns from, an
        even share.

    Raises:
        InputError: there is no such study; it measured something else; or too few of its
            placements are members of the space.
    """
    try:
        with Store.open(storage, read_only=True) as store:
            summary = StudySummary.read(store, store.study(name))
    except InputError as error:
        raise InputError(f"`--prior` is a study of the same database, but {error}") from None
    measured = summary.study.record.quality
    if measured != quality:
        raise InputError(
            f"`--prior` is {name!r}, which measured {measured}, but this search measures "
            f"{quality}; name a study of the same task"
        )
    observed = observations_of(summary)
    found: dict[str, list[float]] = defaultdict(list)
    for text, top1 in zip(observed.placements, observed.top1, strict=True):
        found[text].append(top1)
    members = [text for text in found if _is_member(text, space)]
    if len(members) < LEAST_RESULTS:
        raise InputError(
            f"`--prior` is {name!r}, of whose {len(found)} placements with an accuracy "
            f"{len(members)} are members of this search's space, and a model needs "
            f"{LEAST_RESULTS}; name another study, or leave --prior out"
        )
    return {members[i]: fmean(found[members[i]]) for i in evenly(len(members))}


def kept_accuracies(storage: str, record: StudyRecord) -> dict[str, float] | None:
    """The accuracies that a stored study began with, by placement, or None of a new one.

    Args:
        storage: URL of the database.
        record: the study; one of its name that is another search began with nothing of it.
    """
    with Store.open(storage, read_only=True) as store:
        study = store.find_study(record.name)
        if study is None or study.record.fingerprint != record.fingerprint:
            return None
        kept: dict[str, float] | None = store.note(study, PRIOR_NOTE)
        return kept


def _is_member(text: str, space: Space) -> bool:
    try:
        return Placement.parse(text) in space
    except InputError:
        # Of a mechanism that is not installed here.
        return False
