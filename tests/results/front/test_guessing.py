"""Where a result is more than a guess, held against binomial tails counted out."""

import math

import pytest

from sharedattn.results.front.confirmation import Candidate, Front
from sharedattn.results.front.guessing import Guessing, guessing_warnings, known_class_counts
from sharedattn.results.records import Fidelity


def tail(num_images: int, level: float, right: int) -> float:
    """Probability of at least so many right answers by guessing."""
    return math.fsum(
        math.comb(num_images, k) * level**k * (1 - level) ** (num_images - k)
        for k in range(right, num_images + 1)
    )


@pytest.mark.parametrize("num_images", [40, 200, 1000])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("num_tries", [1, 24])
def test_the_bar_is_passed_by_guessing_in_one_search_of_twenty(
    num_images: int, level: float, num_tries: int
) -> None:
    guessing = Guessing(level=level, num_classes=10, num_images=num_images, num_tries=num_tries)
    least = math.floor(guessing.bar * num_images) + 1  # right answers that are above it
    passed = 1 - (1 - tail(num_images, level, least)) ** num_tries
    # A normal distribution for a binomial one, at its worst for few images and far tails.
    assert passed < (0.07 if level * num_images >= 10 and level <= 0.5 else 0.20)
    lower = least - max(2, round(0.02 * num_images))
    assert 1 - (1 - tail(num_images, level, lower)) ** num_tries > 0.05


def test_the_bar_of_one_training_is_the_one_sided_95_percent() -> None:
    guessing = Guessing(level=0.5, num_classes=2, num_images=4000)
    assert guessing.bar == pytest.approx(0.5 + 1.6449 * math.sqrt(0.25 / 4000) + 0.5 / 4000, 1e-5)
    assert "the best of" not in guessing.text
    assert "guessing gets 0.500 (chance among 2 classes)" in guessing.text


def test_always_one_answer_is_named_where_it_is_better_than_chance() -> None:
    guessing = Guessing(level=0.93, num_classes=2, num_images=200, num_tries=24)
    assert "always answering the largest class" in guessing.text
    assert "200 validation images, the best of 24 trainings" in guessing.text


def test_class_counts_of_a_study_may_be_unknown() -> None:
    assert known_class_counts({}) is None
    assert known_class_counts({"class_counts": {"test": [1]}}) is None
    assert known_class_counts({"class_counts": {"validation": [3, 4]}}) == [3, 4]


def test_placements_that_mix_nothing_are_told_from_others(make_row) -> None:
    texts = ["N3", "V1N1", "N2/cb1", "N1X1N1"]
    members = [Candidate(i, (make_row(i, text, 0.25, 100 + i),)) for i, text in enumerate(texts)]
    best = Candidate(4, (make_row(4, "V4", 0.9, 200),))
    fidelity = Fidelity(epochs=3, image_size=16)
    front = Front((*members, best), is_confirmed=True, fidelity=fidelity)
    guessing = Guessing(level=0.25, num_classes=4, num_images=400, num_tries=5)
    [warning] = guessing_warnings(front, members, guessing)
    assert "4 of 5 placements on the front are not above guessing (id 0, 1, 2, 3)" in warning
    assert "2 of them without attention or broadcasting, which the rule mixing_layer" in warning
    [warning] = guessing_warnings(front, members[1:3], guessing)
    assert "mixing_layer" not in warning
