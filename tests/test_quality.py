"""Lint, format, types and the import contract are tests like any other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ROOMS = ("search", "results", "spaces")


@pytest.fixture
def as_installed(tmp_path):
    """The package as an installation has it, the rooms inside `sharedattn`, made of links.

    mypy and import-linter read folders as they lie, and know nothing of `package-dir`.
    """
    package = tmp_path / "sharedattn"
    package.mkdir()
    for path in (ROOT / "sharedattn").iterdir():
        (package / path.name).symlink_to(path)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    return tmp_path


def passes(command, folder):
    # A path that Python was started with would be read before the folder.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("ruff", "check", "."), id="lint"),
        pytest.param(("ruff", "format", "--check", "."), id="format"),
    ],
)
def test_the_tree_passes(command):
    passes((BIN / command[0], *command[1:]), ROOT)


@pytest.mark.slow
def test_types(as_installed):
    config = ("--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache")
    said = passes((BIN / "mypy", *config), as_installed)
    num_modules = sum(len(list((ROOT / room).rglob("*.py"))) for room in ("sharedattn", *ROOMS))
    assert int(re.search(r"no issues found in (\d+) source files", said)[1]) >= num_modules


def test_the_import_contract(as_installed):
    config = ("--config", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".import_linter_cache")
    said = passes((BIN / "lint-imports", *config), as_installed)
    assert "0 broken" in said
