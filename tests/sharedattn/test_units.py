import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedattn.errors import InputError
from sharedattn.units import (
    BYTES,
    COUNT,
    FRACTION,
    MILLISECONDS,
    format_fraction,
    format_quantity,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1.3G", 1_300_000_000),
        (" 2.3 M ", 2_300_000),
        ("500k", 500_000),
        ("500K", 500_000),
        (".5T", 500_000_000_000),
        ("1258411200", 1_258_411_200),
        # 1.258411201 has no exact float; the count is exact all the same.
        ("1.258411201G", 1_258_411_201),
        ("0", 0),
    ],
)
def test_parse_quantity(text: str, count: int) -> None:
    assert parse_quantity(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1", "1.3 Gi", "1e9", "1,3G", "nan", "1.G"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no quantity; write a number, with k, M, G or T"):
        parse_quantity(text)


def test_a_part_of_a_mac_is_refused() -> None:
    with pytest.raises(InputError, match="'1.2345k' is 1234.5.*, not a whole count"):
        parse_quantity("1.2345k")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (5_717_416, "5.72 M"),
        (1_258_411_200, "1.26 G"),
        (9_994, "9.99 k"),
        (9_995, "10.0 k"),
        (99_949, "99.9 k"),
        (99_950, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (7 * 10**15, "7000 T"),
    ],
)
def test_format_quantity(count: int, text: str) -> None:
    assert format_quantity(count) == text


@given(st.integers(1, 10**14))
def test_what_is_written_reads_back_within_half_a_digit(count: int) -> None:
    assert parse_quantity(format_quantity(count)) == pytest.approx(count, rel=0.005)


def test_units_read_and_write_their_figures() -> None:
    assert [MILLISECONDS.parse(text) for text in ("3", " 2.5 ", "1e-3")] == [3.0, 2.5, 0.001]
    for text in ("fast", "", "nan", "inf"):
        with pytest.raises(InputError, match="is no number of ms; write for example 2.5"):
            MILLISECONDS.parse(text)
    assert [BYTES.parse(text) for text in ("64M", "500", "1.5k")] == [64_000_000, 500, 1500]
    with pytest.raises(InputError, match="is no quantity; write a number, with k, M, G or T"):
        COUNT.parse("64MB")
    assert MILLISECONDS.format(2.3456) == "2.35 ms"
    assert COUNT.format(1_258_411_200) == "1.26 G"
    assert [BYTES.format(value) for value in (64e6, 512)] == ["64.0 MB", "512 B"]
    assert FRACTION.format(0.5) == "0.5"


def test_format_fraction() -> None:
    assert format_fraction(0.89349) == "0.893"
    assert format_fraction(0.8936, 0.0055) == "0.894 ± 0.005"
