"""The sizes of networks that a person would make by hand."""

import pytest

from sharedattn.results.front.confirmation import Candidate
from sharedattn.search.study.baselines import target_macs


class Row:
    def __init__(self, macs):
        self.macs = macs


def members(*macs):
    return [Candidate(i, (Row(m),)) for i, m in enumerate(macs)]


@pytest.mark.parametrize(
    ("macs", "max_macs", "targets"),
    [
        ((700,), None, [700]),
        ((300, 700), None, [300, 700]),
        # Every third of seven members, up to the one with most.
        ((100, 200, 300, 400, 500, 600, 700), None, [200, 400, 700]),
        # A person uses the budget up, whatever the search found inside it.
        ((100, 200, 300, 400, 500, 600, 700), 790, [200, 400, 790]),
        ((700,), 790, [790]),
        # Members of equal cost are one size.
        ((300, 300, 700), None, [300, 700]),
    ],
)
def test_sizes_are_spread_up_to_the_budget(macs, max_macs, targets):
    assert target_macs(members(*macs), max_macs) == targets
