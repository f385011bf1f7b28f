import math
from collections.abc import Callable

import pytest

from sharedattn.errors import InputError
from sharedattn.results.records import (
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    SpecRecord,
)


def test_a_fidelity_is_read_back_from_its_key() -> None:
    fidelity = Fidelity(epochs=7, image_size=16, weights="inherited")
    assert Fidelity.from_key(fidelity.key) == fidelity
    assert fidelity.key == (
        '{"data_fraction":1.0,"epochs":7,"image_size":16,"weights":"inherited"}'
    )
    with pytest.raises(InputError, match="of 0.5 of the training data"):
        Fidelity.from_json({**fidelity.to_json(), "data_fraction": 0.5})


def test_the_size_of_images_that_are_not_square() -> None:
    wide = Fidelity(epochs=7, image_size=(24, 40))
    assert wide.key == (
        '{"data_fraction":1.0,"epochs":7,"image_size":[24,40],"weights":"trained"}'
    )
    assert Fidelity.from_key(wide.key) == wide != Fidelity(epochs=7, image_size=(40, 24))
    sizes = [30, (24, 40), 31]  # 900, 960 and 961 pixels
    ranks = [Fidelity(epochs=7, image_size=size).rank for size in sizes]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"image_size": 0},
        {"image_size": (24, 0)},
        {"weights": "borrowed"},
    ],
)
def test_what_is_no_fidelity_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="`fidelity` has `epochs` and `image_size`, whole"):
        Fidelity(**{"epochs": 7, "image_size": 16, **fields})  # type: ignore[arg-type]


def test_the_most_faithful_fidelity_ranks_highest() -> None:
    inherited = Fidelity(epochs=300, image_size=224, weights="inherited")
    small = Fidelity(epochs=300, image_size=112)
    short = Fidelity(epochs=10, image_size=224)
    full = Fidelity(epochs=300, image_size=224)
    ranked = sorted([full, short, small, inherited], key=lambda f: f.rank)
    assert ranked == [inherited, small, short, full]


def test_every_part_of_an_identity_changes_its_key() -> None:
    parts = {
        "spec_key": "s",
        "recipe_key": "r",
        "data_fingerprint": "d",
        "fidelity": Fidelity(epochs=7, image_size=16),
        "seed": 5,
    }
    changed = {
        "spec_key": "t",
        "recipe_key": "t",
        "data_fingerprint": "t",
        "fidelity": Fidelity(epochs=8, image_size=16),
        "seed": 6,
    }
    keys = {EvaluationIdentity(**{**parts, name: changed[name]}).key for name in parts}  # type: ignore[arg-type]
    keys.add(EvaluationIdentity(**parts).key)  # type: ignore[arg-type]
    assert len(keys) == 6


@pytest.mark.parametrize(
    "metrics",
    [
        {"top1": math.nan},
        {"top1": 1.5},
        {"top1": -0.1},
        {"loss": math.inf},
    ],
)
def test_a_metric_that_is_no_number_is_no_evaluation(
    metrics: dict[str, object],
    make_spec: Callable[..., SpecRecord],
    make_evaluation: Callable[..., EvaluationRecord],
) -> None:
    with pytest.raises(
        ValueError, match="`top1` is from 0 to 1 and `loss` finite.*record the trial as failed"
    ):
        make_evaluation(make_spec(), **metrics)
