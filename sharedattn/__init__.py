"""Search for the layers of a vision transformer that need full attention, and replace the others.

The names in `__all__` are stable; the modules below may change. They are imported on first use,
since torch and timm take seconds to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout `search`, `results` and `spaces` lie beside this folder; an installation has them
# inside it. Python that starts in the checkout finds this folder first, whatever is installed.
if not (Path(__path__[0]) / "search").is_dir():
    __path__.append(str(Path(__path__[0]).parent))

if TYPE_CHECKING:
    from sharedattn.errors import InputError
    from sharedattn.placement import NetworkSpec, Placement
    from sharedattn.search.api import (
        Front,
        InProcess,
        Member,
        RayCluster,
        Space,
        Study,
        WorkerProcesses,
        build,
        cost,
        load,
    )
    from sharedattn.search.evaluation import FromScratch, FromSupernet, FromTable

_API = "sharedattn.search.api"
_HOMES = {
    "Front": _API,
    "FromScratch": "sharedattn.search.evaluation",
    "FromSupernet": "sharedattn.search.evaluation",
    "FromTable": "sharedattn.search.evaluation",
    "InProcess": _API,
    "InputError": "sharedattn.errors",
    "Member": _API,
    "NetworkSpec": "sharedattn.placement",
    "Placement": "sharedattn.placement",
    "RayCluster": _API,
    "Space": _API,
    "Study": _API,
    "WorkerProcesses": _API,
    "build": _API,
    "cost": _API,
    "load": _API,
}

__all__ = [
    "FromScratch",
    "FromSupernet",
    "FromTable",
    "Front",
    "InProcess",
    "InputError",
    "Member",
    "NetworkSpec",
    "Placement",
    "RayCluster",
    "Space",
    "Study",
    "WorkerProcesses",
    "build",
    "cost",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
