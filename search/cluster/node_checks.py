"""Checks that every node of a cluster can run trials, by asking each of them.

A search runs them once before it begins; `sharedattn doctor` prints them. The questions are
answered on the nodes, by processes like those of the trials.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.plugins import installed
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.export.verify import Check
from sharedattn.search.provenance import NOT_INSTALLED, library_versions

# Workers import torch, and count the files of a large data set, perhaps over a slow network.
TIMEOUT_S = 120.0
DATA_TIMEOUT_S = 600.0
_ROOMS = ("search", "results", "spaces")
_OF_THE_DRIVER = ("optuna",)  # trials do not use these


class Ask(Protocol):
    """Calls a function on every node; returns answers, or exceptions, by the node's name."""

    def __call__(self, function: Any, *args: Any, timeout_s: float) -> Mapping[str, Any]: ...


def check_cluster(data: DataConfig | None, blobs: BlobStore | None) -> None:
    """Check that trials can run on every node of the connected cluster, with equal results.

    Args:
        data: the data of trials, or None if they need none.
        blobs: where they keep weights and checkpoints, or None if they keep none.

    Raises:
        InputError: a node lacks something; the message names both.
    """
    # Imported here: only a search on a cluster needs Ray.
    from sharedattn.search.executors.ray import executor as ray_tune

    for check in node_checks(ray_tune.on_every_node, data, blobs):
        if not check.ok:
            raise InputError(f"a search needs that {check.expected}, but {check.found}")


def node_checks(ask: Ask, data: DataConfig | None, blobs: BlobStore | None) -> Iterator[Check]:
    """Check what trials need of every node, one item after the other.

    Args:
        ask: asks the nodes.
        data: as in `check_cluster`.
        blobs: as in `check_cluster`.
    """
    # First, since nodes with other versions may not even understand the other questions.
    yield _same_versions(ask(worker_versions, timeout_s=TIMEOUT_S))
    if data is not None:
        yield _same_data(data, ask)
    if blobs is not None:
        yield _shared_folder(blobs, ask)


def worker_versions() -> dict[str, str]:
    """Versions that a trial's result depends on, by name, and the digest of this package's code.

    Plug-ins are named `plugin NAME`.
    """
    versions = {n: v for n, v in library_versions().items() if n not in _OF_THE_DRIVER}
    python = ".".join(versions.pop("python").split(".")[:2])
    plugins = {f"plugin {plugin.name}": plugin.version for plugin in installed()}
    return {"python": python, **versions, **plugins, "sharedattn's code": _code_digest()}


@cache
def _code_digest() -> str:
    """The first digits of a sha256 over the modules of the four packages.

    The version alone does not distinguish checkouts.
    """
    digest = hashlib.sha256()
    for name in ("sharedattn", *(f"sharedattn.{room}" for room in _ROOMS)):
        package = find_spec(name)
        assert package is not None and package.origin is not None
        folder = Path(package.origin).parent
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            # An installation has the rooms inside the package, a checkout beside it.
            if name == "sharedattn" and relative.parts[0] in _ROOMS:
                continue
            digest.update(f"{name}/{relative.as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _same_versions(answers: Mapping[str, Any]) -> Check:
    ours = worker_versions()
    found = []
    for node, theirs in answers.items():
        if isinstance(theirs, BaseException):
            found.append(f"{node} does not answer: {reason(theirs)}")
            continue
        # Also report what only the node has: a plug-in adds to what names mean.
        pairs = {
            name: (theirs.get(name, NOT_INSTALLED), ours.get(name, NOT_INSTALLED))
            for name in (*ours, *theirs)
        }
        differing = [
            f"{name} {there} instead of {here}"
            for name, (there, here) in pairs.items()
            if there != here
        ]
        if differing:
            found.append(f"{node} has {', '.join(differing)}")
    return _check("versions", "every node has the driver's versions", found, answers)


def _same_data(data: DataConfig, ask: Ask) -> Check:
    ours = open_data(data).fingerprint
    answers = ask(data_fingerprint, data, timeout_s=DATA_TIMEOUT_S)
    found = []
    for node, theirs in answers.items():
        if isinstance(theirs, BaseException):
            found.append(f"{node} cannot open {data.name!r}: {reason(theirs)}")
        elif theirs != ours:
            found.append(
                f"{node} has other data as {data.name!r}, of fingerprint {theirs[:12]} instead of "
                f"{ours[:12]}"
            )
    return _check("data on the nodes", "every node has the driver's data", found, answers)


def data_fingerprint(data: DataConfig) -> str:
    """The fingerprint of a data set on this machine.

    Raises:
        InputError: the data is not there.
    """
    return open_data(data).fingerprint


def _shared_folder(blobs: BlobStore, ask: Ask) -> Check:
    """Whether all nodes see one shared folder, not each its own of equal name.

    The driver writes a note, each node that finds it writes another, and the driver looks for it.
    The names are new, so a network disk's cache of absent files cannot mislead.
    """
    # In a subfolder, since every file at the top counts as an evaluation's weights.
    note = f"checkpoints/doctor-{secrets.token_hex(8)}"
    notes, found = [note], []
    try:
        blobs.write(note, note.encode())
        answers = ask(answer_note, blobs, note, timeout_s=TIMEOUT_S)
        for node, answer in answers.items():
            if isinstance(answer, BaseException):
                found.append(f"{node} cannot use {blobs.shown()}: {reason(answer)}")
            elif answer is None:
                found.append(f"{node} sees another folder as {blobs.shown()}")
            else:
                notes.append(answer)
                if not blobs.exists(answer):
                    found.append(f"{node} writes elsewhere than to {blobs.shown()}")
    finally:
        for name in notes:
            blobs.delete(name)
    if found:
        found.append("set --weights-dir to a folder or URL that all nodes share")
    return _check("weights on the nodes", "all nodes share the weights' folder", found, answers)


def answer_note(blobs: BlobStore, note: str) -> str | None:
    """Answer the driver's note in a folder with another note.

    Returns:
        The name of the answer, or None if there is no such note here.

    Raises:
        OSError: the folder cannot be read or written.
        InputError: a package that the folder's URL requires is not installed here.
    """
    try:
        content = blobs.read(note)
    except FileNotFoundError:
        return None
    answer = f"{note}-{secrets.token_hex(8)}"
    blobs.write(answer, content)
    return answer


def _check(name: str, expected: str, found: list[str], answers: Mapping[str, Any]) -> Check:
    return Check(name, expected, "; ".join(found) or ", ".join(answers), not found)


def reason(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
