import traceback
from collections.abc import Callable

import pytest

from sharedattn.results.failures import failure_lines, failures_of, reason_of, shown_reason
from sharedattn.results.records import TrialRow, TrialState

Row = Callable[..., TrialRow]


def traceback_of(error: BaseException) -> str:
    try:
        raise error
    except BaseException as raised:
        return "".join(traceback.format_exception(raised))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (traceback_of(ValueError("bits must be 1 to 8")), "ValueError: bits must be 1 to 8"),
        # What a message says first, not what it ends with.
        (
            traceback_of(RuntimeError("CUDA error: out of memory\nCompile with X\n\n")),
            "RuntimeError: CUDA error: out of memory",
        ),
        (traceback_of(KeyError()), "KeyError"),
        (traceback_of(SyntaxError("bad", ("a.py", 3, 1, "x =", 3, 2))), "SyntaxError: bad"),
        ("the worker was ended by SIGKILL\n", "the worker was ended by SIGKILL"),
        ("", "unknown error"),
    ],
)
def test_the_line_of_a_traceback_that_says_why(text: str, reason: str) -> None:
    assert reason_of(text) == reason


def test_of_errors_raised_from_each_other_the_last_counts() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        assert reason_of("".join(traceback.format_exception(error))) == "ValueError: outer"


def test_a_shown_reason_is_a_line() -> None:
    assert shown_reason("a\tb\x1b[31mc\x00") == "a b [31mc "
    assert shown_reason("cannot open s3://me:secret@host") == "cannot open s3://me:***@host"
    assert len(shown_reason("x" * 1000)) == 400


def test_equal_reasons_are_counted_together(make_row: Row) -> None:
    def failed(number: int, error: str | None) -> TrialRow:
        return make_row(number, f"V{number}", state=TrialState.FAILED, error=error)

    rows = [make_row(0, "V9"), failed(1, "A: x"), failed(2, "B: y"), failed(3, "B: y")]
    found = failures_of([*rows, failed(4, None)])
    assert [(f.reason, f.count, f.trials) for f in found] == [
        ("B: y", 2, (2, 3)),
        ("A: x", 1, (1,)),
        ("unknown error", 1, (4,)),
    ]
    assert [str(f) for f in found[:2]] == ["2 trials failed: B: y", "1 trial failed: A: x"]


def test_failed_confirmations_count_at_the_search_trial_of_their_placement(make_row: Row) -> None:
    rows = [
        make_row(7, "V1"),
        make_row(0, "V1", replicate=1, state=TrialState.FAILED, error="A: x"),
        make_row(1, "V1", replicate=2, state=TrialState.FAILED, error="A: x"),
    ]
    [found] = failures_of(rows)
    assert found.to_json() == {"reason": "A: x", "count": 2, "trials": [7]}


def test_many_reasons_are_cut(make_row: Row) -> None:
    rows = [make_row(i, f"V{i}", state=TrialState.FAILED, error=f"E: {i}") for i in range(14)]
    lines = failure_lines(failures_of(rows))
    assert len(lines) == 11
    assert lines[-1] == "4 more trials failed, for 4 other reasons"
