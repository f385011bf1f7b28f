"""Commands as a person types them, run in this process, and what each says."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from sharedattn.search.cli.main import main
from sharedattn.search.executors.in_process import InProcessExecutor


class Said(NamedTuple):
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    """Run a command."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Said(code, captured.out, captured.err)


def document(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What a command that succeeds says in JSON."""
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, out + err
    return json.loads(out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command says that begins nothing, on one line."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), (code, out, err)
    assert "Traceback" not in err
    return " ".join(err.split())


def run_trials_here(patch: pytest.MonkeyPatch) -> None:
    """Have searches run their trials in this process: a worker process takes seconds to begin."""
    patch.setattr(
        "sharedattn.search.run.LocalExecutor",
        lambda evaluator, num_slots, **_: InProcessExecutor(evaluator, num_slots),
    )
