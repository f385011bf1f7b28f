from collections.abc import Callable

from sharedattn.results.records import (
    StudyRecord,
)


def test_totals_are_no_part_of_a_study_s_fingerprint(
    make_study: Callable[..., StudyRecord],
) -> None:
    assert make_study().fingerprint == make_study(num_trials=99, confirm_seeds=1).fingerprint
    assert make_study().fingerprint != make_study(fingerprint_document={"seed": 6}).fingerprint
