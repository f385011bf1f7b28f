import pytest

from sharedattn.data import DataConfig, open_data
from sharedattn.data.balance import guessing_level, imbalance_warnings


@pytest.mark.parametrize(
    ("num_classes", "counts", "level"),
    [
        (4, None, 0.25),
        (4, (), 0.25),
        (4, (0, 0, 0, 0), 0.25),
        (4, (5, 5, 5, 5), 0.25),
        (2, (95, 5), 0.95),
        # Classes that have no image in the split are no help to guess by.
        (3, (10, 0, 0), 1.0),
    ],
)
def test_what_guessing_gets(num_classes: int, counts: tuple[int, ...] | None, level: float):
    assert guessing_level(num_classes, counts) == pytest.approx(level)


def test_classes_that_are_alike_are_not_spoken_of():
    assert imbalance_warnings(()) == []
    assert imbalance_warnings((5, 50), ("a", "b")) == []


def test_small_classes_are_named():
    [small] = imbalance_warnings((4, 30, 3), ("cat", "dog", "fox"))
    assert small.startswith("2 classes have fewer than 5 validation images: 'cat' (4), 'fox' (3)")
    # What is said of a class without images says nothing of the others' sizes.
    [small] = imbalance_warnings((0, 30))
    assert small.startswith("1 class has fewer than 5 validation images: 0 (0)")
    many, _ = imbalance_warnings([1] * 8 + [100])
    assert "and 3 more;" in many


def test_classes_of_very_different_size_are_named():
    [sentence] = imbalance_warnings((5, 51), ("a", "b"), "test")
    assert sentence == (
        "the classes differ much in size: 'b' has 51 test images and 'a' 5; always answering 'b' "
        "would be right for 91.1% of them"
    )


def test_pairs_of_digits_are_half_and_half():
    data = open_data(DataConfig(name="digit-pairs"))
    assert data.class_counts("validation") == (2000, 2000)
    labels = [
        label
        for _, batch in data.eval_batches("validation", batch_size=500, device="cpu")
        for label in batch.tolist()
    ]
    assert (labels.count(0), labels.count(1)) == data.class_counts("validation")
