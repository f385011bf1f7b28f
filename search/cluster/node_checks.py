"""What every node of a cluster must have before a trial starts, found by asking each of them.

A search asks it once, before anything is begun; `sharedattn doctor` prints it. What is asked runs
on the nodes, in processes like those of the trials.
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

# Workers have to import torch, which over a network takes its time; a large data set's files are
# counted, over that network as well.
TIMEOUT_S = 120.0
DATA_TIMEOUT_S = 600.0
_ROOMS = ("search", "results", "spaces")
_OF_THE_DRIVER = ("optuna",)  # what no trial uses


class Ask(Protocol):
    """Calls a function on every node; answers by the node's name, an exception where it failed."""

    def __call__(self, function: Any, *args: Any, timeout_s: float) -> Mapping[str, Any]: ...


def check_cluster(data: DataConfig | None, blobs: BlobStore | None) -> None:
    """Refuse a cluster on which trials would fail, or would not be equal; it is connected.

    Args:
        data: what trials train on; None: nothing.
        blobs: where they keep weights and checkpoints; None: nowhere.

    Raises:
        InputError: which nodes lack what.
    """
    # Imported here: only a search on a cluster needs Ray.
    from sharedattn.search.executors.ray import executor as ray_tune

    for check in node_checks(ray_tune.on_every_node, data, blobs):
        if not check.ok:
            raise InputError(f"a search needs that {check.expected}, but {check.found}")


def node_checks(ask: Ask, data: DataConfig | None, blobs: BlobStore | None) -> Iterator[Check]:
    """What trials need of every node, one thing after the other.

    Args:
        ask: asks the nodes.
        data: see `check_cluster`.
        blobs: see `check_cluster`.
    """
    # First, since nodes with other versions may not even understand the next question.
    yield _same_versions(ask(worker_versions, timeout_s=TIMEOUT_S))
    if data is not None:
        yield _same_data(data, ask)
    if blobs is not None:
        yield _shared_folder(blobs, ask)


def worker_versions() -> dict[str, str]:
    """Versions of what a trial's result depends on, by name, and the digest of our own code.

    A plug-in stands as `plugin NAME`.
    """
    versions = {n: v for n, v in library_versions().items() if n not in _OF_THE_DRIVER}
    python = ".".join(versions.pop("python").split(".")[:2])
    plugins = {f"plugin {plugin.name}": plugin.version for plugin in installed()}
    return {"python": python, **versions, **plugins, "sharedattn's code": _code_digest()}


@cache
def _code_digest() -> str:
    """The first digits of a sha256 over the modules of the four packages.

    The version alone would not tell a checkout from another.
    """
    digest = hashlib.sha256()
    for name in ("sharedattn", *(f"sharedattn.{room}" for room in _ROOMS)):
        package = find_spec(name)
        assert package is not None and package.origin is not None
        folder = Path(package.origin).parent
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            # Installed, the rooms lie inside the package; in a checkout they lie beside it.
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
        # What a node has beside ours differs as well: a plug-in adds to what names mean.
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
    """The fingerprint of some data on this machine.

    Raises:
        InputError: it is not there.
    """
    return open_data(data).fingerprint


def _shared_folder(blobs: BlobStore, ask: Ask) -> Check:
    """Whether all nodes see one folder, and not each its own of equal name.

    The driver leaves a note, each node that finds it leaves another, and the driver looks for it.
    No name was ever looked up before, so a network disk's memory of absent files does not matter.
    """
    # Below the top, where every file is taken for an evaluation's weights.
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
        found.append("name a folder or URL that all nodes share, by --weights-dir")
    return _check("weights on the nodes", "all nodes share the weights' folder", found, answers)


def answer_note(blobs: BlobStore, note: str) -> str | None:
    """Answer a driver's note in a folder by another one.

    Returns:
        The name of the answer; None: there is no such note here.

    Raises:
        OSError: the folder cannot be read or written.
        InputError: a package that it needs is not installed here.
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
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
