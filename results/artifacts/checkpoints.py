"""Keep checkpoints of running trials, from which a retry continues.

A trial has one checkpoint, replaced at each rung and deleted when the trial ends, so checkpoints
never fill a disk. They lie beside the weights: `checkpoints/<study>/<role>-<number>.pt`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sharedattn.results.artifacts.blobs import BlobStore

_FOLDER = "checkpoints/"
_SUFFIX = ".pt"
_HEAD = b"sharedattn checkpoint 1\n"  # then the sha256 of what follows it
_SUM_SIZE = hashlib.sha256().digest_size
_START = len(_HEAD) + _SUM_SIZE
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """States of trials by name; pickled to workers.

    Names are `<study>/<role>-<number>`; `BlobStore` says which characters are allowed.

    Attributes:
        blobs: the folder of the weights.
    """

    blobs: BlobStore

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write the state of a trial, replacing its older one.

        Args:
            name: name of the trial.
            state: tensors, numbers, strings and None, in lists, tuples and dicts.

        Raises:
            TypeError: the state holds something else, which a retry could not read.
            OSError: it cannot be written, such as on a full disk; the older one stays.
        """
        _check_plain(state, "state")
        # The sum is filled in afterwards: joining bytes would hold a large network twice.
        buffer = io.BytesIO()
        buffer.write(_HEAD + bytes(_SUM_SIZE))
        torch.save(state, buffer)
        with buffer.getbuffer() as whole:
            whole[len(_HEAD) : _START] = hashlib.sha256(whole[_START:]).digest()
        self.blobs.write(_blob(name), buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """Load the state of a trial on the CPU; nothing from the file is executed.

        A damaged file is deleted and treated as absent.

        Args:
            name: name of the trial.

        Returns:
            The saved state, or None if there is none.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            whole = self.blobs.read(_blob(name))
        except FileNotFoundError:
            return None
        content = whole[_START:]
        if whole[:_START] == _HEAD + hashlib.sha256(content).digest():
            try:
                state: dict[str, Any] = torch.load(
                    io.BytesIO(content), map_location="cpu", weights_only=True
                )
                return state
            except pickle.UnpicklingError:  # written by another program with the same head
                pass
        self.delete(name)
        return None

    def delete(self, name: str) -> None:
        """Delete the state of a trial, if there is one."""
        self.blobs.delete(_blob(name))

    def sweep(self, keep: Collection[str], prefix: str) -> None:
        """Delete the states of trials that no longer run, and the files of killed writers.

        Args:
            keep: names of the trials whose states stay.
            prefix: prefix of the names to delete, `<study>/`.
        """
        kept = {_blob(name) for name in keep}
        for blob in self.blobs.names(f"{_FOLDER}{prefix}"):
            if blob not in kept:
                self.blobs.delete(blob)
        self.blobs.sweep(f"{_FOLDER}{prefix[: prefix.rfind('/') + 1]}")


def _blob(name: str) -> str:
    return f"{_FOLDER}{name}{_SUFFIX}"


def _check_plain(value: Any, where: str) -> None:
    """Check that torch's `weights_only` loading can read a value; subclasses may fail it."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif not isinstance(value, torch.Tensor) and type(value) not in _PLAIN:
        raise TypeError(
            f"a checkpoint holds only tensors, numbers and strings, but {where} is a "
            f"{type(value).__name__}; convert it"
        )
