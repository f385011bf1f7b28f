import math
from typing import Any

import pytest

from sharedattn.results.records import EpochMetrics


@pytest.mark.parametrize(
    "changes", [{"epoch": 0}, {"top1": math.nan}, {"top1": 1.5}, {"loss": math.inf}]
)
def test_an_epoch_s_metrics_are_numbers(changes: dict[str, float]) -> None:
    fields: dict[str, Any] = {"epoch": 3, "top1": 0.5, "loss": 0.75}
    assert EpochMetrics(**fields) == EpochMetrics(3, 0.5, 0.75)
    with pytest.raises(ValueError, match="`top1` from 0 to 1 and `loss` finite, but got"):
        EpochMetrics(**{**fields, **changes})
