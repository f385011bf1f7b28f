"""A printed figure with ours, and the rule that compares them.

Two figures are equal if ours, rounded to the printed digits, is the printed one; a whole number
printed in full equals only itself. The status follows from the figures:

- `unknown shape`: the measured network is unknown or not built here, and ours is a stand-in;
- `equal`: by the rule above;
- `explained`: ours differs, and the row says why. Figures printed in words, or only from memory,
  never count as equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Status = Literal["equal", "explained", "unknown shape"]

RULE = (
    "equal: ours, rounded to the digits that were printed, is what was printed; explained: it "
    "differs, or the figure is known in words or from memory alone, and the row says why; unknown "
    "shape: the network that was measured is not known, or is not built here, and ours stands in "
    "for it"
)

_PRINTED = re.compile(r"([+-]?[\d,]+(?:\.(\d+))?)(?: ([kMG%]))?")
_UNITS = {
    None: Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "%": Fraction(1, 100),
}
_MORE_DIGITS = 2
"""Number of digits of ours to show beyond the printed ones."""


@dataclass(frozen=True, slots=True)
class Printed:
    """A printed number.

    Attributes:
        text: digits, with k, M, G or % after a space.
        value: the text's value; for a percentage, the fraction.
        step: one unit of the last printed digit.
        decimals: number of digits after the point.
        unit: k, M, G, %, or None.
    """

    text: str
    value: Fraction
    step: Fraction
    decimals: int
    unit: str | None

    @classmethod
    def parse(cls, text: str) -> Printed:
        """Parse a printed number, such as `5.7 M`, `-14.2 %` or `29,801,422`.

        Raises:
            ValueError: the text is not a number.
        """
        match = _PRINTED.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no printed figure; write digits, with k, M, G or % after a space"
            )
        unit, decimals = _UNITS[match[3]], len(match[2] or "")
        value = Fraction(match[1].replace(",", "")) * unit
        return cls(text, value, unit / 10**decimals, decimals, match[3])

    @property
    def range(self) -> tuple[Fraction, Fraction]:
        """The smallest and the largest number printed as this."""
        return self.value - self.step / 2, self.value + self.step / 2

    def prints(self, number: Fraction) -> bool:
        """Whether a number rounds to this at the printed digits; a half may round either way."""
        least, most = self.range
        return least <= number <= most

    def cuts_off(self, number: Fraction) -> bool:
        """Whether a number, truncated after the printed digits, is this."""
        return abs(self.value) <= abs(number) < abs(self.value) + self.step

    def show(self, number: Fraction) -> str:
        """Format another number in this one's unit, with more digits unless this has them all."""
        if self.unit is None and self.decimals == 0:
            return f"{round(number):,}"
        shown = float(number / _UNITS[self.unit])
        sign = "+" if self.unit == "%" else ""
        text = f"{shown:{sign},.{self.decimals + _MORE_DIGITS}f}"
        return text if self.unit is None else f"{text} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A published figure.

    Attributes:
        paper: short name of the paper.
        source: where it was printed.
        model: the paper's name of the network.
        metric: the counted quantity.
        printed: the figure as printed.
        shown_like: for a figure printed in words, a number whose digits and unit ours is shown in.
        recalled: whether it is quoted from memory, not from a source.
    """

    paper: str
    source: str
    model: str
    metric: str
    printed: str
    shown_like: str = ""
    recalled: bool = False

    @property
    def number(self) -> Printed:
        """The printed figure as a number, or the number given for its digits."""
        return Printed.parse(self.shown_like or self.printed)

    def is_equal(self, ours: Fraction) -> bool:
        """Whether ours equals the printed figure by this module's rule."""
        return not self.shown_like and not self.recalled and self.number.prints(ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A published figure compared with ours.

    Attributes:
        figure: the published figure.
        ours: our exact figure (for a percentage, the fraction), or None without such a network.
        convention: how ours is counted.
        note: why it differs, or how much an equal figure means.
        network: our network as text, or empty for a mere closed form.
        known: whether the shape of the published network is known.
    """

    figure: Figure
    ours: Fraction | None
    convention: str
    note: str = ""
    network: str = ""
    known: bool = True

    def __post_init__(self) -> None:
        assert self.ours is not None or not self.known
        assert self.convention or self.ours is None
        assert self.note or self.status == "equal", f"{self.figure} is not explained"

    @property
    def status(self) -> Status:
        """The figure's status by this module's rule."""
        if not self.known or self.ours is None:
            return "unknown shape"
        return "equal" if self.figure.is_equal(self.ours) else "explained"

    @property
    def ours_text(self) -> str:
        """Ours in the printed figure's unit."""
        return "" if self.ours is None else self.figure.number.show(self.ours)

    @property
    def difference_text(self) -> str:
        """Ours minus the published figure: points (pt) for percentages, else per cent of it."""
        if self.ours is None or self.figure.shown_like:
            return ""
        published = self.figure.number
        difference = self.ours - published.value
        if difference == 0:
            return "0"
        if published.unit == "%":
            return f"{float(100 * difference):+.2f} pt"
        if published.value == 0:
            return f"{round(difference):+,}"
        return f"{float(100 * difference / published.value):+.1f} %"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; figures are whole numbers, or fractions for percentages."""
        in_words = bool(self.figure.shown_like)
        published = None if in_words else self.figure.number.value
        difference = None if self.ours is None or published is None else self.ours - published
        return {
            "paper": self.figure.paper,
            "source": self.figure.source,
            "model": self.figure.model,
            "metric": self.figure.metric,
            "printed": self.figure.printed,
            "published": _plain(published),
            "ours": _plain(self.ours),
            "difference": _plain(difference),
            "convention": self.convention,
            "network": self.network,
            "status": self.status,
            "note": self.note,
        }


def _plain(number: Fraction | None) -> int | float | None:
    if number is None:
        return None
    return number.numerator if number.denominator == 1 else float(number)
