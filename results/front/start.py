"""Compare a search with the trained model that it starts from."""

from __future__ import annotations

from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.front.guessing import guessing_of
from sharedattn.results.records import Start, StudyRecord
from sharedattn.units import format_fraction, format_quantity


def start_warnings(study: StudyRecord, start: Start) -> list[str]:
    """Warn of a start that is not above guessing, and name what may be wrong.

    Args:
        study: the study.
        start: its start.

    Returns:
        Sentences; none if the start is above guessing.
    """
    guessing = guessing_of(study, start.num_images)
    if guessing is None or start.top1 > guessing.bar:
        return []
    if guessing.bar >= 1.0:
        return [
            f"{start.num_images:,} validation images are too few to tell the start from guessing"
        ]
    of_head = (
        "its classes may have another order (--classes), or its head may be untrained or of other "
        "classes (--head replace fits one to these images)"
        if start.head_images is None
        else "or it may be untrained: its features do not tell these classes apart"
    )
    return [
        f"the start is not above guessing: its top-1 is {format_fraction(start.top1)}; "
        f"{guessing.text}; the model may have been trained on other pixels (--pixels, --mean, "
        f"--std, --interpolation, --crop-pct, --crop-mode), {of_head}"
    ]


def below_start(what: str, best: Candidate | None, start: Start) -> list[str]:
    """By how many points the best of something is below the start.

    Args:
        what: name of the thing, such as `the front's best`.
        best: its most accurate placement, or None if it is empty.
        start: the start.

    Returns:
        One sentence, or none if it is not below.
    """
    if best is None or best.top1 >= start.top1:
        return []
    points = 100 * (start.top1 - best.top1)
    said = "less than 0.1" if points < 0.05 else f"{points:.1f}"
    images = best.runs[0].num_images
    part = (
        ""
        if images in (None, start.num_images)
        else f"; it was measured on {images:,} of the {start.num_images:,} validation images"
    )
    return [
        f"{what} is {said} points below the start: {format_fraction(best.top1)}, "
        f"{format_quantity(best.macs)} MACs (id {best.number}){part}"
    ]
