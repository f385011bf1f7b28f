"""What the tests of this folder share: a space and a table that are searched in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.cli import main
from search.executors.base import Event, Executor, advance

BACKBONE = (
    "vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,"
    "num_heads=2,patch_size=8)@16"
)
SPACE = f"""\
name: tiny
backbone: {BACKBONE}
order: any
stages:
  - depth: 1..2
    counts: {{V: 0..2, L: 0..1, N: 0..1}}
"""
TABLE = {"V2": 0.9, "V1L1": 0.8, "V1": 0.7, "V1N1": 0.7, "N1V1": 0.65, "N1": 0.5}


class InThisProcess(Executor):
    """One slot without a process of its own, whose start takes seconds."""

    num_slots = 1

    def __init__(self, evaluator, **_):
        self._evaluator = evaluator
        self._held = {}

    @property
    def num_free(self) -> int:
        return 1 - len(self._held)

    def submit(self, ticket, task) -> None:
        self._held[ticket] = self._evaluator.evaluate(task)

    def wait(self, timeout_s=None) -> list[tuple[int, Event]]:
        ((ticket, evaluation),) = self._held.items()
        self._held.clear()
        return [(ticket, advance(evaluation, 1))]

    def go_on(self, ticket) -> None:
        raise NotImplementedError

    def stop(self, ticket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._held.clear()


class Lab:
    """A folder to work in, with `tiny.yaml` and `table.json`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        Path("tiny.yaml").write_text(SPACE, encoding="utf-8")
        Path("table.json").write_text(json.dumps(TABLE), encoding="utf-8")

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command."""
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def search(self, *arguments: object, space: str = "tiny.yaml") -> tuple[int, str, str]:
        """The same of a search in the table."""
        return self.run(
            *("search", space, "--evaluator", "table", "--table", "table.json"),
            *("--trials", 2, "--confirm-seeds", 1, "--workers", 1, *arguments),
        )

    def study(self, *arguments: object) -> str:
        """The name of the study that `front` finds."""
        code, out, err = self.run("front", *arguments, "--json")
        assert code == 0, err
        return str(json.loads(out)["study"])

    def refused(self, *arguments: object) -> str:
        """What a command says that is refused, before anything is written."""
        before = files()
        code, out, err = self.run(*arguments)
        assert (code, out) == (2, ""), (code, out, err)
        assert err.startswith("sharedattn: ")
        assert err.count("\n") == 1
        assert files() == before
        return err

    def refused_search(self, *arguments: object, space: str = "tiny.yaml") -> str:
        """The same of a search in the table."""
        before = files()
        code, out, err = self.search(*arguments, space=space)
        assert (code, out) == (2, ""), (code, out, err)
        assert err.startswith("sharedattn: ")
        assert err.count("\n") == 1
        assert files() == before
        return err


def files() -> set[str]:
    """All that lies below the current folder."""
    return {str(path) for path in Path().rglob("*")}
