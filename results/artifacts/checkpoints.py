"""Keep checkpoints of running trials, from which a retry continues.

One a trial, replaced at each rung and deleted when the trial ends, so that they never fill a disk.
They are kept beside the weights: `checkpoints/<study>/<role>-<number>.pt`.
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

    Names are `<study>/<role>-<number>`, see `BlobStore` for what may be in them.

    Attributes:
        blobs: the folder of the weights.
    """

    blobs: BlobStore

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write the state of a trial, in place of its older one.

        Args:
            name: the trial's.
            state: tensors, numbers, strings and None, in lists, tuples and dicts.

        Raises:
            TypeError: something else is in the state, which no retry could read.
            OSError: it cannot be written, such as on a full disk; the older one stays.
        """
        _check_plain(state, "state")
        # The sum is put in afterwards: joining bytes would hold a large network twice.
        buffer = io.BytesIO()
        buffer.write(_HEAD + bytes(_SUM_SIZE))
        torch.save(state, buffer)
        with buffer.getbuffer() as whole:
            whole[len(_HEAD) : _START] = hashlib.sha256(whole[_START:]).digest()
        self.blobs.write(_blob(name), buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """The state of a trial, on the CPU; nothing from the file is executed.

        A damaged file is as good as none, and deleted.

        Args:
            name: the trial's.

        Returns:
            The saved value, or None if there is none.

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
            except pickle.UnpicklingError:  # another program's, with our head
                pass
        self.delete(name)
        return None

    def delete(self, name: str) -> None:
        """Delete the state of a trial, if there is one."""
        self.blobs.delete(_blob(name))

    def sweep(self, keep: Collection[str], prefix: str) -> None:
        """Delete the states of trials that are not in flight, and what kills have left.

        Args:
            keep: names of the trials whose states stay.
            prefix: what the names to look at begin with, `<study>/`.
        """
        kept = {_blob(name) for name in keep}
        for blob in self.blobs.names(f"{_FOLDER}{prefix}"):
            if blob not in kept:
                self.blobs.delete(blob)
        self.blobs.sweep(f"{_FOLDER}{prefix[: prefix.rfind('/') + 1]}")


def _blob(name: str) -> str:
    return f"{_FOLDER}{name}{_SUFFIX}"


def _check_plain(value: Any, where: str) -> None:
    """Refuse what `weights_only` would not read again; a subclass may be such."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif not isinstance(value, torch.Tensor) and type(value) not in _PLAIN:
        raise TypeError(
            f"a checkpoint holds tensors, numbers and strings only, but {where} is a "
            f"{type(value).__name__}; convert it"
        )
