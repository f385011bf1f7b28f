"""What ran a study: versions, machine, code and command line."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from results.masking import masked
from sharedattn.timing import device_name

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

    Passwords on the command line are left out: the document is stored and printed.
    """
    return {
        "command": " ".join(["sharedattn", *map(masked, sys.argv[1:])]),
        "commit": _commit(),
        "versions": library_versions(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": device_name("cpu"),
            "cores": len(os.sched_getaffinity(0)),
        },
    }


def _commit() -> str | None:
    """The commit of the source tree this package runs from; None outside of one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
