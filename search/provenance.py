"""Provenance of a study: versions, machine, code and command line."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sharedattn.costs.timing import device_name
from sharedattn.plugins import installed
from sharedattn.results.redaction import redacted

LIBRARIES = ("sharedattn", "torch", "torchvision", "timm", "numpy", "optuna", "scikit-learn")
NOT_INSTALLED = "not installed"


@cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on, by name."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = NOT_INSTALLED
    return versions


def provenance() -> dict[str, Any]:
    """Command line, commit, versions and machine of this process, as a JSON document.

    It lists installed plug-ins with their versions, if there are any. Passwords on the command
    line are left out, since the document is stored and printed.
    """
    plugins = {plugin.name: plugin.version for plugin in installed()}
    return {
        "command": " ".join(["sharedattn", *map(redacted, sys.argv[1:])]),
        "commit": _commit(),
        "versions": library_versions(),
        **({"plugins": plugins} if plugins else {}),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": device_name("cpu"),
            "cores": len(os.sched_getaffinity(0)),
        },
    }


def _commit() -> str | None:
    """The commit of this package's source tree, or None outside of one.

    A package installed inside another repository does not report that repository's commit.
    """
    root = Path(__file__).resolve().parents[1]
    try:
        # The repository's top is this project, and contains this file.
        if _git(root, "rev-parse", "--show-prefix") != "" or not _is_project(root):
            return None
        _git(root, "ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return _git(root, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    """Run git in the repository around a folder, whatever the environment variables name.

    Raises:
        OSError: git is not installed.
        SubprocessError: there is no repository, or git refuses the command.
    """
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()


def _is_project(folder: Path) -> bool:
    """Whether a folder is the top of this package's source tree."""
    try:
        with (folder / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file).get("project", {})
    except (OSError, tomllib.TOMLDecodeError):
        return False
    return isinstance(project, dict) and project.get("name") == "sharedattn"
