"""Mean average precision in cases solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sharedattn.training.tasks.average_precision import ImageBoxes, average_precisions

BOX = (10.0, 20.0, 30.0, 50.0)
ELSEWHERE = (40.0, 60.0, 70.0, 90.0)


def image(truth: list[tuple[float, ...]], found: list[tuple[object, ...]]) -> ImageBoxes:
    """True boxes (box, class[, crowd]) and found ones (box, score, class)."""
    rows = [(*box, *rest, *((0.0,) if len(rest) == 1 else ())) for box, *rest in truth]
    return ImageBoxes(
        truth=np.array(rows, dtype=float).reshape(-1, 6),
        boxes=np.array([box for box, *_ in found], dtype=float).reshape(-1, 4),
        scores=np.array([score for _, score, _ in found], dtype=float),
        labels=np.array([label for *_, label in found], dtype=np.int64),
    )


def test_all_found_is_one_and_nothing_is_zero() -> None:
    right = image([(BOX, 0), (ELSEWHERE, 1)], [(BOX, 0.9, 0), (ELSEWHERE, 0.3, 1)])
    found = average_precisions([right], 3)
    assert (found.map50, found.mean_over_overlaps) == (pytest.approx(1.0), pytest.approx(1.0))
    nothing = average_precisions([image([(BOX, 0)], [])], 3)
    assert (nothing.map50, nothing.mean_over_overlaps) == (0.0, 0.0)


def test_precision_falls_behind_a_better_scored_mistake() -> None:
    # One true box; a mistake is surer: precision 1 / 2 at every recall.
    found = average_precisions([image([(BOX, 0)], [(ELSEWHERE, 0.9, 0), (BOX, 0.8, 0)])], 1)
    assert found.map50 == pytest.approx(0.5)
    # Two true boxes of which the surest answer is one: precision 1 up to a recall of 1 / 2, that
    # is at 51 of 101 recalls, and 0 beyond.
    found = average_precisions([image([(BOX, 0), (ELSEWHERE, 0)], [(BOX, 0.9, 0)])], 1)
    assert found.map50 == pytest.approx(51 / 101)


def test_a_second_box_of_one_object_is_a_mistake_and_classes_count_alike() -> None:
    # Class 0: right, then the same object again, then right: precisions 1, and 2 / 3 beyond 1 / 2.
    twice = [(BOX, 0.9, 0), (BOX, 0.8, 0), (ELSEWHERE, 0.7, 0)]
    first = image([(BOX, 0), (ELSEWHERE, 0), (BOX, 1)], twice)
    by_hand = (51 + 50 * 2 / 3) / 101
    # Class 1 is not found at all, class 2 has no true box.
    assert average_precisions([first], 3).map50 == pytest.approx(by_hand / 2)


def test_overlaps_of_other_thresholds() -> None:
    # 20 x 30 pixels against 20 x 24 inside: an overlap of 0.8, right at 7 of 10 thresholds,
    # 0.5 to 0.8.
    smaller = (10.0, 20.0, 30.0, 44.0)
    found = average_precisions([image([(BOX, 0)], [(smaller, 0.9, 0)])], 1)
    assert (found.map50, found.mean_over_overlaps) == (pytest.approx(1.0), pytest.approx(0.7))


def test_boxes_of_other_images_and_crowds() -> None:
    elsewhere = [image([(BOX, 0)], []), image([], [(BOX, 0.9, 0)])]
    assert average_precisions(elsewhere, 1).map50 == 0.0
    crowd = image([(BOX, 0), (ELSEWHERE, 0, 1.0)], [(ELSEWHERE, 0.9, 0), (BOX, 0.8, 0)])
    assert average_precisions([crowd], 1).map50 == pytest.approx(1.0)
    with pytest.raises(ValueError, match="needs a true box"):
        average_precisions([image([(ELSEWHERE, 0, 1.0)], [])], 1)
