import math
from typing import Any

import pytest

from sharedattn.results.records import (
    RungReport,
)


@pytest.mark.parametrize(
    "changes", [{"epoch": 0}, {"top1": math.nan}, {"top1": 1.5}, {"loss": math.inf}]
)
def test_a_rung_s_metrics_are_numbers(changes: dict[str, float]) -> None:
    fields: dict[str, Any] = {"epoch": 3, "top1": 0.5, "loss": 0.75, "goes_on": True}
    assert RungReport(**fields) == RungReport(3, 0.5, 0.75, True)
    with pytest.raises(
        ValueError, match="a rung needs an `epoch` >= 1.*record the trial as failed"
    ):
        RungReport(**{**fields, **changes})
