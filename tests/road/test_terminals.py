"""Terminals and files that take no result, or know few characters, end no command badly."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import BACKBONE, SPACE, TABLE

from sharedattn.search.cli import commands
from sharedattn.search.cli import main as cli
from sharedattn.search.cli.main import main
from sharedattn.search.cli.output import StandardOutput

COST = ("cost", f"{BACKBONE}: V2")
FULL = "sharedattn: standard output cannot be written: No space left on device\n"


def command(*arguments, redirected):
    """Exit code and standard error of a command in a process of its own.

    Args:
        arguments: of a command that imports little.
        redirected: as a shell is told.
    """
    line = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-m", "sharedattn"]
    done = subprocess.run([*line, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_a_full_standard_output_is_one_line_and_exit_1(lab, monkeypatch, capsys, extra) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main([*COST, *extra]) == 1
    assert capsys.readouterr().err == FULL


def test_a_full_standard_output_at_the_very_end_of_the_process(lab) -> None:
    assert command("--help", redirected="> /dev/full") == (1, FULL)


def test_a_closed_standard_output_is_refused_before_any_work(lab, monkeypatch, capsys) -> None:
    arguments = ("search", "tiny.yaml", "--evaluator", "table", "--table", "table.json")
    code, err = command(*arguments, redirected=">&-")
    assert (code, err.count("\n")) == (1, 1)
    assert "standard output is closed" in err
    monkeypatch.setattr(sys, "stdout", None)
    assert main(list(arguments)) == 1
    assert not Path("sharedattn-out").exists()


def test_a_closed_standard_error_changes_no_exit_code(lab, monkeypatch) -> None:
    assert command("--help", redirected="2>&-") == (0, "")
    assert command("nothing", redirected="2>&-") == (2, "")
    monkeypatch.setattr(sys, "stderr", None)
    arguments = ["search", "tiny.yaml", "--evaluator", "table", "--table", "table.json"]
    assert main([*arguments, "--trials", "1", "--confirm-seeds", "1"]) == 0


def test_a_full_standard_error_changes_no_exit_code(lab) -> None:
    assert command("nothing", redirected="2> /dev/full")[0] == 2


def test_a_reader_that_has_gone_is_told_nothing(lab, monkeypatch, capsys) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(list(COST)) == 1
    assert capsys.readouterr().err == ""


class Ascii:
    """Standard output of a terminal that knows ASCII alone."""

    def __init__(self, monkeypatch) -> None:
        self._bytes = io.BytesIO()
        stream = io.TextIOWrapper(self._bytes, encoding="ascii", errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)

    def text(self) -> str:
        sys.stdout.flush()
        return self._bytes.getvalue().decode("ascii")


def test_an_ascii_terminal_shows_every_table(lab, monkeypatch, capsys) -> None:
    Path("odd.yaml").write_text(SPACE.replace("tiny", "größe"), encoding="utf-8")
    Path("²±.json").write_text(json.dumps(TABLE), encoding="utf-8")
    ascii_output = Ascii(monkeypatch)
    arguments = ["search", "odd.yaml", "--evaluator", "table", "--table", "²±.json"]
    assert main([*arguments, "--trials", "3", "--confirm-seeds", "2"]) == 0
    for other in (
        ["front"],
        ["report"],
        ["front", "--json"],
        ["space", "odd.yaml"],
        ["space", "odd.yaml", "--json"],
        list(COST),
        ["papers"],
        ["front", "größe²"],
        ["cost", "größe: V²"],
    ):
        assert main(other) in (0, 2)
    shown = ascii_output.text()
    assert "+-" in shown
    assert r"gr\xf6\xdfe" in shown
    assert capsys.readouterr().err.count("Traceback") == 0


def test_signs_have_plain_forms(monkeypatch) -> None:
    ascii_output = Ascii(monkeypatch)
    StandardOutput().write("0.9 ± 0.1 m² é 日 \U0001f642 \udcff\n")
    assert ascii_output.text() == "0.9 +- 0.1 m2 \\xe9 \\u65e5 \\U0001f642 \\udcff\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (b"space", b"\xff.yaml"),
        (b"front", b"--out", b"\xff"),
        (b"front", b"--out=\xff"),
        (b"search", b"--study", b"a\xff"),
        (b"\xff",),
        (b"cost", b"\xe4: V2"),
    ],
)
def test_arguments_that_are_no_utf_8_are_refused(lab, arguments) -> None:
    said = lab.refused(*(os.fsdecode(argument) for argument in arguments))
    assert "is not UTF-8" in said


def test_a_disk_that_fails_in_the_midst_is_one_line(lab, monkeypatch) -> None:
    def front(*_):
        raise OSError(28, "No space left on device", "there/report.html")

    monkeypatch.setattr(commands, "front", front)
    code, out, err = lab.run("front")
    assert (code, out) == (1, "")
    assert err == "sharedattn: there/report.html: No space left on device\n"
    assert cli.EXIT_FAILED == 1
