"""Pareto fronts, hypervolumes and knees of arrays of objective values.

Values are arrays of shape (n, m): n points, m objectives in the order of `objectives`. A point
dominates another if it is no worse in every objective and better in one. Equal points do not
dominate each other, so a front may hold several placements with the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharedattn.errors import InputError
from sharedattn.objectives import Direction, Objective

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]


def to_losses(values: FloatArray, objectives: Sequence[Objective]) -> FloatArray:
    """Convert values to losses, all minimised; the shape (n, m) is kept."""
    signs = np.array([1 if o.direction is Direction.MINIMIZE else -1 for o in objectives])
    losses: FloatArray = np.asarray(values, dtype=float).reshape(-1, len(objectives)) * signs
    return losses


def non_dominated(losses: FloatArray) -> BoolArray:
    """Mark the points that no other point dominates.

    Two objectives take one sort and one pass; more take one sort and one vectorised comparison
    per member of the front.

    Args:
        losses: (n, m), minimised, finite.

    Returns:
        (n,), True for members of the front, including all of several equal ones.
    """
    # In lexicographic order, no point is dominated by a later one.
    order = np.lexsort(losses.T[::-1])
    ordered = losses[order]
    is_member = np.zeros(len(losses), dtype=bool)
    if losses.shape[1] == 2:
        is_member[order] = _staircase(ordered)
        return is_member
    remaining = np.arange(len(losses))
    while remaining.size:
        member = ordered[remaining[0]]
        equal = np.all(ordered[remaining] == member, axis=1)
        is_member[order[remaining[equal]]] = True
        remaining = remaining[np.any(ordered[remaining] < member, axis=1)]
    return is_member


def _staircase(ordered: FloatArray) -> BoolArray:
    """Non-dominated rows of (n, 2) losses in lexicographic order."""
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(ordered[:, 1])[:-1]))
    descends = ordered[:, 1] < best_before
    # Repeats of a member follow it directly, and are members as well.
    start_of_run = np.concatenate(([True], np.any(np.diff(ordered, axis=0) != 0, axis=1)))
    first_of_run = np.maximum.accumulate(np.where(start_of_run, np.arange(len(ordered)), 0))
    return np.asarray(descends[first_of_run], dtype=bool)


def hypervolume(
    values: FloatArray,
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
) -> float:
    """The dominated fraction of the box between the ideal and the reference point.

    Exact for any number of objectives: a staircase for two, slices along the last objective for
    more (HSO, While et al. 2006, without its ordering heuristics).

    Args:
        values: (n, m); dominated points and points outside the box add nothing.
        objectives: the m objectives of the columns.
        reference_point: the worst value of each objective, by name.

    Returns:
        From 0 (nothing better than the reference point) to 1 (the ideal point is reached).

    Raises:
        InputError: a reference is missing, or not worse than the ideal.
    """
    losses, reference = _unit_box(values, objectives, reference_point)
    inside = losses[np.all(losses < reference, axis=1)]
    return _dominated_volume(inside[non_dominated(inside)], reference)


def hypervolume_history(
    values: FloatArray,
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
) -> FloatArray:
    """The hypervolume after each point, in the given order.

    Args:
        values: (n, m).
        objectives: the m objectives of the columns.
        reference_point: the worst value of each objective, by name.

    Returns:
        (n,), non-decreasing; entry i is the hypervolume of the first i + 1 points.

    Raises:
        InputError: a reference is missing, or not worse than the ideal.
    """
    losses, reference = _unit_box(values, objectives, reference_point)
    history = np.zeros(len(losses))
    front = np.empty((0, len(objectives)))
    volume = 0.0
    for i, point in enumerate(losses):
        if np.all(point < reference) and not np.any(np.all(front <= point, axis=1)):
            front = np.vstack([front[np.any(front < point, axis=1)], point])
            volume = _dominated_volume(front, reference)
        history[i] = volume
    return history


def _unit_box(
    values: FloatArray,
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
) -> tuple[FloatArray, FloatArray]:
    """Scale losses so that the ideal is 0 and the reference 1 in each objective."""
    for objective in objectives:
        if objective.name not in reference_point:
            raise InputError(
                f"`reference_point` {dict(reference_point)} lacks {objective.name}; give a value "
                f"for each objective"
            )
    ideal = to_losses(np.array([[o.ideal for o in objectives]]), objectives)[0]
    reference = to_losses(np.array([[reference_point[o.name] for o in objectives]]), objectives)[0]
    if not np.all(ideal < reference):
        raise InputError(
            f"`reference_point` {dict(reference_point)} is not worse than the ideal "
            f"{ ({o.name: o.ideal for o in objectives}) } in each objective; worsen it"
        )
    unit = (to_losses(values, objectives) - ideal) / (reference - ideal)
    return unit, np.ones(len(objectives))


def _dominated_volume(front: FloatArray, reference: FloatArray) -> float:
    """The volume between the reference and a front (k, m) of points better than it."""
    if not len(front):
        return 0.0
    if front.shape[1] == 2:
        stairs = front[np.lexsort(front.T[::-1])]
        widths = np.diff(np.append(stairs[:, 0], reference[0]))
        heights = reference[1] - np.minimum.accumulate(stairs[:, 1])
        return float(widths @ heights)
    slices = front[np.argsort(front[:, -1], kind="stable")]
    depths = np.diff(np.append(slices[:, -1], reference[-1]))
    return float(
        sum(
            depth * _dominated_volume(slices[: i + 1, :-1], reference[:-1])
            for i, depth in enumerate(depths)
            if depth > 0
        )
    )


def knee(values: FloatArray, objectives: Sequence[Objective]) -> int:
    """Find the knee of a front: beyond it, giving up one objective gains little in the other.

    Each objective is scaled from 0 (the best on this front) to 1 (the worst). The knee is the
    point farthest from the chord between the extremes, on the side of the ideal; as the chord is
    x + y = 1, it has the smallest sum. In more objectives it is the smallest sum too. On a tie the
    best in the first objective wins, as it does on fronts of one or two members, which have no
    bend, and on fronts that bulge away from the ideal.

    Args:
        values: (n, m), n > 0, a non-dominated set.
        objectives: the m objectives of the columns.

    Returns:
        Row index of the knee.

    Raises:
        InputError: the front is empty.
    """
    losses = to_losses(values, objectives)
    if not len(losses):
        raise InputError("`values` is an empty front, which has no knee")
    spread = np.ptp(losses, axis=0)
    unit = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    # Round so that ties stay ties: sums of scaled values differ in their last bits.
    sums = np.round(unit.sum(axis=1), 12)
    return int(np.lexsort((losses[:, 0], sums))[0])
