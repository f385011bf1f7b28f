"""The package leaves `search`, `results` and `spaces` to whoever else bears these names."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_folder_with_scripts_of_those_names_takes_nothing_from_the_command(tmp_path):
    for name in ("search", "results", "spaces"):
        (tmp_path / f"{name}.py").write_text(
            f"print('the user's own {name}')\n".replace("'s", "s")
        )
    command = [sys.executable, "-m", "sharedattn", "cost", "vit: V2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "own" not in done.stdout and "MACs" in done.stdout
    command = [sys.executable, "-c", "import sharedattn, spaces; print(spaces.__file__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "spaces.py")


def test_one_package_is_installed_and_every_folder_of_modules_is_listed():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    listed = set(tool["setuptools"]["packages"])
    assert {name.split(".")[0] for name in listed} == {"sharedattn"}
    there = set()
    for room in ("sharedattn", "search", "results", "spaces"):
        prefix = "" if room == "sharedattn" else "sharedattn."
        for path in (ROOT / room).rglob("*.py"):
            there.add(prefix + path.parent.relative_to(ROOT).as_posix().replace("/", "."))
    assert listed == there
