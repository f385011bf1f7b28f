"""Lint, format, types and the import contract are tests like any other."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((BIN / "ruff", "check", "."), id="lint"),
        pytest.param((BIN / "ruff", "format", "--check", "."), id="format"),
        pytest.param((BIN / "mypy",), id="types", marks=pytest.mark.slow),
        pytest.param((BIN / "lint-imports",), id="import contract"),
    ],
)
def test_the_tree_passes(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
