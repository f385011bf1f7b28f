"""The rule of equal figures, on figures made up for it."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sharedattn.papers.figures import Figure, Printed, Row


def figure(printed: str, **changed: object) -> Figure:
    fields = {"paper": "P", "source": "a table", "model": "M", "metric": "params"}
    return Figure(**{**fields, "printed": printed, **changed})  # type: ignore[arg-type]


def row(printed: str, ours: int | Fraction | None, **changed: object) -> Row:
    named = {name: changed.pop(name) for name in ("shown_like", "recalled") if name in changed}
    return Row(
        figure=figure(printed, **named),
        ours=None if ours is None else Fraction(ours),
        convention="whole",
        **changed,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("text", "value", "step"),
    [
        ("5.7 M", 5_700_000, 100_000),
        ("30 M", 30_000_000, 1_000_000),
        ("0.55 M", 550_000, 10_000),
        ("1.2 G", 1_200_000_000, 100_000_000),
        ("7 k", 7_000, 1_000),
        ("-14.2 %", Fraction(-142, 1000), Fraction(1, 1000)),
        ("29,801,422", 29_801_422, 1),
        ("0", 0, 1),
    ],
)
def test_printed_numbers(text: str, value: Fraction, step: Fraction) -> None:
    printed = Printed.parse(text)
    assert (printed.value, printed.step, printed.text) == (value, step, text)


@pytest.mark.parametrize("text", ["", "many", "1.2G", "1.2 X", "1.2.3 M", "5.7 M about"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no printed figure"):
        Printed.parse(text)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("5.7 M", 5_650_000, 5_750_000),
        ("55 M", 54_500_000, 55_500_000),
        ("-14.2 %", Fraction(-1425, 10000), Fraction(-1415, 10000)),
    ],
)
def test_what_rounds_to_the_printed_digits_is_equal(
    text: str, least: Fraction, most: Fraction
) -> None:
    printed, little = Printed.parse(text), Fraction(1, 10**9)
    assert printed.range == (least, most)
    assert printed.prints(Fraction(least))
    assert printed.prints(Fraction(most))
    assert not printed.prints(least - little)
    assert not printed.prints(most + little)


def test_a_whole_number_is_equal_to_itself_alone() -> None:
    assert [row("1,009", n, note="near").status for n in (1008, 1009, 1010)] == [
        "explained",
        "equal",
        "explained",
    ]


def test_cut_off_digits() -> None:
    assert Printed.parse("17.5 G").cuts_off(Fraction(17_583_000_000))
    assert not Printed.parse("17.5 G").cuts_off(Fraction(17_600_000_000))
    assert not Printed.parse("17.5 G").cuts_off(Fraction(17_499_000_000))
    assert Printed.parse("-11.1 %").cuts_off(Fraction(-11196, 100_000))
    assert not Printed.parse("-11.1 %").cuts_off(Fraction(-11001, 100_000))


def test_numbers_are_shown_in_the_printed_unit_with_two_digits_more() -> None:
    assert Printed.parse("5.7 M").show(Fraction(5_717_416)) == "5.717 M"
    assert Printed.parse("292 G").show(Fraction(1_292_057_776_128)) == "1,292.06 G"
    assert Printed.parse("-14.2 %").show(Fraction(1899, 100_000)) == "+1.899 %"
    assert Printed.parse("29,801,422").show(Fraction(29_801_422)) == "29,801,422"


def test_the_status_follows_from_the_figures() -> None:
    assert row("5.7 M", 5_717_416).status == "equal"
    assert row("5.7 M", 5_800_000, note="why").status == "explained"
    assert row("5.7 M", 5_717_416, note="why", known=False).status == "unknown shape"
    assert row("5.7 M", None, note="why", known=False).status == "unknown shape"


def test_what_is_from_memory_or_in_words_is_never_equal() -> None:
    assert row("5.7 M", 5_700_000, note="why", recalled=True).status == "explained"
    in_words = row("minimal", 0, note="why", shown_like="0")
    assert in_words.status == "explained"
    assert in_words.difference_text == ""
    assert in_words.to_json()["published"] is None
    assert in_words.to_json()["difference"] is None


def test_a_row_that_explains_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="is not explained"):
        row("5.7 M", 5_800_000)


@pytest.mark.parametrize(
    ("printed", "ours", "text"),
    [
        ("5.7 M", 5_700_000, "0"),
        ("5.0 M", 5_100_000, "+2.0 %"),
        ("-14.2 %", Fraction(-15, 100), "-0.80 pt"),
        ("0", 2_304, "+2,304"),
        ("5.7 M", None, ""),
    ],
)
def test_differences(printed: str, ours: Fraction | None, text: str) -> None:
    assert row(printed, ours, note="why", known=ours is not None).difference_text == text


def test_the_document_of_a_row() -> None:
    assert row("-12.5 %", Fraction(-1, 16), note="half of it", network="vit: V1").to_json() == {
        "paper": "P",
        "source": "a table",
        "model": "M",
        "metric": "params",
        "printed": "-12.5 %",
        "published": -0.125,
        "ours": -0.0625,
        "difference": 0.0625,
        "convention": "whole",
        "network": "vit: V1",
        "status": "explained",
        "note": "half of it",
    }
    whole = row("5.7 M", 5_717_416).to_json()
    assert (whole["published"], whole["ours"], whole["difference"]) == (
        5_700_000,
        5_717_416,
        17_416,
    )
    assert type(whole["ours"]) is int
