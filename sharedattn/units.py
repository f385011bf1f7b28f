"""Units of figures: parsing from the command line, and formatting for display."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from sharedattn.errors import InputError

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([kKMGT]?)\s*")
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*%\s*")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_quantity(text: str) -> int:
    """Read a count such as `1.3G`, `2.3 M`, `500k` or `1258411200`.

    Suffixes are decimal: k 1e3, M 1e6, G 1e9, T 1e12 (K is read as k). The value is exact, without
    rounding to a float.

    Raises:
        InputError: not a number with one of the suffixes, or not a whole count.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is no quantity; write a number, with k, M, G or T after it, such as 1.3G"
        )
    value = Decimal(match[1]) * _FACTORS["k" if match[2] == "K" else match[2]]
    if value != value.to_integral_value():
        raise InputError(f"{text!r} is {value}, not a whole count; round it")
    return int(value)


def format_quantity(count: float) -> str:
    """Format a count in three digits with its suffix, such as `1.26 G` or `5.72 M`.

    Args:
        count: 0 or more; below 1000 it is written in full.
    """
    if count < 1000:
        return f"{count:.0f}"
    # A value that rounds to 1000 in three digits gets the next suffix.
    suffix = next((s for s in "kMG" if count / _FACTORS[s] < 999.5), "T")
    value = count / _FACTORS[suffix]
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How a figure is parsed and formatted.

    Attributes:
        symbol: text after the number; empty for a count or a fraction.
        scaled: whether to shorten by k, M, G and T, powers of 1000. Scaled figures are whole.
    """

    symbol: str = ""
    scaled: bool = True

    def parse(self, text: str) -> float:
        """Parse a figure: `1.3G` if scaled, otherwise a number such as `2.5`.

        Raises:
            InputError: not such a figure, or not finite.
        """
        if self.scaled:
            return parse_quantity(text)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{text!r} is no number{self._of_symbol}; write for example 2.5")
        return value

    def format(self, value: float) -> str:
        """Format a figure, such as `1.26 G`, `64.0 MB`, `2.35 ms`."""
        if not self.scaled:
            return f"{value:.3g} {self.symbol}".rstrip()
        text = format_quantity(value)
        return text + self.symbol if " " in text else f"{text} {self.symbol}".rstrip()

    @property
    def _of_symbol(self) -> str:
        return f" of {self.symbol}" if self.symbol else ""


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """A share of what the backbone costs as published, such as 67 %.

    Attributes:
        percent: above 0.
    """

    percent: Decimal

    def of(self, whole: float) -> Decimal:
        """The share of a cost, exactly."""
        return Decimal(whole) * self.percent / 100

    def __str__(self) -> str:
        return f"{self.percent.normalize():f}%"


def parse_bound(text: str, unit: Unit) -> float | Share:
    """Read a bound on a cost: a figure of its unit, or a share such as `67%`.

    Raises:
        InputError: neither of them, or a share of 0 %.
    """
    match = _SHARE.fullmatch(text)
    if match is None:
        return unit.parse(text)
    if not (share := Share(Decimal(match[1]))).percent:
        raise InputError(f"{text!r} leaves nothing; give a share above 0%")
    return share


COUNT = Unit()
BYTES = Unit(symbol="B")
MILLISECONDS = Unit(symbol="ms", scaled=False)
FRACTION = Unit(scaled=False)


def format_fraction(mean: float, standard_error: float | None = None) -> str:
    """Format an accuracy, with its standard error if given: `0.893 ± 0.006`."""
    return f"{mean:.3f}" if standard_error is None else f"{mean:.3f} ± {standard_error:.3f}"
