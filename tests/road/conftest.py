"""Commands as a user gives them, in this process and on little data."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.cli import main
from search.executors import Executor, Progressed, Reported, advance

SPACE = """\
name: tiny
backbone: vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,mlp_ratio=1,\
num_classes=2,num_heads=2,patch_size=8)@16
order: any
stages:
  - depth: 1..2
    counts: {V: 0..2, L: 0..1, N: 0..1}
    cb: [none, all]
"""
NETWORK = (
    "vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,mlp_ratio=1,"
    "num_classes=2,num_heads=2,patch_size=8)@16: V2"
)


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


@pytest.fixture
def few_pairs(monkeypatch):
    """`digit-pairs` with few images."""
    monkeypatch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", 256)
    monkeypatch.setattr("sharedattn.data.digit_pairs.EVAL_PAIRS", 200)


@pytest.fixture
def in_process(monkeypatch, few_pairs):
    """Searches whose trials run in this process, and say after each step how far they are."""
    monkeypatch.setattr("search.run.LocalExecutor", InProcess)


@pytest.fixture
def tiny(tmp_path):
    """A space of 12 placements, as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe's file: training fields, small batches."""

    def write(**fields) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({"epochs": 1, "batch_size": 64, **fields}))
        return path

    return write


@pytest.fixture
def run(capsys):
    """Runs a command; its exit code, standard output and standard error."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call
