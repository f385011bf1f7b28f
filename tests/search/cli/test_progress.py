"""What is shown of a running search, drawn at the widths that terminals have."""

import io
import time
from dataclasses import replace

import pytest
from fakes import progress_at
from rich.console import Console

from sharedattn.progress import ScoringProgress
from sharedattn.results.records import TrialRole
from sharedattn.search.cli.progress import (
    StudyDisplay,
    TrainingDisplay,
    about,
    clock,
    slot_line,
    slots_table,
)
from sharedattn.search.status import Failed, Progress, Running

LONG = "V2E2/s16/cb1L1N1 | V1L1N2E1/s32/dia2 | V3/cb"


class Record:
    num_trials = 40
    confirm_seeds = 3
    retrains = False
    quality = "top1"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def console(width=80, height=24, file=None, **options):
    return Console(
        file=file or io.StringIO(), width=width, height=height, soft_wrap=True, **options
    )


def running(name="search 12", **changes):
    values = {
        "name": name,
        "placement": LONG,
        "role": TrialRole.SEARCH,
        "number": 12,
        "progress": progress_at(3, 10, epoch=13, epochs=300),
        "started_at": time.monotonic() - 61.5,
    }
    return Running(**{**values, **changes})


def progress(**changes):
    values = {
        "phase": TrialRole.SEARCH,
        "num_ended": 4,
        "num_confirmed": 0,
        "num_baselines": 0,
        "num_asked": 0,
        "running": (running(),),
        "failed": [],
        "search_left_s": 731.0,
        "load_rows": list,
        "wall_time_s": 62.0,
    }
    return Progress(**{**values, **changes})


def drawn(renderable, width):
    shown = console(width)
    with shown.capture() as capture:
        shown.print(renderable, soft_wrap=False)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 140])
def test_eight_slots_have_a_row_each_and_no_row_is_broken(width):
    rows = [running(f"search {i}") for i in range(8)]
    lines = drawn(slots_table(rows, time.monotonic()), width)
    assert len(lines) == 9
    assert max(map(len, lines)) <= width
    for i, line in enumerate(lines[1:]):
        assert line.startswith(f"search {i} ")
        assert line.split()[-5:] == ["13/300", "212", "1.234", "1:01", "0:42"]
        assert (LONG in line) == (width == 140)
        assert ("…" in line) == (width == 80)


def test_a_terminal_without_unicode_gets_none():
    class Ascii(Terminal):
        encoding = "ascii"

    shown = console(60, file=Ascii(), force_terminal=True)
    display = StudyDisplay(shown, Record(), ())
    display.update(progress(search_left_s=None))
    with shown.capture() as capture:
        shown.print(display._picture(), soft_wrap=False)
    assert capture.get().isascii()
    assert "search 12  V2E2/s16" in capture.get()


def test_what_is_not_known_is_left_empty():
    rows = [running(progress=None), running("supernet", placement="", top1=0.625)]
    header, first, second = drawn(slots_table(rows, time.monotonic()), 100)
    assert "top1" in header
    assert first.split()[-1] == "1:01"
    assert second.split()[-3:] == ["0.625", "1:01", "0:42"]


def test_a_line_of_a_log():
    assert slot_line(running(placement="V2"), time.monotonic()) == (
        "search 12  V2  epoch 13/300  212 images/s  loss 1.234  0:42 left"
    )
    validating = replace(progress_at(10, 10), is_validating=True)
    assert slot_line(running(placement="V2", progress=validating), 0.0) == (
        "search 12  V2  epoch 1/1  validating  loss 1.234  0:42 left"
    )
    assert slot_line(running(placement="V2", progress=None), time.monotonic()) == (
        "search 12  V2  for 1:01"
    )
    scoring = ScoringProgress(placements=1200, share=0.376, left_s=None)
    assert slot_line(running("scoring", placement="", progress=scoring), 0.0) == (
        "scoring  38% of 1,200 placements"
    )


def test_a_log_has_lines_once_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sharedattn.search.cli.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    display = StudyDisplay(console(120, file=out), Record(), ())
    two = (running("search 4", started_at=0.0), running("search 5", started_at=0.0))
    with display:
        for second in range(300):
            now[0] = float(second)
            display.update(progress(running=two, wall_time_s=now[0]))
    lines = out.getvalue().splitlines()
    assert [line for line in lines if "finished" in line] == [
        f"{time}  4 of 40 trials finished, about 12 min left"
        for time in ("0:10", "1:10", "2:10", "3:10", "4:10")
    ]
    assert sum(line.startswith("  search 4  ") for line in lines) == 5
    assert sum(line.startswith("  search 5  ") for line in lines) == 5


def test_a_log_of_a_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sharedattn.search.cli.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with TrainingDisplay(console(120, file=out), "train", "V2") as display:
        for second in range(100):
            now[0] = float(second)
            display.tell(progress_at(3, 10))
    assert (
        out.getvalue().splitlines()
        == ["train  V2  epoch 1/1  212 images/s  loss 1.234  0:42 left"] * 2
    )


def test_failures_are_told_once_for_each_reason():
    out = io.StringIO()
    failed = []
    with StudyDisplay(console(200, file=out), Record(), ()) as display:
        for number in range(30):
            reason = "ValueError: [bold]" if number % 2 else f"KeyError: {number}"
            failed.append(Failed(name=f"search {number}", placement="V2", reason=reason))
            display.update(progress(failed=failed))
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[1] == "search 1 failed: ValueError: [bold]  (V2)"


@pytest.mark.parametrize("width", [80, 140])
def test_the_picture_fits_its_terminal(width):
    eight = tuple(running(f"search {i}", number=i) for i in range(8))
    shown = console(width, file=Terminal(), force_terminal=True)
    display = StudyDisplay(shown, Record(), ())
    display.update(progress(running=eight))
    lines = drawn(display._picture(), width)
    assert max(map(len, lines)) <= width
    assert "4/40" in lines[0]
    assert lines[0].rstrip().endswith("1:02, about 12 min left")
    display.update(
        progress(phase=TrialRole.CONFIRM, num_confirmed=1, num_asked=8, search_left_s=None)
    )
    assert "confirming: 1 of 8 runs finished" in drawn(display._picture(), width)[0]
    display.update(
        progress(phase=TrialRole.BASELINE, num_baselines=2, num_asked=3, search_left_s=None)
    )
    assert "baselines: 2 of 3 runs finished" in drawn(display._picture(), width)[0]


def test_durations():
    assert [clock(s) for s in (0, 42.9, 725, 3731)] == ["0:00", "0:42", "12:05", "1:02:11"]
    assert [about(s) for s in (59, 61, 3000, 7200, 40_000)] == [
        "less than a minute",
        "about 1 min",
        "about 50 min",
        "about 2.0 h",
        "about 11 h",
    ]
