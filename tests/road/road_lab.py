"""What the tests of this folder share: an executor that says all, and a folder to search in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run
from tiny import SPACE, TABLE

from sharedattn.search.executors import Executor, Progressed, Reported, advance


class InProcess(Executor):
    """Runs tasks one after the other in this process; what they said of their progress first."""

    def __init__(self, evaluator, *, num_slots, threads=1, gpus=0.0):
        self.evaluator = evaluator
        self.num_slots = num_slots
        self.held = {}
        self.messages = []

    @property
    def num_free(self):
        return self.num_slots - len(self.held)

    def submit(self, ticket, task):
        def tell(progress):
            self.messages.append((ticket, Progressed(progress)))

        self.held[ticket] = self.evaluator.evaluate(task, tell)

    def wait(self, timeout_s=None):
        if not self.messages:
            ticket = next(iter(self.held))
            event = advance(self.held[ticket], 1)
            self.messages.append((ticket, event))
        # One at a time, so that whoever watches has seen all of them.
        ticket, message = self.messages.pop(0)
        if not isinstance(message, Reported | Progressed):
            del self.held[ticket]
        return [(ticket, message)]

    def go_on(self, ticket):
        pass

    def stop(self, ticket):
        self.held.pop(ticket)

    def close(self):
        self.held.clear()


class Lab:
    """A folder to work in, with `tiny.yaml` and `table.json`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        Path("tiny.yaml").write_text(SPACE, encoding="utf-8")
        Path("table.json").write_text(json.dumps(TABLE), encoding="utf-8")

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command."""
        return run(self._capsys, *arguments)

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
