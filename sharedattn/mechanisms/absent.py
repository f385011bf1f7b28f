"""The whole layer left out: tokens and state pass on, and other layers keep their blocks."""

from __future__ import annotations

from sharedattn.mechanisms.interface import Colors
from sharedattn.mechanisms.nothing import Nothing


class Absent(Nothing):
    """A layer without attention branch and without MLP: nothing of its block is there."""

    letter = "X"
    name = "absent"
    title = "layer left out"
    rank = 90
    colors = Colors(fill="#ffffff", ink="#5d6672", dark_fill="#14171b", dark_ink="#a2abb8")
    feeds_forward = False
    fits_convolutions = True


ABSENT = Absent()
