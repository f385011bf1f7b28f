"""The identity of a function: what it computes, whatever file or line it stands in."""

import functools

import pytest
import torch

from sharedattn.errors import InputError
from sharedattn.search.evaluators.function import identity_of


def made(text, name="mine", **values):
    """A function of a program that has no source."""
    place = {"__name__": "__main__", **values}
    exec(compile(text, "<stdin>", "exec"), place)
    return place[name]


SOURCE = "def mine(placement):\n    return {'top1': RATE * 0.5}\n"


def test_equal_code_has_one_identity_wherever_it_stands():
    moved = made("\n\n# a comment\n" + SOURCE, RATE=1.0)
    assert identity_of(made(SOURCE, RATE=1.0)) == identity_of(moved)


@pytest.mark.parametrize(
    "other",
    [
        made(SOURCE.replace("0.5", "0.25"), RATE=1.0),
        made(SOURCE.replace("*", "+"), RATE=1.0),
        made(SOURCE, RATE=2.0),
        made(SOURCE.replace("placement", "network"), RATE=1.0),
    ],
)
def test_other_code_or_constants_have_another(other):
    assert identity_of(other) != identity_of(made(SOURCE, RATE=1.0))


def test_closures_defaults_and_helpers_count():
    def of(value):
        return lambda placement: {"top1": value}

    assert identity_of(of(0.5)) == identity_of(of(0.5)) != identity_of(of(0.25))
    weights = torch.ones(3)
    assert identity_of(of(weights)) == identity_of(of(torch.ones(3)))
    assert identity_of(of(weights)) != identity_of(of(2 * weights))

    def scaled(placement, scale=1.0):
        return {"top1": scale}

    halved = functools.partial(scaled, scale=0.5)
    assert identity_of(halved) == identity_of(functools.partial(scaled, scale=0.5))
    assert len({identity_of(scaled), identity_of(halved)}) == 2
    source = SOURCE.replace("RATE *", "half(1) +")
    half, third = (f"def half(x):\n    return x / {n}\n{source}" for n in (2, 3))
    assert identity_of(made(half)) == identity_of(made(half)) != identity_of(made(third))


def test_callable_objects_count_by_their_fields():
    class Scaled:
        def __init__(self, scale):
            self.scale = scale

        def __call__(self, placement):
            return {"top1": self.scale}

    assert identity_of(Scaled(0.5)) == identity_of(Scaled(0.5)) != identity_of(Scaled(0.25))
    assert identity_of(Scaled(0.5).__call__) == identity_of(Scaled(0.5).__call__)


def test_recursion_ends():
    mine = made("def mine(placement):\n    return mine(placement)\n")
    assert identity_of(mine) == identity_of(mine)


def test_an_own_identity_stands():
    mine = made(SOURCE, RATE=1.0)
    mine.identity = "accuracy on my camera, 2"
    assert identity_of(mine) == "accuracy on my camera, 2"
    mine.identity = 3
    with pytest.raises(InputError, match=r"`evaluator.identity` is a text, but got 3"):
        identity_of(mine)


def test_what_has_no_hash_asks_for_an_identity(tmp_path):
    with open(tmp_path / "file", "w") as file:
        with pytest.raises(InputError, match="has no hash .*give the evaluator an `identity`"):
            identity_of(lambda placement: file.name)
